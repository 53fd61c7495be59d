# `make run` and `make test` are enough to begin with; `make help` lists the rest.
SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The first Python that is new enough.
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done), \
	$(error Berth needs Python 3.11 or newer: install it, or name it: make run PYTHON=/path/to/python3))
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run setup setup-dev client demo lint fix test test-slow image lock help

run: setup client ## Start the service on http://127.0.0.1:8000; settings come from the environment or .env
	@exec $(BIN)/python -m entrypoint serve

setup: ## Create .venv with what the service needs
	@$(PYTHON) tools/setup_env.py

setup-dev: ## Create .venv with what tests and checks need too
	@$(PYTHON) tools/setup_env.py --dev

client: setup ## Build the web client
	@$(BIN)/python tools/build_client.py

demo: setup ## Train the bundled demo model again
	$(BIN)/python -m tools.demo.train

lint: setup-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: setup-dev ## Fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup-dev client lint ## Everything that takes less than a quarter of an hour
	$(BIN)/python tools/build_client.py check test
	$(BIN)/python -m pytest -m "not slow" --durations=20

test-slow: setup-dev client ## Image builds, containers, kill loops
	$(BIN)/python -m pytest -m slow --durations=20

image: ## Build the image for hosts with a GPU (TORCH=cpu: without)
	docker build -f docker/Dockerfile --build-arg TORCH=$(or $(TORCH),cuda) -t berth:$(or $(TORCH),cuda) .

lock: ## Write requirements/*.txt again; needs uv
	tools/lock_requirements.sh

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
