"""The page against the service itself: `serve` with the demo model, from loading to a chat in both languages."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.processes.service import running, wait_until

READY_MS = 90_000


def test_loading_to_chat_in_both_languages(tmp_path: Path, open_page: Open) -> None:
    with running(tmp_path) as service:
        wait_until(lambda: service.phase() == "loading", 20, "it loads")
        engine = service.child("app.engine")
        os.kill(engine, signal.SIGSTOP)  # the demo model is read faster than a test can see
        url = f"http://127.0.0.1:{service.port}/"
        english = open_page(url, "en-US")
        chinese = open_page(url, "zh-CN", "dark")
        expect(english.page.get_by_role("heading", level=1)).to_have_text(re.compile("Starting|Measuring|Loading"))
        expect(english.page.locator(".meter .track")).to_be_visible(timeout=30_000)
        expect(english.page.get_by_role("rowheader").first).to_contain_text("CPU")
        english.shot("real-loading-en-US")
        expect(chinese.page.get_by_role("table")).to_be_visible()
        chinese.shot("real-loading-zh-CN")
        os.kill(engine, signal.SIGCONT)

        # What it answers is the demo model's own affair; that it is an answer in the question's language is asked here.
        for tab, question, words in (
            (english, "What is Berth?", re.compile(r"[a-z]{3}")),
            (chinese, "Berth 是什么？", re.compile(r"[\u4e00-\u9fff]{3}")),
        ):
            box = tab.page.get_by_role("textbox")
            expect(box).to_be_visible(timeout=READY_MS)
            box.fill(question)
            box.press("Enter")
            expect(tab.page.locator(".prose")).to_have_text(words, timeout=20_000)
            state = tab.page.get_by_role("region", name=re.compile("Service status|服务状态"))
            expect(state).to_contain_text(re.compile("tokens/s|token/秒"), timeout=20_000)
        english.shot("real-chat-en-US")
        chinese.shot("real-chat-zh-CN")
