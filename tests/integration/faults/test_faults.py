"""What can go wrong beneath running streams: each end is told at once, by name; the service comes back by itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.processes.service import Service, alive, running, wait_until
from tests.processes.streams import CHAT, Events, RawStream, Witness, busy, chat_body, settled, stats, stream
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

SHAPE = CheckpointShape(
    hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=8192, vocab=600, context=8192, dtype="float32"
)
"""Its MLP is wide: a prompt's chunk takes far more memory at once than anything beside it."""
SLOTS = 3
SILENCE_SECONDS = 15
"""In place of the minute and more that an engine is given: no service is that impatient, but a test is."""
IMPATIENT = (
    "-c",
    f"import sys; from entrypoint import __main__; from entrypoint.supervisor import engine_monitor; "
    f"engine_monitor.LEAST_SECONDS = {SILENCE_SECONDS}; "
    "sys.exit(__main__.main(['serve']))",
)
SPARE_BYTES = 24 << 20
DAMAGED = "W"
START_SECONDS = 180
"""An engine imports torch for three seconds on two idle cores, and for a minute on busy ones."""
_log = logging.getLogger("measured")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a model that only stops when it is told to."""
    model = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint(model, SHAPE)
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(fields | {"eos_token_id": None}))
    return {"GLM_MODEL": str(model), "GLM_PRECISION": "fp32", "GLM_MAX_NUM_SEQS": str(SLOTS), "GLM_DRAIN_SECONDS": "90"}


@pytest.fixture(scope="module")
def shared(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service"), command=IMPATIENT, **settings) as service:
        yield service
        assert "Traceback" not in service.log()


@pytest.fixture
def service(shared: Service) -> Service:
    shared.wait_for("ready", START_SECONDS)
    return shared


def ends_of(streams: list[RawStream], since: float) -> list[Events]:
    """Each to its end; when the last one came is measured."""
    ends = [raw.all() for raw in streams]
    _log.info(f"{len(ends)} streams ended {time.monotonic() - since:.2f} s after the fault")
    return ends


def back(service: Service, deaths: int) -> None:
    """Waits until it answers again."""
    start = time.monotonic()
    wait_until(lambda: service.status()["deaths"] == deaths + 1, 60, "the death is counted")
    service.wait_for("ready", START_SECONDS)
    _log.info(f"ready again {time.monotonic() - start:.1f} s after that")
    assert stream(service, "hello", max_tokens=3).end == "length"


def test_an_engine_killed_under_several_streams(service: Service) -> None:
    deaths = service.status()["deaths"]
    with busy(service, SLOTS) as streams, RawStream(service, chat_body("waits")) as waiting:
        settled(service, SLOTS, waiting=1)
        killed = time.monotonic()
        os.kill(service.child("app.engine"), signal.SIGKILL)
        for events in ends_of([*streams, waiting], killed):
            assert (events.status, events.end) == (200, "engine_died")
        assert time.monotonic() - killed < 10
    assert service.request("GET", "/health/live")[0] == 200
    back(service, deaths)
    assert service.status()["last_death"]["cause"] == "killed_by_signal"


@pytest.mark.slow  # for the silence that has to be waited for
def test_an_engine_that_hangs_is_ended_and_named(service: Service) -> None:
    deaths = service.status()["deaths"]
    with busy(service, 2) as streams:
        stopped = time.monotonic()
        os.kill(service.child("app.engine"), signal.SIGSTOP)
        for events in ends_of(streams, stopped):
            assert events.end == "engine_died"
    back(service, deaths)
    death = service.status()["last_death"]
    assert (death["cause"], death["phase"]) == ("hung", "ready")
    assert death["why"]["code"] == "engine_hung"
    assert death["why"]["values"]["seconds"] >= SILENCE_SECONDS
    assert death["remedy"]["code"] == "restarts_by_itself"


def test_memory_that_runs_out_in_service(service: Service) -> None:
    """The kernel gives the engine no more than a connection takes; a prompt's chunk needs more."""
    deaths, engine = service.status()["deaths"], service.child("app.engine")
    with busy(service, 1) as streams:
        held = int(Path(f"/proc/{engine}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(engine, resource.RLIMIT_AS, (held + SPARE_BYTES, resource.RLIM_INFINITY))
        failed = time.monotonic()
        code, answer = service.request("POST", CHAT, chat_body("a long story " * 600, stream=False))
        assert (code, answer["error"]["code"]) == (503, "engine_out_of_memory")
        assert ends_of(streams, failed)[0].end == "engine_out_of_memory"
    back(service, deaths)
    death = service.status()["last_death"]
    assert (death["cause"], death["phase"]) == ("out_of_memory", "ready")
    assert death["remedy"]["code"] == "give_more_memory"


def test_a_web_worker_killed_under_streams(service: Service) -> None:
    """Its streams are cut, since nobody is left to tell them; the engine goes on and gives their slots to others."""
    engine, worker = service.child("app.engine"), service.web_worker()
    with busy(service, SLOTS):
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not alive(worker), 30, "the worker is gone")
        _log.info(f"slots free {settled(service):.2f} s later")
        wait_until(lambda: service.phase() == "ready", 60, "the page is back")
        assert stream(service, "hello", max_tokens=3).end == "length"
    assert service.child("app.engine") == engine
    assert stats(service).running == 0


def test_sigterm_lets_running_answers_end_and_tells_newcomers(service: Service) -> None:
    """The last that the shared service does; the engine is held meanwhile, so that nothing ends too soon."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    with contextlib.closing(connection), busy(service, 2, max_tokens=300) as streams:
        engine = service.child("app.engine")
        os.kill(engine, signal.SIGSTOP)
        service.process.terminate()
        wait_until(lambda: service.phase() == "stopping", 60, "it says that it stops")
        connection.request("POST", CHAT, json.dumps(chat_body("late")), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert int(answer.headers["Retry-After"]) > 0
        assert json.loads(answer.read())["error"]["code"] in ("stopping", "model_not_ready")
        assert service.request("GET", "/health/ready")[0] == 503
        os.kill(engine, signal.SIGCONT)
        assert [raw.all().end for raw in streams] == ["length", "length"]
    assert service.process.wait(60) == 0


def test_output_that_is_no_number_fails_that_request_alone(settings: dict[str, str], tmp_path: Path) -> None:
    """A damaged row of the embedding, of a letter that neither the proof nor the self-test sees."""
    model = tmp_path / "damaged"
    shutil.copytree(settings["GLM_MODEL"], model)
    (letter,) = Tokenizer.from_file(str(model / "tokenizer.json")).encode(DAMAGED).ids
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][letter] = float("nan")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with running(tmp_path, **settings | {"GLM_MODEL": str(model)}) as service:
        service.wait_for("ready", START_SECONDS)
        with Witness(service, ("a bystander",)):
            for _ in range(3):
                code, answer = service.request("POST", CHAT, chat_body(f"say {DAMAGED}", stream=False, max_tokens=8))
                assert (code, answer["error"]["code"]) == (500, "nonfinite_logits")
                assert stream(service, f"say {DAMAGED}", max_tokens=8).end == "nonfinite_logits"
        assert service.status()["deaths"] == 0
        settled(service)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of four megabytes, where that can be made."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def cramped(settings: dict[str, str], disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """State directory and run directory are on the small disk, and a request may take two seconds."""
    where = {"GLM_STATE_DIR": str(disk / "state"), "TMPDIR": str(disk), "GLM_REQUEST_SECONDS": "2"}
    with running(tmp_path_factory.mktemp("service"), **settings, **where) as service:
        service.wait_for("ready", START_SECONDS)
        yield service
        assert "Traceback" not in service.log()


def test_a_time_limit_ends_an_answer_and_what_was_said_stands(cramped: Service) -> None:
    events = stream(cramped, "a story without end")
    assert (events.status, events.end) == (200, "time_limit_exceeded")
    assert len(events.text) > 10
    code, answer = cramped.request("POST", CHAT, chat_body("another", stream=False))
    assert (code, answer["error"]["code"]) == (408, "time_limit_exceeded")
    assert "GLM_REQUEST_SECONDS" in answer["error"]["message"], "it names the setting"
    settled(cramped)


def fill(folder: Path) -> Path:
    """Takes what is left."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk_is_said_once_and_ends_nothing(cramped: Service, disk: Path) -> None:
    """The engine dies and comes back, the page and the chat go on; the status is told again once there is room."""
    filler = fill(disk)
    engine = cramped.child("app.engine")
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: not alive(engine), 30, "the engine is gone")
    wait_until(lambda: chats(cramped), START_SECONDS, "it chats again, on a disk that is full")
    assert cramped.log().count("status.json can't be written: No space left on device") == 1
    assert cramped.log().count("config.json can't be written: No space left on device") == 1
    filler.unlink()
    os.kill(cramped.child("app.engine"), signal.SIGKILL)
    wait_until(lambda: cramped.status()["deaths"] == 2, 60, "the status is written again")
    cramped.wait_for("ready", START_SECONDS)
    assert "status.json can be written again" in cramped.log()


def chats(service: Service) -> bool:
    code, _ = service.request("POST", CHAT, chat_body("hello", max_tokens=3, stream=False))
    return code == 200
