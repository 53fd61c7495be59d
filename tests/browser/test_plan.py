"""The plan of several cards in a real browser: what was chosen, then every other rung with what it lacked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from app.contract.plan import Origin, Placement, Plan, Precision, Rung, SpeedEstimate, Text
from entrypoint.messages.sentence import text
from entrypoint.reasons.plan import ExpertsStay, FitsWithCpu, ShortOfMemory
from entrypoint.reasons.setting import FreeOnDevices
from tests.browser.conftest import PHONE, WIDE, Open
from tests.browser.support import states
from tests.browser.support.states import GIB, PLAN, rung
from tests.browser.support.stub import Stub

FIRST, SECOND = "GPU-aaaa", "GPU-bbbb"
NOTE = text(ExpertsStay("int8", int(1.41 * GIB), int(54.36 * GIB)))


def too_large(precision: Precision, devices: tuple[str, ...], weights: float, free: float, *notes: Text) -> Rung:
    large = rung(precision, devices, weights, free, "too_large", states.TOO_LARGE)
    reason = ShortOfMemory(devices, large.need_bytes, large.free_bytes, large.short_bytes)
    return replace(large, reason=text(reason), notes=notes)


def two_cards() -> Plan:
    """A mixture of experts on two cards and the CPU."""
    devices = (FIRST, SECOND, "cpu")
    why = FitsWithCpu(devices=devices, layers=(28, 15, 4), need_bytes=int(57.5 * GIB), free_bytes=107 * GIB)
    placements = (
        Placement("cpu", 0, 4, int(12.1 * GIB), 60 * GIB),
        Placement(FIRST, 4, 28, int(22.1 * GIB), int(23.5 * GIB)),
        Placement(SECOND, 32, 15, int(20.3 * GIB), int(23.5 * GIB)),
    )
    speed = SpeedEstimate(
        low_tokens_per_second=8.14,
        high_tokens_per_second=12.4,
        read_bytes=3 * GIB,
        memory_bytes_per_second=45_000_000_000,
    )
    chosen = replace(
        rung("int4", devices, 53.67, 107, "chosen", text(why)),
        placements=placements,
        speed=speed,
    )
    cards = tuple(
        replace(PLAN.devices[0], index=index, uuid=uuid, name="NVIDIA RTX 4090", total_bytes=24 * GIB)
        for index, uuid in enumerate((FIRST, SECOND))
    )
    rungs = (
        too_large("bf16", (FIRST,), 55.77, 23.5),
        too_large("bf16", (FIRST, SECOND), 55.77, 47),
        too_large("int8", (FIRST,), 54.36, 23.5, NOTE),
        chosen,
        replace(too_large("bf16", ("cpu",), 55.77, 40), reached_tokens_per_second=9.53),
    )
    origins = (
        *PLAN.origins[:1],
        Origin("device", chosen.device, "measured", text(FreeOnDevices(107 * GIB, 3))),
    )
    return replace(PLAN, rungs=rungs, chosen=chosen, devices=cards, origins=origins)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", PHONE)])
def test_layers_on_several_devices(
    stub: Stub, open_page: Open, language: str, theme: str, size: tuple[int, int]
) -> None:
    chinese = language == "zh-CN"
    stub.status = replace(states.loading(12.0, 55.0), plan=two_cards())
    tab = open_page(stub.url, language, theme, size)
    page = tab.page
    gpus = "显卡 0+1+CPU" if chinese else "GPU 0+1+CPU"
    expect(page.get_by_text("int4（显卡 0+1+CPU）" if chinese else "int4 on GPU 0+1+CPU")).to_be_visible()
    expect(page.get_by_text("8.1–12")).to_be_visible()
    expect(page.get_by_text("占用 317 MiB" if chinese else "takes 317 MiB")).to_be_visible()
    rows = page.get_by_role("table").get_by_role("row").filter(has=page.get_by_role("rowheader"))
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text(gpus)
    parts = rows.first.get_by_role("listitem")
    assert [" ".join(text.split()) for text in parts.all_inner_texts()] == (
        ["CPU 第 0–3 层 占 12.1 GiB / 60.0 GiB", "显卡 0 第 4–31 层 占 22.1 GiB / 23.5 GiB"]
        if chinese
        else ["CPU layers 0–3 12.1 GiB of 60.0 GiB", "GPU 0 layers 4–31 22.1 GiB of 23.5 GiB"]
    ) + (["显卡 1 第 32–46 层 占 20.3 GiB / 23.5 GiB"] if chinese else ["GPU 1 layers 32–46 20.3 GiB of 23.5 GiB"])
    expect(rows.last).to_contain_text("9.5 个 token" if chinese else "9.5 tokens/s")
    expect(rows.nth(3)).to_contain_text(NOTE.zh if chinese else NOTE.en)
    expect(rows.nth(3).get_by_text(re.compile("需要 56|needs 56"))).to_have_count(0)
    page.get_by_text("所有设置及其来源" if chinese else "All settings and where they come from").click()
    expect(page.get_by_text(gpus, exact=True).last).to_be_visible()
    tab.shot(f"plan-{language}-{theme}-{size[0]}")
    assert page.evaluate("document.querySelector('main').scrollWidth") <= size[0]
