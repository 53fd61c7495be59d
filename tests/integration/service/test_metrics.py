"""/metrics of the whole service: after known requests, many at once, one that left, a dead engine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.exposition import Exposition
from tests.processes.service import Service, running, wait_until

ENDLESS = {
    "messages": [{"role": "user", "content": "1 2 3"}],
    "stream": True,
    "temperature": 0,
    "repetition_penalty": 10,
}
"""Never the same token again: that goes on for hundreds of tokens, and the same ones each time."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("metrics"), GLM_MODEL="demo", GLM_MAX_NUM_SEQS="2") as service:
        service.wait_for("ready")
        yield service


def scrape(service: Service) -> Exposition:
    code, text = service.request("GET", "/metrics")
    assert code == 200
    return Exposition(text)


def stream(service: Service, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log().splitlines() if line.startswith('{"ts"')]


def test_known_requests_one_by_one_and_at_once(service: Service) -> None:
    before = scrape(service)
    assert before("engine_up") == before.series("phase")["ready"] == 1
    assert (before("num_slots"), before("num_requests_running"), before("engine_deaths_total")) == (2, 0, 0)
    usages = [service.chat("hello", max_tokens=5)[1]["usage"] for _ in range(2)]
    assert service.chat("hello", max_tokens=0)[0] == 400

    def ask() -> None:
        usages.append(service.chat("hello", max_tokens=5)[1]["usage"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Counted when the last byte is sent, which the client may have before.
    wait_until(lambda: sum(scrape(service).series("request_success_total").values()) == 8, 30, "eight are counted")
    seen = scrape(service)
    assert len(usages) == 8
    assert seen.series("request_failure_total") == {"invalid_value": 1}
    assert seen("prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in usages)
    assert seen("generation_tokens_total") == sum(usage["completion_tokens"] for usage in usages)
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert seen(f"{name}_seconds_count") == 8
    assert seen("request_queue_time_seconds_sum") > 0  # two slots for six
    assert seen("engine_prefilled_tokens_total") + seen("engine_reused_tokens_total") == seen("prompt_tokens_total")
    assert seen("prefix_cache_hits_total") == seen("engine_reused_tokens_total")
    assert 1 <= seen("decode_batch_size") <= 2


def test_memory_planned_and_used_and_the_rung(service: Service) -> None:
    seen, status = scrape(service), service.status()
    assert seen("memory_planned_bytes", device="cpu") == status["plan"]["chosen"]["need_bytes"]
    assert seen("memory_proved_bytes", device="cpu") == status["proof"]["measured_bytes"]
    assert 0 < seen("memory_used_bytes", device="cpu") < seen("memory_planned_bytes", device="cpu")
    assert "berth_rung_info" in seen.names()


def test_one_that_runs_is_seen_and_one_that_left_is_counted(service: Service) -> None:
    connection, answer = stream(service, ENDLESS)
    answer.read(200)
    running_now = scrape(service)
    assert running_now("num_requests_running") == 1 and running_now("kv_cache_usage_perc") > 0
    answer.close()
    connection.close()
    wait_until(lambda: scrape(service).series("request_failure_total").get("client_left") == 1, 30, "counted as left")
    wait_until(lambda: scrape(service)("num_requests_running") == 0, 30, "its slot is free")


def test_counters_survive_an_engine_and_the_scrape_needs_none(service: Service) -> None:
    connection, answer = stream(service, ENDLESS)
    answer.read(200)
    before = scrape(service)
    os.kill(service.child("app.engine"), signal.SIGKILL)
    assert b"engine_died" in answer.read()
    connection.close()
    wait_until(lambda: scrape(service)("engine_deaths_total") == 1, 30, "the death is counted")
    wait_until(lambda: scrape(service).series("request_failure_total").get("engine_died") == 1, 30, "the failure, too")
    service.wait_for("ready")
    after = scrape(service)
    assert after("engine_up") == 1 and after("engine_decode_steps_total") == 0
    assert after("generation_tokens_total") >= before("generation_tokens_total") > 0
    assert after.series("request_success_total") == before.series("request_success_total")
    assert after.series("engine_attempts")["died"] == 1


def test_the_log_has_one_line_of_json_for_each_of_them(service: Service) -> None:
    wait_until(lambda: len(lines(service)) == 11, 30, "eleven lines")
    found = lines(service)
    assert len({line["id"] for line in found}) == 11
    outcomes = [line["outcome"] for line in found]
    assert outcomes.count("client_left") == outcomes.count("engine_died") == outcomes.count("invalid_value") == 1
    assert "hello" not in service.log()
