"""The objects that all blueprints use: config, status, engine client, store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from app.contract.config import AppConfig
from app.web.access.guard import KeyAccess, OpenAccess
from app.web.conversations.event_stream import EventStreamLimit
from app.web.conversations.turns import Turns
from app.web.engine_client.client import EngineClient
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.store.lazy_store import LazyStore

if TYPE_CHECKING:
    from app.web.store.store import Store  # which imports SQLAlchemy: a tenth of a second and 13 MB

_KEY = "berth"


@dataclass(frozen=True, kw_only=True)
class Services:
    """The factory makes one for each app."""

    config: AppConfig
    access: KeyAccess | OpenAccess
    status: StatusFile
    engine: EngineClient
    metrics: RequestMetrics
    lazy_store: LazyStore
    turns: Turns
    event_streams: EventStreamLimit

    @property
    def model_name(self) -> str:
        """The name of the served model. It changes if the demo replaces a default model that can't be downloaded."""
        return self.status.read().model_name

    @property
    def store(self) -> Store:
        """The opened store. Raises StoreError if it can't be used now."""
        return self.lazy_store.open()


def services() -> Services:
    """The services of the current app."""
    shared = current_app.extensions[_KEY]
    assert isinstance(shared, Services)
    return shared
