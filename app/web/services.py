"""What the blueprints share: the config, the status and the way to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from app.contract.config import AppConfig
from app.web.access.guard import Access, OpenAccess
from app.web.conversations.event_stream import Readers
from app.web.engine_client.client import EngineClient
from app.web.monitoring.request_metrics import RequestMetrics
from app.web.monitoring.status_file import StatusFile
from app.web.store.lazy_store import Storage

if TYPE_CHECKING:
    from app.web.conversations.turns import Turns  # which needs what needs this

_KEY = "berth"


@dataclass(frozen=True)
class Services:
    """Made once by the factory."""

    config: AppConfig
    access: Access | OpenAccess
    status: StatusFile
    engine: EngineClient
    metrics: RequestMetrics
    storage: Storage
    turns: Turns
    readers: Readers

    @property
    def model_name(self) -> str:
        """The name the API serves now; the demo model may have taken the place of a default that can't be had."""
        return self.status.read().model_name


def services() -> Services:
    """The services of the app at hand."""
    found = current_app.extensions[_KEY]
    assert isinstance(found, Services)
    return found
