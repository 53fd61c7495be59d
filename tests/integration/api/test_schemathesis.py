"""schemathesis holds the running service, with the demo model, against its own /openapi.json."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema

from app.web.factory import create_app
from tests.processes.service import Service, running
from tests.processes.web import temporary_folder, write_config, write_status

CONTEXT = 64
"""Bounds the answers, which most of the generated bodies leave to the model."""
CHECKS: dict[str, Any] = {
    # What holds between two fields (a tool that is named and offered) no schema can say: valid bodies are refused, too.
    "positive_data_acceptance": {"enabled": False},
    # Flask allows the methods of every rule that fits a path: /api/conversations/export fits the one of an id, too.
    "allow_header_conformance": {"enabled": False},
    # Among them 413: a million characters too many.
    "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 411, 413, 415, 429]},
}
LARGE = ["/invocations", "/tokenize", "/api/conversations/import"]
"""Bodies of hundreds of cases each, much the same as others'; they are for the long run."""
SHARE = 2
"""The short run sends one of so many bodies."""


def document() -> dict[str, Any]:
    """The description; the tests' names come from it before there is a service."""
    with temporary_folder() as name:
        write_status(Path(name), "ready")
        with create_app(write_config(Path(name), Path(name) / "engine.sock")).test_client() as client:
            return dict(client.get("/openapi.json").get_json())


def schema(examples: int) -> BaseSchema:
    """Boundary cases of every field, the same ones each time, and so many random ones of every operation."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 20,
            "generation": {"deterministic": True, "max-examples": examples, "database": "none"},
            "checks": CHECKS,
            "request-timeout": 60,
        }
    )
    return schemathesis.openapi.from_dict(DOCUMENT, config=config)


DOCUMENT = document()
FEW, MANY = schema(5).exclude(path=LARGE), schema(60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("api"), GLM_MODEL="demo", GLM_MAX_MODEL_LEN=str(CONTEXT)) as service:
        service.wait_for("ready")
        yield service
        assert "Traceback" not in service.log() and service.status()["deaths"] == 0


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@FEW.parametrize()
def test_the_service_is_as_it_is_described(
    service: Service, session: requests.Session, case: schemathesis.Case
) -> None:
    # Chosen by what it holds: a counter would choose another one when a failure is tried again.
    if not isinstance(case.body, dict) or zlib.crc32(repr(case.body).encode("utf-8", "replace")) % SHARE == 0:
        case.call_and_validate(base_url=f"http://127.0.0.1:{service.port}", session=session)


@pytest.mark.slow
@pytest.mark.timeout(600)
@MANY.parametrize()
def test_the_service_is_as_it_is_described_at_length(
    service: Service, session: requests.Session, case: schemathesis.Case
) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{service.port}", session=session)
