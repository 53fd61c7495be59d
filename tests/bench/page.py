"""How fast the page is, in Debian's chromium against the scripted service on loopback.

    .venv/bin/python -m tests.bench.page [--rounds 3]

Prints medians of: navigation to an input that takes text; opening a conversation of 500 messages (tables, formulas and
code in every answer) until its end is in view; the frames while it is scrolled from end to beginning; the layout shift
(web.dev's score without what input causes) while an answer streams; and what the first load weighs, compressed.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

from app.contract.conversations import StoredMessage
from tests.browser.conftest import FLAGS, chromium
from tests.browser.screenshots import ANSWER
from tests.browser.support import states
from tests.browser.support.chatting import answers, ask, box
from tests.browser.support.stub import DIST, Stub, end, text

MESSAGES = 500
PATIENCE_MS = 60_000
SCROLL = """async () => {
    const place = document.querySelector('.scroll'), times = [];
    let last = performance.now();
    while (place.scrollTop > 0 && times.length < 2000) {
        place.scrollTop -= 400;
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - last);
        last = performance.now();
    }
    times.sort((a, b) => a - b);
    return [times[times.length >> 1], times[Math.floor(times.length * 0.95)], times.at(-1)];
}"""
WATCH_SHIFT = """() => {
    window.shift = 0;
    new PerformanceObserver((list) => {
        for (const each of list.getEntries()) if (!each.hadRecentInput) window.shift += each.value;
    }).observe({ type: 'layout-shift', buffered: false });
}"""


def long_conversation() -> list[StoredMessage]:
    """Questions and rich answers in turn."""
    messages: list[StoredMessage] = []
    for number in range(MESSAGES):
        role = "assistant" if number % 2 else "user"
        content = f"Answer {number}\n\n{ANSWER['en']}" if number % 2 else f"Question {number}?"
        parent = messages[-1].id if messages else None
        messages.append(StoredMessage(f"00000000-0000-4000-8000-{number:012}", parent, role, content, 1.0))
    return messages


@contextmanager
def new_page(stub: Stub) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(stub.url)
        expect(box(page)).to_be_visible(timeout=PATIENCE_MS)
        yield page
        browser.close()


def one_round() -> dict[str, float]:
    """One browser, one service, every figure once."""
    stub = Stub(status=states.ready())
    held = stub.store.add("long", *long_conversation())
    try:
        with new_page(stub) as page:
            begin = time.monotonic()
            page.reload(wait_until="commit")
            box(page).fill("x")
            interactive = time.monotonic() - begin
            shift = streamed_shift(stub, page)
            begin = time.monotonic()
            page.goto(f"{stub.url}#c={held.head.id}")
            last = answers(page).get_by_text(f"Answer {MESSAGES - 1}")
            expect(last).to_be_in_viewport(timeout=PATIENCE_MS)
            opened = time.monotonic() - begin
            median, late, worst = page.evaluate(SCROLL)
    finally:
        stub.close()
    return {
        "time to interactive, s": interactive,
        f"{MESSAGES} messages opened, s": opened,
        "scrolling, median frame, ms": median,
        "scrolling, 95th percentile, ms": late,
        "scrolling, worst frame, ms": worst,
        "layout shift of a streamed answer": shift,
    }


def streamed_shift(stub: Stub, page: Page) -> float:
    """The score while an answer of some 2000 characters grows."""
    page.evaluate(WATCH_SHIFT)
    answer = ANSWER["en"] * 3
    pieces = [step for start in range(0, len(answer), 12) for step in (text(answer[start : start + 12]), 0.02)]
    stub.say(*pieces, end())
    ask(page, "stream")
    expect(page.get_by_role("button", name="Copy the answer")).to_be_visible(timeout=PATIENCE_MS)
    return float(page.evaluate("() => window.shift"))


def first_load_kb() -> float:
    """What index.html names, as it is sent: units of 1000 bytes."""
    index = (DIST / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'(?:src|href)="\./(assets/[^"]+\.(?:js|css))"', index)
    return sum((DIST / f"{name}.gz").stat().st_size for name in names) / 1000


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = [one_round() for _ in range(parser.parse_args().rounds)]
    for name in rounds[0]:
        print(f"{name:36} {statistics.median(each[name] for each in rounds):10.4g}")
    print(f"{'first load, compressed, kB':36} {first_load_kb():10.4g}")


if __name__ == "__main__":
    main()
