"""What tests of the chat do again and again."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import WIDE, Open, Tab
from tests.browser.support import states
from tests.browser.support.stub import Stub


def open_chat(
    stub: Stub, open_page: Open, language: str = "en-US", theme: Any = "light", size: tuple[int, int] = WIDE
) -> Tab:
    """The chat, where the model is ready."""
    stub.status = stub.status or states.ready()
    tab = open_page(stub.url, language, theme, size)
    expect(box(tab.page)).to_be_visible()
    return tab


def box(page: Page) -> Locator:
    """Where messages are written."""
    return page.locator("main form textarea[aria-describedby]")


def answers(page: Page) -> Locator:
    """What the model said, without the double that screen readers hear."""
    return page.locator("main .prose")


def questions(page: Page) -> Locator:
    """What the reader asked."""
    return page.get_by_role("article", name="You", exact=True)


def ask(page: Page, question: str) -> None:
    """Sends a message by keyboard."""
    box(page).fill(question)
    box(page).press("Enter")


def at_rest(page: Page) -> None:
    """Waits until no answer is being written."""
    expect(page.get_by_role("button", name="Stop the answer")).to_have_count(0)
