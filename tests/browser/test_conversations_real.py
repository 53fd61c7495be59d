"""Conversations in the browser against the service itself: stored, followed, stopped, broken off and continued."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Tab
from tests.browser.support.chatting import answers, ask, at_rest, box, questions
from tests.processes.service import Service, running, wait_until

LONG_MS = 60_000
WORDS = re.compile(r"[a-z]{3}")
STOP = "Stop the answer"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("conversations")) as found:
        yield found


@pytest.fixture
def tab(service: Service, open_page: Open) -> Tab:
    """A new chat, where the model is ready."""
    service.wait_for("ready")
    found = open_page(f"http://127.0.0.1:{service.port}/")
    expect(box(found.page)).to_be_visible(timeout=LONG_MS)
    return found


@dataclass
class Engine:
    """The engine's process, which runs for a few milliseconds in each tenth of a second: time to look."""

    pid: int
    frozen: threading.Event = field(default_factory=threading.Event)
    """While set, it does not run at all."""
    over: threading.Event = field(default_factory=threading.Event)

    def hinder(self) -> None:
        """Lets it run and stops it by turns."""
        with suppress(ProcessLookupError):
            while not self.over.is_set():
                os.kill(self.pid, signal.SIGSTOP)
                self.over.wait(0.1)
                if not self.frozen.is_set():
                    os.kill(self.pid, signal.SIGCONT)
                    self.over.wait(0.01)
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def slowly(service: Service) -> Iterator[Engine]:
    engine = Engine(service.child("app.engine"))
    thread = threading.Thread(target=engine.hinder)
    thread.start()
    try:
        yield engine
    finally:
        engine.over.set()
        thread.join()


def begun(page: Page) -> None:
    """Waits for the first words of the last answer."""
    expect(answers(page).last).to_have_text(WORDS, timeout=LONG_MS)


def exchange(page: Page, question: str) -> str:
    """Asks, and gives the answer."""
    count = answers(page).count()
    ask(page, question)
    expect(answers(page)).to_have_count(count + 1, timeout=LONG_MS)
    expect(page.get_by_role("button", name=re.compile("Copy the answer|复制回答"))).to_have_count(
        count + 1, timeout=LONG_MS
    )
    return answers(page).last.inner_text()


def test_versions_edits_and_reloads_of_a_real_conversation(tab: Tab) -> None:
    page = tab.page
    first = exchange(page, "What is Berth?")
    exchange(page, "What happens when memory runs out?")
    page.get_by_role("button", name="Answer again").last.click()
    expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible(timeout=LONG_MS)
    at_rest(page)
    box(page).press("ArrowUp")
    page.get_by_label("Edit your message").fill("Why was this precision chosen?")
    page.get_by_label("Edit your message").press("Enter")
    expect(questions(page).last).to_contain_text("Why was this precision chosen?")
    begun(page)
    at_rest(page)
    edited = answers(page).last.inner_text()
    page.reload()
    expect(answers(page)).to_have_text([first, edited])
    page.get_by_role("button", name="Previous version").last.click()
    expect(questions(page).last).to_contain_text("What happens when memory runs out?")
    page.reload()
    expect(questions(page).last).to_contain_text("What happens when memory runs out?")
    tab.shot("real-conversation-en-US")


def test_stop_reload_and_a_second_tab_in_mid_stream(service: Service, tab: Tab) -> None:
    page = tab.page
    with slowly(service) as engine:
        ask(page, "What is Berth?")
        begun(page)
        engine.frozen.set()
        page.reload()
        begun(page)
        other = page.context.new_page()
        other.goto(page.url)
        begun(other)
        expect(other.get_by_role("button", name=STOP)).to_be_visible()
        other.get_by_role("button", name=STOP).click()
        expect(other.get_by_text("You stopped this answer.")).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_text("You stopped this answer.")).to_be_visible(timeout=LONG_MS)
    half = answers(page).inner_text()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("You stopped this answer.")).to_have_count(0)
    at_rest(page)
    whole = answers(page).inner_text()
    assert whole.startswith(half)
    assert len(whole) > len(half)
    expect(answers(other)).to_have_text(whole)


def test_an_engine_killed_in_mid_answer_and_the_answer_continued(service: Service, tab: Tab) -> None:
    page = tab.page
    tab.watch.failures_expected = True
    with slowly(service) as engine:
        ask(page, "What is Berth?")
        begun(page)
        engine.frozen.set()
        os.kill(engine.pid, signal.SIGKILL)
    go_on = page.get_by_role("button", name="Continue")
    expect(go_on).to_be_visible(timeout=LONG_MS)
    half = answers(page).inner_text()
    tab.shot("real-killed-en-US")
    wait_until(lambda: service.status()["deaths"] == 1 and service.phase() == "ready", 90, "the engine is back")
    expect(go_on).to_be_enabled(timeout=LONG_MS)
    go_on.click()
    expect(go_on).to_have_count(0)
    at_rest(page)
    whole = answers(page).inner_text()
    assert whole.startswith(half)
    assert len(whole) > len(half)


@pytest.mark.slow
def test_a_web_worker_killed_and_back(service: Service, tab: Tab) -> None:
    page = tab.page
    tab.watch.failures_expected = True
    first = exchange(page, "What is Berth?")
    worker = service.web_worker()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: service.phase() == "ready" and service.web_worker() != worker, 30, "the worker is back")
    second = exchange(page, "Why was this precision chosen?")
    page.reload()
    expect(answers(page)).to_have_text([first, second])


def test_export_and_import_of_a_chinese_conversation(service: Service, open_page: Open, tmp_path: Path) -> None:
    service.wait_for("ready")
    tab = open_page(f"http://127.0.0.1:{service.port}/", "zh-CN", "dark")
    page = tab.page
    expect(box(page)).to_be_visible(timeout=LONG_MS)
    answer = exchange(page, "Berth 是什么？")
    rows = page.get_by_role("link", name="Berth 是什么？")
    expect(rows).to_have_count(1)
    with page.expect_download() as markdown:
        page.get_by_role("button", name="“Berth 是什么？”的更多操作").click()
        page.get_by_role("menuitem", name="导出为 Markdown").click()
    markdown.value.save_as(tmp_path / "export.md")
    assert answer in (tmp_path / "export.md").read_text()
    with page.expect_download() as exported:
        page.get_by_role("button", name="“Berth 是什么？”的更多操作").click()
        page.get_by_role("menuitem", name="导出为 JSON").click()
    exported.value.save_as(tmp_path / "export.json")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="从文件导入").click()
    chooser.value.set_files(tmp_path / "export.json")
    expect(page.get_by_text("已添加 1 个对话。")).to_be_visible()
    expect(rows).to_have_count(2)
    expect(answers(page)).to_have_text(answer)
    tab.shot("real-conversation-zh-CN")
