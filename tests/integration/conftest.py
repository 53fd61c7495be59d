from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversations import Chats
from tests.nvml_stub import Stub, build_library
from tests.processes.conversing import chats_of
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import WebProcess, start_web, temporary_folder


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    if reason := build_library(folder):
        pytest.skip(reason)
    return folder


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> Stub:
    """A driver to be told what to answer, by the real pynvml of a process of its own."""
    return Stub(nvml_library, tmp_path / "nvml.json")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with temporary_folder() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[WebProcess]:
    process = start_web(folder, folder / "engine.sock", threads=64)
    try:
        process.wait_alive(30)
        yield process
    finally:
        process.stop()


@pytest.fixture
def engine(folder: Path, web: WebProcess) -> Iterator[FakeEngine]:
    with FakeEngine(folder / "engine.sock") as fake:
        yield fake


@pytest.fixture
def chats(web: WebProcess) -> Chats:
    return chats_of(web)
