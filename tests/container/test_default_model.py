"""A first start where nothing is set and no hub can be reached: the demo answers soon, and is said to stand in."""

from __future__ import annotations

import time

from tests.container.lab import Containers

DEFAULT = "zai-org/chatglm3-6b"


def test_without_a_hub_the_demo_is_served_and_said_to_stand_in(containers: Containers) -> None:
    began = time.monotonic()
    service = containers.start(env={"HF_ENDPOINT": "http://192.0.2.1"})  # RFC 5737: an address that nobody has
    status = service.wait_for("loading", "proving", "ready", seconds=60)
    decided = status["since"] - status["started_at"]
    assert status["model_name"] == "demo"
    why = status["model_why"]
    assert (why["code"], why["values"]["model"]) == ("demo_instead", DEFAULT)
    assert "http://192.0.2.1" in why["values"]["why"]["en"]
    assert decided < 10, f"{decided} s, and {time.monotonic() - began} s in all"
    service.wait_for("ready")
    assert service.chat("What is Berth?", max_tokens=4).status == 200
    assert status["model_why"]["en"] in service.logs()


def test_a_model_that_is_named_is_never_replaced(containers: Containers) -> None:
    service = containers.start(env={"HF_ENDPOINT": "http://192.0.2.1", "GLM_MODEL": DEFAULT, "GLM_ON_REFUSAL": "exit"})
    assert service.wait_for_exit(90) == 3
    assert "http://192.0.2.1 does not answer" in service.logs() and "HF_ENDPOINT=" in service.logs()


def test_offline_asks_nobody(containers: Containers) -> None:
    service = containers.start(env={"HF_HUB_OFFLINE": "1"})
    status = service.wait_for("loading", "proving", "ready", seconds=60)
    assert status["model_name"] == "demo"
    assert "HF_HUB_OFFLINE=1" in status["model_why"]["en"]
