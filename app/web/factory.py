"""The Flask app, put together: config, services, error shape, blueprints, headers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from app.contract.codec import from_json
from app.contract.config import AppConfig
from app.contract.limits import MOST_SLOTS, THREADS_BESIDE_STREAMS
from app.web import error_handlers
from app.web.access import security_headers
from app.web.access.guard import make_access
from app.web.blueprints import (
    conversations,
    health,
    invocations,
    metrics,
    openai,
    openapi,
    page,
    session,
    status,
    tokenize,
    turns,
)
from app.web.conversations.event_stream import Readers
from app.web.conversations.turns import Turns
from app.web.engine_client.client import EngineClient
from app.web.engine_client.metrics import ServiceCollector
from app.web.monitoring import request_log
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.services import Services
from app.web.store.lazy_store import Storage

MAX_BODY_BYTES = 4 * 1024 * 1024
_RESERVED_THREADS = 8
"""Never waiting for the engine, so that health, status and the page answer whatever the streams do."""
_SCRAPES = 4
"""That ask the engine at once; more go without its numbers."""


def create_app(config_path: Path, *, threads: int = 64) -> Flask:
    """Builds the app from config.json.

    Only what is fixed at the web's start is read from there (the plan comes later); what changes is in status.json.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config.from_file(str(config_path.absolute()), load=json.load)
    app.url_map.strict_slashes = False
    if isinstance(app.json, DefaultJSONProvider):
        app.json.sort_keys = False
    config = _checked(app)
    app.extensions["berth"] = shared = _services(config, threads)
    if config.TRUSTED_PROXIES:
        hops = config.TRUSTED_PROXIES
        app.wsgi_app = ProxyFix(app.wsgi_app, hops, hops, hops, x_prefix=hops)  # type: ignore[method-assign]
    for part in (request_log, error_handlers, security_headers, shared.access):
        part.init_app(app)
    for blueprint in (
        session.bp,
        health.bp,
        status.bp,
        openai.bp,
        tokenize.bp,
        invocations.bp,
        metrics.bp,
        openapi.bp,
        conversations.bp,
        turns.bp,
        page.bp,
    ):
        app.register_blueprint(blueprint)
    return app


def _services(config: AppConfig, threads: int) -> Services:
    status = StatusFile(Path(config.STATUS_FILE), config.MODEL_NAME)
    counted = RequestMetrics()
    # Its own calls: a scrape is answered also where all threads that may wait for the engine do.
    counted.registry.register(ServiceCollector(status, EngineClient(config.ENGINE_SOCKET, _SCRAPES)))
    engine = EngineClient(config.ENGINE_SOCKET, max(1, threads - _RESERVED_THREADS))
    storage = Storage(Path(config.DATABASE) if config.DATABASE else None)
    # Turns are written in threads of their own, as many as the engine has slots and places in its queue.
    writers = max(config.QUEUE_LIMIT + MOST_SLOTS, threads - THREADS_BESIDE_STREAMS)
    running = Turns(storage, status, EngineClient(config.ENGINE_SOCKET, writers), counted, writers)
    readers = Readers(engine.waiting, max(1, (threads - _RESERVED_THREADS) // 2))
    return Services(config, make_access(config), status, engine, counted, storage, running, readers)


def _checked(app: Flask) -> AppConfig:
    names = [field.name for field in dataclasses.fields(AppConfig)]
    return from_json(AppConfig, {name: app.config[name] for name in names if name in app.config}, "config.json")
