"""The plan of several cards in a real browser: what was chosen, then every other rung with what it lacked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from app.contract.plan import Origin, Placement, Plan, Rung, Text
from tests.browser.conftest import PHONE, WIDE, Open
from tests.browser.support import states
from tests.browser.support.states import GIB, PLAN, rung
from tests.browser.support.stub import Stub

FIRST, SECOND = "GPU-aaaa", "GPU-bbbb"
NOTE = Text(
    "int8 saves only 1.41 GiB: bitsandbytes does not quantise experts, 54.36 GiB of weights remain",
    "int8 只省下 1.41 GiB：bitsandbytes 不量化专家层，权重仍占 54.36 GiB",
)


def too_large(precision: str, device: str, weights: float, free: float, note: Text | None = None) -> Rung:
    found = rung(precision, device, weights, free, "too_large", Text("", ""))  # type: ignore[arg-type]
    need, short = found.need_bytes / GIB, found.short_bytes / GIB
    en = f"needs {need:.2f} GiB, {free:.2f} GiB are free: {short:.2f} GiB short"
    zh = f"需要 {need:.2f} GiB，可用 {free:.2f} GiB：差 {short:.2f} GiB"
    return replace(found, reason=Text(f"{en}; {note.en}", f"{zh}；{note.zh}") if note else Text(en, zh))


def two_cards() -> Plan:
    """A mixture of experts on two cards and the CPU."""
    why = Text(
        "no GPU holds it, but it fits on 2 GPUs together and the CPU (28 + 15 + 4 layers): "
        "needs 57.50 GiB of 107.00 GiB free",
        "仅用显卡放不下，分布在 2 张显卡和 CPU 上（28 + 15 + 4 层）放得下：需要/可用 57.50 GiB / 107.00 GiB",
    )
    device = f"{FIRST}+{SECOND}+cpu"
    placements = (
        Placement("cpu", 0, 4, int(12.1 * GIB), 60 * GIB),
        Placement(FIRST, 4, 28, int(22.1 * GIB), int(23.5 * GIB)),
        Placement(SECOND, 32, 15, int(20.3 * GIB), int(23.5 * GIB)),
    )
    chosen = replace(rung("int4", device, 53.67, 107, "chosen", why), placements=placements)
    cards = tuple(
        replace(PLAN.devices[0], index=index, uuid=uuid, name="NVIDIA RTX 4090", total_bytes=24 * GIB)
        for index, uuid in enumerate((FIRST, SECOND))
    )
    rungs = (
        too_large("bf16", FIRST, 55.77, 23.5),
        too_large("bf16", f"{FIRST}+{SECOND}", 55.77, 47),
        too_large("int8", FIRST, 54.36, 23.5, NOTE),
        chosen,
        too_large("bf16", "cpu", 55.77, 40),
    )
    origins = (
        *PLAN.origins[:1],
        Origin("device", device, "measured", Text("107 GiB were free there", "那里可用 107 GiB")),
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
    rows = page.get_by_role("table").get_by_role("row").filter(has=page.get_by_role("rowheader"))
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text(gpus)
    parts = rows.first.get_by_role("listitem")
    assert [" ".join(text.split()) for text in parts.all_inner_texts()] == (
        ["CPU 第 0–3 层 占 12.1 GiB / 60.0 GiB", "显卡 0 第 4–31 层 占 22.1 GiB / 23.5 GiB"]
        if chinese
        else ["CPU layers 0–3 12.1 GiB of 60.0 GiB", "GPU 0 layers 4–31 22.1 GiB of 23.5 GiB"]
    ) + (["显卡 1 第 32–46 层 占 20.3 GiB / 23.5 GiB"] if chinese else ["GPU 1 layers 32–46 20.3 GiB of 23.5 GiB"])
    expect(rows.nth(3)).to_contain_text(NOTE.zh if chinese else NOTE.en)
    expect(rows.nth(3).get_by_text(re.compile("需要 56|needs 56"))).to_have_count(0)
    page.get_by_text("所有设置及其来源" if chinese else "All settings and where they come from").click()
    expect(page.get_by_text(gpus, exact=True).last).to_be_visible()
    tab.shot(f"plan-{language}-{theme}-{size[0]}")
    assert page.evaluate("document.querySelector('main').scrollWidth") <= size[0]
