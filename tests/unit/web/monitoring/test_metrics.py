"""/metrics and the request log: each request once, with its end, its tokens and its times."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.contract.codec import write_atomically
from app.contract.status import Attempt, Proof, read_status
from app.contract.wire import Accepted, Delta, Finished, Reply, Stats, ToolCallDelta
from app.web.factory import create_app
from app.web.monitoring import request_metrics
from app.web.monitoring.request_log import RequestRecord
from app.web.monitoring.request_metrics import RequestMetrics
from tests.browser.support.states import PLAN
from tests.exposition import Exposition
from tests.processes.fake_engine import FakeEngine
from tests.processes.web import MODEL, write_status
from tests.unit.web.support import CHAT, Web


def test_each_request_is_counted_once_with_its_end(web: Web) -> None:
    assert web.chat("echo a b c") == 200
    assert web.chat("echo a b c", max_tokens=2, stream=True) == 200
    call = ToolCallDelta(0, "call_a", "f", "{}")
    assert web.play(Delta("", 9, "", (call,)), Finished("tool_calls", 7, 9)) == 200
    assert (web.chat("refuse"), web.chat("full"), web.chat("echo x", n=2), web.chat("die")) == (400, 429, 400, 503)
    assert web.chat("die", stream=True) == 200
    assert web.send("POST", CHAT, data="{", content_type="application/json").status_code == 400
    assert web.send("POST", "/invocations", json={"messages": []}).status_code == 400
    seen = web.scrape()
    assert seen.series("request_success_total") == {"stop": 1, "length": 1, "tool_calls": 1}
    assert seen.series("request_failure_total") == {
        "context_length_exceeded": 1, "queue_full": 1, "unsupported_parameter": 1, "engine_died": 2, "invalid_json": 1,
        "invalid_value": 1,
    }  # fmt: skip
    assert seen("generation_tokens_total") == 3 + 2 + 9 + 2 * 2  # the dead ones' tokens, too
    assert seen("prompt_tokens_total") == 5 * 7
    assert seen("e2e_request_latency_seconds_count") == seen("request_queue_time_seconds_count") == 3


def test_questions_that_need_no_slot_are_not_among_them(web: Web) -> None:
    web.send("POST", "/tokenize", json={"prompt": "hi"})
    web.send("GET", "/v1/models")
    web.send("GET", CHAT)
    seen = web.scrape()
    assert sum(seen.series("request_success_total").values()) == 0 and seen.series("request_failure_total") == {}


def test_what_the_cache_saved_and_how_long_it_waited(web: Web) -> None:
    web.play(Accepted(100), Delta("a", 1), Finished("stop", 100, 2, cached_tokens=64, queue_seconds=0.5))
    web.play(Accepted(10), Delta("a", 1), Finished("stop", 10, 1))
    seen = web.scrape()
    assert (seen("prefix_cache_queries_total"), seen("prefix_cache_hits_total")) == (110, 64)
    assert (seen("request_queue_time_seconds_sum"), seen("prompt_tokens_total")) == (0.5, 110)
    assert seen("generation_tokens_total") == 3  # the end mark came with the end


def test_first_token_and_gaps_are_taken_where_tokens_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    counted = RequestMetrics()
    record = RequestRecord(metrics=counted, started=clock[0])
    script: list[tuple[float, Reply]] = [
        (0.2, Accepted(7)), (0.3, Delta("a", 1)), (0.04, Delta("", 1)), (0.06, Delta("b", 2)),
        (0.0, Finished("stop", 7, 5)), (0.4, Finished("stop", 7, 5)),
    ]  # fmt: skip
    for seconds, reply in script[:-1]:
        clock[0] += seconds
        record.note(reply)
    clock[0] += 0.4
    record.end(200)
    record.end(200)
    seen = Exposition(counted.exposition().decode())
    assert seen("time_to_first_token_seconds_sum") == pytest.approx(0.5)
    assert seen("inter_token_latency_seconds_count") == 2
    assert seen("inter_token_latency_seconds_sum") == pytest.approx(0.1)
    assert seen("request_time_per_output_token_seconds_sum") == pytest.approx(0.1 / 4)
    assert seen("e2e_request_latency_seconds_sum") == pytest.approx(1.0)
    assert seen("generation_tokens_total") == 5 and seen("request_success_total", finished_reason="stop") == 1


def test_the_engines_numbers_are_asked_for_at_the_scrape(web: Web) -> None:
    web.engine.stats = Stats(
        running=3,
        waiting=2,
        slots=4,
        cache_tokens=1000,
        cache_limit_tokens=4000,
        decode_steps=10,
        decoded_tokens=25,
        prefilled_tokens=70,
        reused_tokens=30,
        held_bytes={"cpu": 5, "GPU-1": 7},
    )
    seen = web.scrape()
    assert seen.series("memory_used_bytes") == {"cpu": 5, "GPU-1": 7}
    assert (seen("engine_up"), seen("num_requests_running"), seen("num_requests_waiting")) == (1, 3, 2)
    assert (seen("num_slots"), seen("kv_cache_usage_perc"), seen("decode_batch_size")) == (4, 0.25, 2.5)
    assert (seen("engine_decode_steps_total"), seen("engine_decoded_tokens_total")) == (10, 25)
    assert (seen("engine_prefilled_tokens_total"), seen("engine_reused_tokens_total")) == (70, 30)
    web.engine.stats = Stats(
        running=0,
        waiting=0,
        slots=0,
        cache_tokens=0,
        cache_limit_tokens=0,
        decode_steps=0,
        decoded_tokens=0,
        prefilled_tokens=0,
        reused_tokens=0,
    )
    assert web.scrape()("kv_cache_usage_perc") == web.scrape()("decode_batch_size") == 0


def test_without_an_engine_its_numbers_are_absent_and_the_rest_is_there(web: Web) -> None:
    web.chat("echo a")
    before = web.scrape()
    web.engine.__exit__(None, None, None)
    after = web.scrape()
    assert after("engine_up") == 0
    gone = before.names() - after.names()
    assert {"berth_num_requests_running", "berth_kv_cache_usage_perc", "berth_engine_decode_steps_total"} <= gone
    assert not any(name.startswith(("berth_request", "berth_generation", "berth_phase")) for name in gone)
    assert after.series("request_success_total") == before.series("request_success_total")


def test_an_engine_that_says_nothing_is_not_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.engine_client.metrics.ENGINE_SECONDS", 0.1)
    silent = threading.Event()
    monkeypatch.setattr(FakeEngine, "_serve", lambda self, connection: silent.wait(30) and connection.close())
    try:
        assert web.scrape()("engine_up") == 0
    finally:
        silent.set()


def test_the_plan_the_proof_and_the_supervisors_count(web: Web) -> None:
    chosen = PLAN.chosen
    assert chosen is not None
    attempts = tuple(
        Attempt(precision="int8", device="cpu", max_num_seqs=1, started_at=1.0, ended_at=2.0, outcome=outcome)
        for outcome in ("died", "died", "ready")
    )
    proof = Proof(
        planned_bytes=chosen.need_bytes, measured_bytes=123, weights_bytes=100, load_seconds=1.0, proof_seconds=1.0
    )
    write_status(web.folder, "ready", plan=PLAN, proof=proof, deaths=2, attempts=attempts)
    seen = web.scrape()
    assert seen.series("phase")["ready"] == 1 and sum(seen.series("phase").values()) == 1
    assert seen("engine_deaths_total") == 2
    assert seen.series("engine_attempts") == {"running": 0, "ready": 1, "died": 2, "stopped": 0}
    assert seen("memory_planned_bytes", device=chosen.device) == chosen.need_bytes
    assert seen("memory_proved_bytes", device=chosen.device) == 123
    sizes = {"max_model_len": str(chosen.max_model_len), "max_num_seqs": str(chosen.max_num_seqs)}
    assert seen("rung_info", model_name=MODEL, precision=chosen.precision, device=chosen.device, **sizes) == 1
    write_status(web.folder, "recovering")
    assert web.scrape()("phase", phase="recovering") == 1 and web.scrape()("engine_up") == 0


def test_a_model_name_of_any_characters_is_written_so_that_it_can_be_read(web: Web) -> None:
    write_status(web.folder, "ready", plan=PLAN)
    status = web.folder / "status.json"
    write_atomically(status, dataclasses.replace(read_status(status), model_name='a"b\\c\nd'))
    assert "berth_rung_info" in web.scrape().names()


def test_series_are_bounded_whatever_codes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = RequestMetrics()
    for number in range(3 * request_metrics.MOST_CODES):
        counted.failed(f"code_{number}")
    failures = Exposition(counted.exposition().decode()).series("request_failure_total")
    assert len(failures) == request_metrics.MOST_CODES + 1 and failures["other"] == 2 * request_metrics.MOST_CODES


def test_many_at_once_are_all_counted(web: Web) -> None:
    app = web.client.application

    def ask() -> None:
        with app.test_client() as client:
            for _ in range(5):
                with client.post(CHAT, json={"messages": [{"role": "user", "content": "echo a b"}]}) as answer:
                    assert answer.status_code == 200

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = web.scrape()
    assert (seen("request_success_total", finished_reason="stop"), seen("generation_tokens_total")) == (40, 80)


def test_two_apps_share_no_numbers(web: Web) -> None:
    web.chat("echo a")
    with create_app(web.folder / "config.json").test_client() as other:
        assert Exposition(other.get("/metrics").text)("request_success_total", finished_reason="stop") == 0


FACTS = {
    "ts", "level", "event", "id", "method", "path", "status", "total_ms", "first_token_ms", "queue_ms",
    "prompt_tokens", "cached_tokens", "completion_tokens", "outcome", "stream", "model",
}  # fmt: skip


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level("INFO")

    def read() -> list[dict[str, Any]]:
        messages = [record.getMessage() for record in caplog.records if record.name == "berth.requests"]
        assert not any(character in line for line in messages for character in "\n\r\x1b\u2028")
        return [json.loads(line) for line in messages]

    return read


def test_a_line_for_each_request_with_all_its_facts(web: Web, lines: Callable[[], list[dict[str, Any]]]) -> None:
    web.play(Accepted(100), Delta("a", 1), Finished("stop", 100, 1, 64, 0.25), stream=True)
    web.chat("refuse")
    web.send("POST", "/tokenize", json={"prompt": "hi"})
    web.send("GET", "/health/live")
    answer, refused, tokens = lines()
    assert set(answer) == set(refused) == set(tokens) == FACTS
    assert (answer["outcome"], answer["stream"], answer["model"], answer["level"]) == ("stop", True, MODEL, "info")
    assert (answer["prompt_tokens"], answer["cached_tokens"], answer["completion_tokens"]) == (100, 64, 1)
    assert answer["queue_ms"] == 250 and answer["total_ms"] >= answer["first_token_ms"] >= 0
    assert (refused["status"], refused["outcome"]) == (400, "context_length_exceeded")
    assert (tokens["path"], tokens["status"], tokens["outcome"], tokens["stream"]) == ("/tokenize", 200, None, None)


@pytest.mark.parametrize("given", ["abc-1.2_X", "a" * 64])
def test_a_clients_id_is_kept_where_it_is_safe(web: Web, lines: Callable[[], list[dict[str, Any]]], given: str) -> None:
    body = {"messages": [{"role": "user", "content": "echo a"}]}
    answer = web.send("POST", CHAT, json=body, headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given and answer.get_json()["id"] == f"chatcmpl-{given}"
    assert [line["id"] for line in lines()] == [given] and web.engine.last().request.request_id == given


@pytest.mark.parametrize("given", ["", "a" * 65, 'x", "status": 1', "a b", "ä", "x\x1b[2J", "a\u2028"])
def test_any_other_id_is_replaced(web: Web, lines: Callable[[], list[dict[str, Any]]], given: str) -> None:
    headers = {"X-Request-ID": given.encode("utf-8").decode("latin-1")}
    answer = web.send("POST", "/tokenize", json={"prompt": "x"}, headers=headers)
    assert answer.headers["x-request-id"].startswith("req_")
    assert [line["id"] for line in lines()] == [answer.headers["x-request-id"]]


def test_no_path_breaks_a_line_and_no_secret_is_in_one(web: Web, lines: Callable[[], list[dict[str, Any]]]) -> None:
    headers = {"Authorization": "Bearer sesame", "Cookie": "session=sesame"}
    for path in ("/v1/%0a%0d%1b[2J", "/v1/models/" + "x" * 5000, "/v1/%e2%80%a8?key=sesame", "/v1/models?key=sesame"):
        web.send("GET", path, headers=headers)
    written = lines()
    assert len(written) == 4 and all(len(line["path"]) <= 200 for line in written)
    assert written[0]["path"] == "/v1/\n\r\x1b[2J" and "sesame" not in json.dumps(written)
