"""OpenAI's official client for the module's service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.processes.service import Service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none", max_retries=0) as client:
        yield client
