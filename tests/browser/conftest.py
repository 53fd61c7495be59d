"""A real browser for every test, and a page that fails the test for whatever goes wrong inside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

from tests.browser.support.stub import DIST, Stub

SHOTS = os.environ.get("BERTH_SCREENSHOTS")
"""A folder for screenshots, where they are wanted."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE = (1280, 900)
PATIENCE_MS = 20_000
"""For what should come at once, on a machine that does much else."""
PHONE = (360, 740)


def chromium() -> str | None:
    """Debian's chromium, where it is installed."""
    return next(
        (path for path in (shutil.which("chromium"), "/usr/bin/chromium") if path and Path(path).exists()), None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = None
    if chromium() is None:
        reason = "chromium is not installed"
    elif not (DIST / "index.html").is_file():
        reason = "the web client is not built (app/web/static/dist)"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@dataclass
class Watch:
    """What a page said and asked for."""

    own: str
    complaints: list[str] = field(default_factory=list)
    failures_expected: bool = False
    """The browser logs every failed request as an error; a test that provokes them says so."""

    def console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if self.failures_expected and message.text.startswith("Failed to load resource"):
            return
        self.complaints.append(f"{message.type}: {message.text}")

    def dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog opened: {dialog.message}")
        dialog.dismiss()

    def request(self, url: str) -> None:
        if not url.startswith(self.own):
            self.complaints.append(f"request to another place: {url}")


@dataclass
class Tab:
    """A page and the watch over it."""

    page: Page
    watch: Watch

    def shot(self, name: str) -> None:
        """Saves a picture of the page, where pictures are wanted."""
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


Open = Callable[..., Tab]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    found = Stub()
    yield found
    found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens pages; in the end none may have complained, nor asked another host for anything."""
    tabs: list[Tab] = []

    def opener(url: str, language: str = "en-US", theme: Any = "light", size: tuple[int, int] = WIDE) -> Tab:
        context = browser.new_context(
            locale=language, color_scheme=theme, viewport={"width": size[0], "height": size[1]}, base_url=url
        )
        context.set_default_timeout(PATIENCE_MS)
        page, watch = context.new_page(), Watch(url)
        page.on("console", watch.console)
        page.on("pageerror", lambda error: watch.complaints.append(f"exception: {error}"))
        page.on("dialog", watch.dialog)
        page.on("request", lambda request: watch.request(request.url))
        page.goto(url)
        tabs.append(Tab(page, watch))
        return tabs[-1]

    yield opener
    complaints = [complaint for tab in tabs for complaint in tab.watch.complaints]
    for tab in tabs:
        tab.page.context.close()
    assert complaints == []
