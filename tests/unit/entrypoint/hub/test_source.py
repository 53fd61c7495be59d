"""The plan of a model at the hub: few requests, all of one commit, each fault a clear error within bounds."""

from __future__ import annotations

import json
import logging
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session

from app.contract.plan import Refusal
from entrypoint.checkpoint.checkpoint import CheckpointError, read_checkpoint
from entrypoint.checkpoint.source import INDEX, SINGLE_FILE
from entrypoint.hub import remote_headers
from entrypoint.hub.remote_headers import HubRefused
from entrypoint.measure import fitting_inputs, read_model
from entrypoint.model_choice import resolve_model
from entrypoint.reasons.model import DemoInstead
from entrypoint.settings.settings import Settings, SettingsError
from entrypoint.state.state_dir import MemoryUsage
from tests.hub_server import COMMIT, HubServer, hub_serving
from tests.paths import FIXTURES
from tests.sparse import CHATGLM3_6B, GLM4_9B, sparse_checkpoint

REPO = "zai-org/chatglm3-6b"
FIXTURE = FIXTURES / "chatglm3-tiny"
TOKEN = "hf_sesame_open"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_serving(**{REPO.replace("/", "__"): FIXTURE}) as server:
        yield server


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> Settings:
    return Settings(model=REPO, hf_home=tmp_path / "home", hf_endpoint=hub.url, hf_token=TOKEN)


def refused(settings: Settings) -> Refusal:
    with pytest.raises(HubRefused) as caught:
        read_model(settings)
    refusal = caught.value.refusal
    assert TOKEN not in refusal.why.en + refusal.remedy.en + (refusal.env_line or "")
    assert refusal.why.zh and refusal.remedy.zh
    return refusal


def http_error(status: int) -> dict[str, Any]:
    """As a value of another reason."""
    return {"code": "http_error", "status": status}


def broken(settings: Settings) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_model(settings)
    return str(caught.value)


def with_header(header: Any, data: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * data


def test_the_headers_say_the_same_as_the_files_and_nothing_is_written(settings: Settings) -> None:
    choice, checkpoint = read_model(settings)
    assert checkpoint == read_checkpoint(FIXTURE)
    assert choice.name == REPO
    assert not settings.hf_home.exists()


def sparse_shards(folder: Path, count: int, padding: int = 0) -> Path:
    """ChatGLM3-6B's tensors at full size in so many files, as published; the weights are holes."""
    sparse_checkpoint(folder, CHATGLM3_6B, "chatglm")
    with (folder / SINGLE_FILE).open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    (folder / SINGLE_FILE).unlink()
    weight_map = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part: dict[str, Any] = {"__metadata__": {"padding": "x" * padding}}
        end = 0
        for tensor in list(header)[number::count]:
            begin, end = end, end + header[tensor]["data_offsets"][1] - header[tensor]["data_offsets"][0]
            part[tensor] = header[tensor] | {"data_offsets": [begin, end]}
            weight_map[tensor] = name
        (folder / name).write_bytes(with_header(part))
        os.truncate(folder / name, (folder / name).stat().st_size + end)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(("padding", "each"), [(0, 1), (200_000, 2)])
def test_seven_shards_take_a_handful_of_small_requests(
    hub: HubServer, settings: Settings, tmp_path: Path, padding: int, each: int
) -> None:
    """One request a shard, and a second where its header is longer than the first read."""
    hub.folders[REPO], hub.hash_nothing = sparse_shards(tmp_path / "seven", 7, padding), True
    assert read_model(settings)[1].parameters == 6_243_584_000
    shards = [request for request in hub.requests if ".safetensors" in request.path and ".json" not in request.path]
    assert len(shards) == 7 * each
    assert len(hub.requests) - len(shards) <= 4  # listing, config, index, tokenizer
    assert len(hub.requests) <= 2 * 7 + 4
    assert sum(hub.sent.values()) < 7 * 400_000
    assert {request.path.split("/")[4] for request in hub.requests[1:]} == {COMMIT}


def test_a_server_that_ignores_ranges_is_read_no_further_than_needed(hub: HubServer, settings: Settings) -> None:
    hub.faults.ignore_ranges = True
    assert read_model(settings)[1] == read_checkpoint(FIXTURE)


@pytest.mark.parametrize(
    ("status", "code", "reason", "values", "line"),
    [
        (401, None, "token_refused", {"repo": REPO}, "HF_TOKEN=hf_..."),
        (403, "GatedRepo", "model_gated", {"repo": REPO, "detail": http_error(403)}, "HF_TOKEN=hf_..."),
        (404, "RepoNotFound", "model_not_found", {"repo": REPO, "folders": [REPO]}, f"GLM_MODEL={REPO}"),
        (404, "RevisionNotFound", "revision_not_found", {"repo": REPO, "revision": "main"}, "GLM_REVISION=main"),
        (429, None, "rate_limited", {"retry_after_seconds": 3600}, None),
        (500, None, "hub_failed", {"detail": http_error(500)}, "HF_ENDPOINT=https://huggingface.co"),
    ],
)
def test_each_answer_is_named_with_the_line_to_change(
    hub: HubServer, settings: Settings, status: int, code: str | None, reason: str, values: dict[str, Any],
    line: str | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(remote_headers, "PAUSE_SECONDS", 0.01)
    hub.faults.answers, hub.faults.error_code = {"main": status}, code
    hub.faults.headers = {"Retry-After": "3600"} if status == 429 else {}
    refusal = refused(settings)
    assert refusal.why.code == reason
    assert refusal.why.values.items() >= (values | {"endpoint": hub.url}).items()
    assert refusal.env_line == line


def test_a_missing_model_names_every_place_that_was_looked_in(hub: HubServer, settings: Settings) -> None:
    why = refused(replace(settings, model="org/other", models_dir=Path("/nowhere"))).why
    assert (why.code, why.values["folders"]) == ("model_not_found", ["/nowhere/org/other", "org/other"])
    assert "and there is no folder /nowhere/org/other, and there is no folder org/other" in why.en
    with pytest.raises(SettingsError, match="no folder at x/y/z, and it is not a hub id"):
        resolve_model(replace(settings, model="x/y/z"))


def test_a_gated_model_whose_listing_is_public(hub: HubServer, settings: Settings) -> None:
    hub.faults.answers, hub.faults.error_code = {"config.json": 401}, "GatedRepo"
    assert refused(settings).why.code == "model_gated"


def test_without_a_token_a_401_says_so(hub: HubServer, settings: Settings) -> None:
    hub.faults.answers = {"main": 401}
    assert refused(replace(settings, hf_token=None)).why.code == "token_missing"


def test_an_error_that_passes_is_asked_again(hub: HubServer, settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.setattr(remote_headers, "PAUSE_SECONDS", 0.01)
    hub.faults.answers, hub.faults.answers_left = {"main": 503}, 2
    read_model(settings)
    assert len(hub.requests_for("main")) == 3


def test_nobody_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_headers, "PAUSE_SECONDS", 0.01)
    refusal = refused(replace(settings, hf_endpoint="http://127.0.0.1:9"))
    assert refusal.why.code == "hub_unreachable"
    assert refusal.why.values["endpoint"] == "http://127.0.0.1:9"
    assert refusal.why.values["detail"]["code"] == "no_connection"
    assert (refusal.why.values["repo"], refusal.why.values["folders"]) == (REPO, [REPO])
    assert refusal.remedy.code == "change_endpoint"
    assert refusal.env_line == "HF_ENDPOINT=https://huggingface.co"


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_headers, "PAUSE_SECONDS", 0.01)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    close_session()  # the next one reads the environment anew
    try:
        why = refused(settings).why
    finally:
        close_session()
    assert (why.code, why.values["detail"]) == ("hub_unreachable", {"code": "bad_proxy"})
    assert "secret" not in why.en + why.zh


def test_a_hub_that_takes_too_long(hub: HubServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_headers, "ANSWER_SECONDS", 0.5)
    hub.faults.seconds_before_listing = 2
    began = time.monotonic()
    assert refused(settings).why.code == "hub_unreachable"
    assert time.monotonic() - began < 2


def test_headers_that_drip_are_not_waited_for(hub: HubServer, settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.setattr(remote_headers, "HEADERS_SECONDS", 0.5)
    hub.faults.bytes_per_second = 20_000
    began = time.monotonic()
    assert refused(settings).why.code == "hub_unreachable"
    assert time.monotonic() - began < 5


def test_a_redirect_elsewhere_is_followed_without_the_token(
    hub: HubServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="entrypoint")
    with hub_serving(**{REPO.replace("/", "__"): FIXTURE}) as elsewhere:
        hub.faults.redirect_to = elsewhere.url
        assert read_model(settings)[1] == read_checkpoint(FIXTURE)
        assert elsewhere.requests and not any(request.token for request in elsewhere.requests)
    assert {request.token for request in hub.requests} == {f"Bearer {TOKEN}"}
    assert "SECRET" not in caplog.text


SHARD = "model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (struct.pack("<Q", 1 << 50) + b"{}", "not a whole safetensors file"),
        (struct.pack("<Q", 100_000_001) + b"{}", "not a whole safetensors file"),
        (with_header({"a": {"dtype": "F32", "shape": [9999999], "data_offsets": [0, 39999996]}}), "truncated"),
        (
            with_header(
                {
                    "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                    "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
                }
            ),
            "overlap",
        ),
        (with_header({"a": {"dtype": "Q3", "shape": [4], "data_offsets": [0, 16]}}), "Q3"),
        (with_header(b"[" * 60_000), "not JSON"),
        (with_header(b"\xff\xfe"), "not JSON"),
    ],
)
def test_a_header_that_lies(hub: HubServer, settings: Settings, body: bytes, words: str) -> None:
    hub.faults.bodies[SHARD] = body.ljust((FIXTURE / SHARD).stat().st_size, b" ")
    message = broken(settings)
    assert words in message
    assert SHARD in message and "\n" not in message


def test_a_header_of_a_hundred_megabytes_is_not_read(hub: HubServer, settings: Settings) -> None:
    hub.sizes[SHARD] = 200_000_000
    hub.faults.bodies[SHARD] = struct.pack("<Q", 100_000_000) + b" " * 400_000
    assert "its header would be 100,000,000 bytes" in broken(settings)
    assert hub.sent[SHARD] < 400_000


def test_a_bin_checkpoint_is_planned_from_its_index_and_config(
    hub: HubServer, settings: Settings, tmp_path: Path
) -> None:
    index = json.loads((FIXTURE / INDEX).read_text())
    total = sum(tensor.bytes for tensor in read_checkpoint(FIXTURE).tensors.values())
    files = {name: "pytorch_model-00001-of-00001.bin" for name in index["weight_map"]}
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes((FIXTURE / name).read_bytes())
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(b"never read")
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": files})
    (folder / "pytorch_model.bin.index.json").write_text(text)
    hub.folders[REPO] = folder
    checkpoint = read_model(settings)[1]
    assert checkpoint.parameters == read_checkpoint(FIXTURE).parameters
    assert 0 <= total - checkpoint.stored_bytes < 100  # the rotary table, which no loader reads
    assert checkpoint.stored_dtype == "F16"
    assert hub.requests_for("pytorch_model-00001-of-00001.bin") == []


def test_an_index_that_names_a_missing_shard(hub: HubServer, settings: Settings) -> None:
    index = json.loads((FIXTURE / "model.safetensors.index.json").read_text())
    index["weight_map"]["transformer.embedding.word_embeddings.weight"] = "model-00009-of-00003.safetensors"
    serve(hub, "model.safetensors.index.json", json.dumps(index).encode())
    assert "model-00009-of-00003.safetensors is missing at http://127.0.0.1" in broken(settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_layers": 10**12}, "num_layers"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"model_type": "bert"}, "bert"),
        ({"auto_map": {"AutoModel": "evil.py"}, "quantization_bit": 4}, "quantization_bit"),
    ],
)
def test_an_absurd_config(hub: HubServer, settings: Settings, change: dict[str, Any], words: str) -> None:
    config = json.loads((FIXTURE / "config.json").read_text())
    serve(hub, "config.json", json.dumps(config | change).encode())
    began = time.monotonic()
    assert words in broken(settings)
    assert time.monotonic() - began < 5


def test_a_listing_that_is_none(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    hub.listing = lambda repo: {"hello": "world"}  # type: ignore[method-assign]
    assert "is HF_ENDPOINT a model hub?" in broken(settings)


def test_names_that_leave_the_folder_are_not_listed(hub: HubServer, settings: Settings) -> None:
    listing = hub.listing(REPO)
    bad = [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in ("../x", "a/b", ".hidden", "x\n", 7)]
    hub.listing = lambda repo: listing | {"siblings": bad}  # type: ignore[method-assign]
    assert "config.json is missing" in broken(settings)


def test_offline_and_nothing_cached(hub: HubServer, settings: Settings) -> None:
    refusal = refused(replace(settings, hf_offline=True))
    assert refusal.why.code == "not_cached"
    assert refusal.why.values["repo"] == REPO
    assert refusal.why.values["missing"] == {"code": "revision_missing", "revision": "main"}
    assert (refusal.remedy.code, refusal.env_line) == ("allow_download", "HF_HUB_OFFLINE=0")
    assert hub.requests == []


def test_a_default_that_cannot_be_had_gives_way_to_the_demo(hub: HubServer, settings: Settings) -> None:
    hub.faults.answers = {"main": 500}
    choice, _ = read_model(replace(settings, model=None, default_model=REPO))
    assert choice.name == "demo"
    assert isinstance(choice.why, DemoInstead) and choice.why.model == "zai-org/chatglm3-6b"
    assert "HTTP 500" in choice.why.why.en and "HTTP 500" in choice.why.why.zh
    assert len(hub.requests) == 1


def test_a_default_is_waited_for_no_longer_than_its_three_seconds(hub: HubServer, settings: Settings) -> None:
    hub.faults.seconds_before_listing = 6
    began = time.monotonic()
    choice, _ = read_model(replace(settings, model=None, default_model=REPO))
    assert choice.name == "demo"
    assert 2.5 < time.monotonic() - began < 5.5


def test_a_default_that_does_not_fit_gives_way_to_the_demo(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    hub.folders[REPO], hub.hash_nothing = sparse_checkpoint(tmp_path / "huge", replace(GLM4_9B, layers=2000)), True
    model = fitting_inputs(replace(settings, model=None, default_model=REPO), MemoryUsage()).model
    assert model.name == "demo"
    assert (model.why.code, model.why.values["model"]) == ("demo_instead", REPO)
    assert model.why.values["why"]["code"] == "model_too_large"
    named = fitting_inputs(replace(settings, model=REPO), MemoryUsage()).model
    assert named.name == REPO


def test_outside_of_the_container_unset_means_the_demo_and_nobody_is_asked(hub: HubServer, settings: Settings) -> None:
    assert read_model(replace(settings, model=None))[0].name == "demo"
    assert hub.requests == []


def serve(hub: HubServer, name: str, body: bytes) -> None:
    """Serves other bytes in a file's place, and lists their size."""
    hub.faults.bodies[name] = body
    hub.sizes[name] = len(body)
