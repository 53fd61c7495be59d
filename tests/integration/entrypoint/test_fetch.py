"""The download's own process, against a hub with faults: it resumes, it checks, and says what it can't do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.contract import exits
from app.contract.codec import from_json, to_json
from app.contract.plan import Text
from app.contract.status import FetchEvent, FetchFailed, Fetching
from entrypoint.fetch.job import Job, WantedFile
from entrypoint.hub.cache import HubCache
from entrypoint.hub.listing import parse_listing
from tests.hub_server import COMMIT, HubServer, hub_serving
from tests.paths import FIXTURES
from tests.processes.service import TOP, clean_environment, wait_until

REPO = "zai-org/chatglm3-6b"
FIXTURE = FIXTURES / "chatglm3-tiny"
SHARD = "model-00001-of-00003.safetensors"
TOKEN = "hf_sesame_open"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_serving(**{REPO.replace("/", "__"): FIXTURE}) as server:
        yield server


@dataclass
class Fetch:
    """A running download and what it has said."""

    process: subprocess.Popen[bytes]
    lifeline: int
    events: list[FetchEvent] = field(default_factory=list)
    thread: threading.Thread | None = None

    def end(self, seconds: float = 60) -> int:
        code = self.process.wait(seconds)
        assert self.thread
        self.thread.join(seconds)
        return code

    def failed(self) -> FetchFailed:
        assert self.end() == exits.FETCH_FAILED
        last = self.events[-1]
        assert isinstance(last, FetchFailed)
        return last

    def notes(self) -> list[Text]:
        return [event.note for event in self.events if isinstance(event, Fetching) and event.note]

    def hub_errors(self) -> list[dict[str, Any] | None]:
        """What the hub itself answered at each stall."""
        return [note.values["hub_error"] for note in self.notes() if note.code == "download_stalled"]

    def done(self) -> int:
        return max((event.done_bytes for event in self.events if isinstance(event, Fetching)), default=0)


@dataclass
class Workspace:
    """A cache and the job to fill it."""

    folder: Path
    hub: HubServer
    running: list[Fetch] = field(default_factory=list)

    @property
    def cache(self) -> HubCache:
        return HubCache.of(self.folder / "home", REPO)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def job(self, **changes: Any) -> Job:
        listing = parse_listing(REPO, "the listing", json.dumps(self.hub.listing(REPO)).encode())
        files = tuple(
            WantedFile(f.name, f.size, f.etag) for f in listing.files if f.name.startswith(("model", "config", "token"))
        )
        job = Job(
            endpoint=self.hub.url,
            repo=REPO,
            revision="main",
            commit=COMMIT,
            hf_home=str(self.folder / "home"),
            with_token=True,
            files=files,
        )
        return Job(**{**vars(job), **changes})

    def start(self, job: Job | None = None, prepare: Callable[[], None] | None = None, **options: float) -> Fetch:
        file = self.folder / "job.json"
        file.write_text(json.dumps(to_json(job or self.job())), encoding="utf-8")
        events, theirs = os.pipe()
        lifeline_end, lifeline = os.pipe()
        settings = {"stall-seconds": 0.5, "give-up-seconds": 20.0} | options
        extra = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "entrypoint.fetch", "--job", str(file), "--events-fd", str(theirs),
                 "--lifeline-fd", str(lifeline_end), *extra],
                env={**clean_environment(HF_TOKEN=TOKEN), "PYTHONPATH": str(TOP)},
                cwd=self.folder, pass_fds=[theirs, lifeline_end], stderr=log, preexec_fn=prepare,
            )  # fmt: skip
        os.close(theirs)
        os.close(lifeline_end)
        fetch = Fetch(process, lifeline)

        def listen() -> None:
            with os.fdopen(events, "rb") as lines:
                for line in lines:
                    fetch.events.append(from_json(FetchEvent, json.loads(line), "event"))  # type: ignore[arg-type]

        fetch.thread = threading.Thread(target=listen)
        fetch.thread.start()
        self.running.append(fetch)
        return fetch

    def whole(self) -> None:
        """Every file is in the snapshot with the bytes of the original, nothing partial is left."""
        snapshot = self.cache.snapshot(COMMIT)
        for path in snapshot.iterdir():
            assert path.read_bytes() == (FIXTURE / path.name).read_bytes()
        assert self.cache.missing("main") is None
        assert list((self.cache.folder / "blobs").glob("*incomplete")) == []


@pytest.fixture
def workspace(tmp_path: Path, hub: HubServer) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path, hub)
    yield workspace
    for fetch in workspace.running:
        if fetch.process.poll() is None:
            fetch.process.kill()
        fetch.end()
        os.close(fetch.lifeline)


def test_everything_arrives_in_the_layout_of_huggingface_hub(workspace: Workspace) -> None:
    fetch = workspace.start()
    assert fetch.end() == 0
    workspace.whole()
    assert fetch.done() == workspace.job().total_bytes
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    home = workspace.folder / "home" / "hub"
    assert try_to_load_from_cache(REPO, SHARD, cache_dir=home) == str(workspace.cache.snapshot(COMMIT) / SHARD)
    (found,) = scan_cache_dir(home).repos
    assert found.repo_id == REPO and found.refs.keys() == {"main"}
    assert scan_cache_dir(home).warnings == []


def test_a_second_one_downloads_nothing(workspace: Workspace) -> None:
    assert workspace.start().end() == 0
    workspace.hub.requests.clear()
    assert workspace.start().end() == 0
    assert workspace.hub.requests == []


def test_after_kill_9_it_goes_on_where_it_stopped(workspace: Workspace) -> None:
    workspace.hub.faults.bytes_per_second = 100_000
    first = workspace.start()
    wait_until(lambda: first.done() > 100_000, 60, "some bytes")
    first.process.kill()
    assert first.end() == -signal.SIGKILL
    assert workspace.cache.missing("main")
    (partial,) = (workspace.cache.folder / "blobs").glob("*incomplete")
    had = partial.stat().st_size
    workspace.hub.faults.bytes_per_second = None
    workspace.hub.requests.clear()
    assert workspace.start().end() == 0
    workspace.whole()
    assert workspace.hub.requests[0].range == f"bytes={had}-"


def test_a_cut_connection_is_taken_up_again(workspace: Workspace) -> None:
    workspace.hub.faults.cut_after, workspace.hub.faults.cuts_left = {SHARD: 60_000}, 2
    fetch = workspace.start()
    assert fetch.end() == 0
    workspace.whole()
    starts = [
        int((request.range or "").removeprefix("bytes=").rstrip("-")) for request in workspace.hub.requests_for(SHARD)
    ]
    assert starts[0] == 0 and starts == sorted(set(starts)) and len(starts) == 3


def test_a_server_without_ranges_does_not_spoil_the_file(workspace: Workspace) -> None:
    workspace.hub.faults.cut_after, workspace.hub.faults.cuts_left = {SHARD: 60_000}, 1
    workspace.hub.faults.ignore_ranges = True
    assert workspace.start().end() == 0
    workspace.whole()


def test_a_stall_is_named_with_numbers_and_retried(workspace: Workspace) -> None:
    workspace.hub.faults.stall_after, workspace.hub.faults.stalls_left = {SHARD: 60_000}, 1
    fetch = workspace.start()
    assert fetch.end() == 0
    workspace.whole()
    (sentence,) = {note.en for note in fetch.notes()}
    note = fetch.notes()[0]
    assert note.code == "download_stalled"
    assert note.values["total_bytes"] == workspace.job().total_bytes > note.values["done_bytes"] >= 60_000
    assert note.values["seconds"] >= 0.5
    assert (note.values["hub_error"], note.values["retry_seconds"]) == (None, 1)
    assert sentence in workspace.log


def test_a_hub_that_is_gone_is_retried_then_given_up(workspace: Workspace) -> None:
    workspace.hub.faults.stall_after = {SHARD: 0}
    workspace.hub.faults.answers = {COMMIT: 503}
    fetch = workspace.start(**{"give-up-seconds": 3.0})
    refusal = fetch.failed().refusal
    assert (refusal.why.code, refusal.why.values["detail"]["code"]) == ("hub_unreachable", "no_data")
    assert refusal.env_line == "HF_ENDPOINT=https://huggingface.co"
    assert {"code": "http_error", "status": 503} in fetch.hub_errors()
    assert workspace.cache.missing("main")


@pytest.mark.parametrize(
    ("status", "code", "reason", "line"),
    [
        (401, None, "token_refused", "HF_TOKEN=hf_..."),
        (403, "GatedRepo", "model_gated", "HF_TOKEN=hf_..."),
        (404, "RepoNotFound", "model_not_found", "GLM_MODEL=zai-org/chatglm3-6b"),
    ],
)
def test_what_will_not_pass_fails_at_once(workspace: Workspace, status: int, code: str, reason: str, line: str) -> None:
    workspace.hub.faults.answers, workspace.hub.faults.error_code = {SHARD: status}, code
    refusal = workspace.start().failed().refusal
    assert (refusal.why.code, refusal.why.values["repo"], refusal.env_line) == (reason, REPO, line)
    assert len(workspace.hub.requests_for(SHARD)) == 1
    assert TOKEN not in workspace.log and TOKEN not in json.dumps(to_json(refusal))


@pytest.mark.parametrize("status", [429, 500])
def test_what_may_pass_is_tried_again(workspace: Workspace, status: int) -> None:
    workspace.hub.faults.answers, workspace.hub.faults.answers_left = {SHARD: status}, 1
    workspace.hub.faults.headers = {"Retry-After": "1"}
    fetch = workspace.start()
    assert fetch.end() == 0
    assert {"code": "http_error", "status": status} in fetch.hub_errors()
    workspace.whole()


def test_a_wait_that_is_asked_for_and_too_long_is_refused(workspace: Workspace) -> None:
    workspace.hub.faults.answers, workspace.hub.faults.headers = {SHARD: 429}, {"Retry-After": "3600"}
    why = workspace.start().failed().refusal.why
    assert (why.code, why.values["retry_after_seconds"]) == ("rate_limited", 3600)


def test_wrong_bytes_are_deleted_named_and_fetched_once_more(workspace: Workspace) -> None:
    right = (FIXTURE / SHARD).read_bytes()
    workspace.hub.faults.bodies[SHARD] = right[:-1] + bytes([right[-1] ^ 1])
    fetch = workspace.start()
    refusal = fetch.failed().refusal
    assert (refusal.why.code, refusal.why.values["file"]) == ("wrong_hash", SHARD)
    assert len(workspace.hub.requests_for(SHARD)) == 2
    assert not (workspace.cache.snapshot(COMMIT) / SHARD).exists()
    assert list((workspace.cache.folder / "blobs").glob("*incomplete")) == []
    assert "hash_mismatch" in {note.code for note in fetch.notes()}
    del workspace.hub.faults.bodies[SHARD]
    assert workspace.start().end() == 0
    workspace.whole()


@pytest.mark.parametrize("damage", ["blob", "partial", "too_long"])
def test_what_is_there_already_is_checked(workspace: Workspace, damage: str) -> None:
    file = next(file for file in workspace.job().files if file.name == SHARD)
    at = workspace.cache.blob(file.etag) if damage == "blob" else workspace.cache.partial(file.etag)
    at.parent.mkdir(parents=True)
    at.write_bytes(b"\0" * (file.size + 1 if damage == "too_long" else file.size // 2))
    fetch = workspace.start()
    assert fetch.end() == 0
    workspace.whole()
    assert fetch.done() <= workspace.job().total_bytes + 1


def test_a_file_that_is_shorter_than_listed_never_counts_as_whole(workspace: Workspace) -> None:
    workspace.hub.faults.bodies[SHARD] = (FIXTURE / SHARD).read_bytes()[:1000]
    fetch = workspace.start(**{"give-up-seconds": 2.0})
    fetch.failed()
    assert not (workspace.cache.snapshot(COMMIT) / SHARD).exists()


@pytest.mark.slow
def test_a_server_that_sends_more_than_it_listed_is_cut_off(workspace: Workspace) -> None:
    workspace.hub.faults.bodies[SHARD] = (FIXTURE / SHARD).read_bytes() + b"x" * 50_000_000
    assert workspace.start().failed().refusal.why.code == "wrong_hash"
    assert workspace.hub.sent[SHARD] < 25_000_000
    assert list((workspace.cache.folder / "blobs").glob("*incomplete")) == []


def test_too_little_room_is_said_before_a_byte_comes(workspace: Workspace) -> None:
    job = workspace.job()
    huge = WantedFile("model.safetensors", 1 << 60, "0" * 64)
    refusal = workspace.start(workspace.job(files=(*job.files, huge))).failed().refusal
    assert (refusal.why.code, refusal.why.values["folder"]) == ("no_room", str(workspace.folder / "home"))
    assert refusal.why.values["need_bytes"] > 1 << 60 > refusal.why.values["free_bytes"]
    assert refusal.env_line == "GLM_MODEL=demo"
    assert workspace.hub.requests == []


def test_a_disk_that_fills_up_in_mid_download(workspace: Workspace) -> None:
    """By a limit to a file's size, the nearest to a full disk that needs no disk of its own."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    refusal = workspace.start(prepare=limit).failed().refusal
    assert (refusal.why.code, refusal.why.values["error"]) == ("disk_full", "File too large")
    assert refusal.remedy.code == "make_room_and_restart"
    total, done = refusal.why.values["total_bytes"], refusal.why.values["done_bytes"]
    assert refusal.remedy.values["need_bytes"] == total - done
    assert not (workspace.cache.snapshot(COMMIT) / SHARD).exists()
    assert workspace.start().end() == 0
    workspace.whole()


def test_a_cache_that_cannot_be_written(workspace: Workspace) -> None:
    (workspace.folder / "home").write_text("no folder", encoding="utf-8")
    refusal = workspace.start().failed().refusal
    assert (refusal.why.code, refusal.why.values["uid"]) == ("not_writable", os.geteuid())
    assert (refusal.remedy.code, refusal.remedy.values["setting"]) == ("make_writable", "HF_HOME")


def test_sigterm_ends_it_and_what_came_is_kept(workspace: Workspace) -> None:
    workspace.hub.faults.stall_after = {SHARD: 60_000}
    fetch = workspace.start(**{"stall-seconds": 60.0})
    wait_until(lambda: fetch.done() > 60_000, 60, "some bytes")
    fetch.process.terminate()
    assert fetch.end(5) == 128 + signal.SIGTERM
    assert "Traceback" not in workspace.log
    (partial,) = (workspace.cache.folder / "blobs").glob("*incomplete")
    assert partial.stat().st_size >= 60_000


def test_without_its_supervisor_it_ends(workspace: Workspace) -> None:
    workspace.hub.faults.stall_after = {SHARD: 60_000}
    fetch = workspace.start(**{"stall-seconds": 60.0})
    wait_until(lambda: fetch.done() > 0, 60, "some bytes")
    os.close(fetch.lifeline)
    assert fetch.end(5) == exits.LIFELINE_CUT
    fetch.lifeline = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.slow
def test_two_at_once_bring_one_copy(workspace: Workspace) -> None:
    workspace.hub.faults.bytes_per_second = 200_000
    both = [workspace.start(), workspace.start()]
    assert [fetch.end() for fetch in both] == [0, 0]
    workspace.whole()
    assert sum(workspace.hub.sent.values()) < 1.5 * workspace.job().total_bytes


def test_a_redirect_elsewhere_carries_no_token_and_is_not_logged(workspace: Workspace) -> None:
    with hub_serving(**{REPO.replace("/", "__"): FIXTURE}) as elsewhere:
        workspace.hub.faults.redirect_to = elsewhere.url
        assert workspace.start().end() == 0
        assert elsewhere.requests and not any(request.token for request in elsewhere.requests)
    workspace.whole()
    assert {request.token for request in workspace.hub.requests} == {f"Bearer {TOKEN}"}
    assert "SECRET" not in workspace.log and TOKEN not in workspace.log


def test_no_code_comes_with_a_model(tmp_path: Path) -> None:
    from entrypoint.hub.client import Hub
    from entrypoint.hub.listing import Deadline
    from entrypoint.hub.source import HubSource

    folder = Path(shutil.copytree(FIXTURE, tmp_path / "with-code", copy_function=shutil.copyfile))
    for name in ("modeling_chatglm.py", "pytorch_model.bin", "README.md", "model.gguf"):
        (folder / name).write_bytes(b"x")
    with hub_serving(**{REPO.replace("/", "__"): folder}) as server:
        hub, deadline = Hub(server.url, None), Deadline(30)
        listing = hub.listing(REPO, "main", deadline)
        cache = HubCache.of(tmp_path, REPO)
        names = {file.name for file in HubSource(hub, listing, cache, deadline, lambda *_: None).needed()}
    assert names == {path.name for path in FIXTURE.iterdir() if not path.name.startswith("expected")}
