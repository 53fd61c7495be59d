"""Makes the Flask app: config, services, error handlers, blueprints, headers."""

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
from app.web.conversations.event_stream import EventStreamLimit
from app.web.conversations.turns import Turns
from app.web.engine_client.client import EngineClient
from app.web.engine_client.metrics import ServiceCollector
from app.web.monitoring import request_log
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.services import Services
from app.web.store.lazy_store import LazyStore

MAX_BODY_BYTES = 4 * 1024 * 1024
_RESERVED_THREADS = 8
"""Threads that never wait for the engine, so that health, status and the page always answer."""
_SCRAPES = 4
"""Scrapes that may ask the engine at once. Further ones lack the engine's metrics."""


def create_app(config_path: Path, *, threads: int = 64) -> Flask:
    """Makes the app from config.json.

    config.json has what is fixed when the web service starts. What changes later, such as the plan, is in status.json.
    `threads` is the number of gunicorn's threads.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config.from_file(str(config_path.absolute()), load=json.load)
    app.url_map.strict_slashes = False
    if isinstance(app.json, DefaultJSONProvider):
        app.json.sort_keys = False
    config = _read_config(app)
    app.extensions["berth"] = shared = _services(config, threads)
    if config.TRUSTED_PROXIES:
        hops = config.TRUSTED_PROXIES
        app.wsgi_app = ProxyFix(app.wsgi_app, hops, hops, hops, x_prefix=hops)  # type: ignore[method-assign]
    for extension in (request_log, error_handlers, security_headers, shared.access):
        extension.init_app(app)
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
    metrics = RequestMetrics()
    # A client of its own: scrapes are answered even if all threads that may wait for the engine do.
    metrics.registry.register(ServiceCollector(status, EngineClient(config.ENGINE_SOCKET, _SCRAPES)))
    waiting = max(1, threads - _RESERVED_THREADS)
    engine = EngineClient(config.ENGINE_SOCKET, waiting)
    lazy_store = LazyStore(Path(config.DATABASE) if config.DATABASE else None)
    # Turns are written in threads of their own, as many as the engine has slots and places in its queue.
    most_turns = max(config.QUEUE_LIMIT + MOST_SLOTS, threads - THREADS_BESIDE_STREAMS)
    turn_engine = EngineClient(config.ENGINE_SOCKET, most_turns)
    return Services(
        config=config,
        access=make_access(config),
        status=status,
        engine=engine,
        metrics=metrics,
        lazy_store=lazy_store,
        turns=Turns(lazy_store, status, turn_engine, metrics, most_turns),
        # At most half of the waiting threads, so that chats over /v1 find some.
        event_streams=EventStreamLimit(engine.waiting, max(1, waiting // 2)),
    )


def _read_config(app: Flask) -> AppConfig:
    names = [field.name for field in dataclasses.fields(AppConfig)]
    return from_json(AppConfig, {name: app.config[name] for name in names if name in app.config}, "config.json")
