"""The side bar: conversations that the service keeps are found again, named, sorted, taken out and in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from app.contract.conversations import StoredMessage
from tests.browser.conftest import PHONE, Open, Tab
from tests.browser.support import states
from tests.browser.support.chatting import answers, ask, at_rest, box, open_chat, questions
from tests.browser.support.stub import Stub, end, text

HOUR = 3600
EMPTY = "What would you like to know?"


@pytest.fixture
def tab(stub: Stub, open_page: Open) -> Tab:
    """The chat, open."""
    return open_chat(stub, open_page)


def listed(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations").get_by_role("link")


def menu(page: Page, title: str, item: str) -> None:
    """Picks an item of a conversation's menu."""
    page.get_by_role("button", name=f"Actions for “{title}”").click()
    page.get_by_role("menuitem", name=item).click()


def said(number: int, parent: str | None, role: str, content: str) -> StoredMessage:
    return StoredMessage(f"00000000-0000-4000-8000-{number:012}", parent, role, content, 1.0)  # type: ignore[arg-type]


def pair(number: int, question: str, answer: str) -> tuple[StoredMessage, StoredMessage]:
    first = said(2 * number, None, "user", question)
    return first, said(2 * number + 1, first.id, "assistant", answer)


def test_the_address_names_the_conversation(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(text("Kept."), end())
    ask(page, "Keep this")
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()
    at_rest(page)
    expect(page).to_have_url(re.compile(r"#c=[0-9a-f-]{36}$"))
    expect(page).to_have_title("Keep this · Berth")
    page.reload()
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("heading", name=EMPTY)).to_be_visible()
    expect(box(page)).to_be_focused()
    page.go_back()
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("heading", name=EMPTY)).to_be_visible()
    listed(page).get_by_text("Keep this").click()
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()


def test_a_conversation_that_is_gone_says_so(stub: Stub, tab: Tab) -> None:
    tab.watch.failures_expected = True
    tab.page.goto(f"{stub.url}#c=00000000-0000-4000-8000-000000000000")
    expect(tab.page.get_by_role("alert")).to_contain_text("does not exist any more")
    tab.page.get_by_role("alert").get_by_role("button", name="New chat").click()
    expect(tab.page.get_by_role("heading", name=EMPTY)).to_be_visible()


def test_the_list_is_grouped_and_goes_on_as_one_scrolls(stub: Stub, open_page: Open) -> None:
    for number in range(70):
        stub.store.add(f"Number {number}", age=number * 12 * HOUR)
    stub.store.add("Important", age=900 * HOUR, pinned=True)
    page = open_chat(stub, open_page).page
    expect(listed(page).first).to_have_text("Important")
    headings = page.get_by_role("navigation").get_by_role("heading")
    expect(headings.first).to_have_text("Pinned")
    expect(headings.nth(1)).to_have_text("Today")
    page.get_by_role("navigation", name="Conversations").hover()
    for _ in range(3):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
    last = listed(page).get_by_text("Number 69", exact=True)
    expect(last).to_have_count(1)
    last.scroll_into_view_if_needed()
    expect(headings.last).to_have_text("Earlier")
    assert len(set(listed(page).all_inner_texts())) == 71


def test_search_finds_what_was_said(stub: Stub, open_page: Open) -> None:
    stub.store.add("Cooking", *pair(1, "Dumplings?", "Fold them twice."))
    stub.store.add("Sailing", *pair(2, "Berths?", "Reserve early."), age=HOUR)
    page = open_chat(stub, open_page).page
    expect(listed(page)).to_have_text(["Cooking", "Sailing"])
    page.get_by_role("searchbox").fill("reserve")
    expect(listed(page)).to_have_text(["Sailing"])
    page.get_by_role("searchbox").fill("aeroplane")
    expect(page.get_by_text("No results for “aeroplane”")).to_be_visible()
    page.get_by_role("button", name="Clear the search").click()
    expect(listed(page)).to_have_text(["Cooking", "Sailing"])


def test_rename_pin_and_delete(stub: Stub, open_page: Open) -> None:
    stub.store.add("Newest", *pair(1, "Q", "A"))
    stub.store.add("Older", *pair(2, "Q", "The older answer."), age=HOUR)
    tab = open_chat(stub, open_page)
    page = tab.page
    menu(page, "Older", "Rename")
    title = page.get_by_label("Title of the conversation")
    expect(title).to_be_focused()
    title.fill("Renamed")
    title.press("Enter")
    expect(listed(page)).to_have_text(["Newest", "Renamed"])
    menu(page, "Newest", "Rename")
    title.fill("Never mind")
    title.press("Escape")
    expect(listed(page)).to_have_text(["Newest", "Renamed"])
    menu(page, "Renamed", "Pin")
    expect(listed(page)).to_have_text(["Renamed", "Newest"])
    menu(page, "Renamed", "Unpin")
    expect(listed(page)).to_have_text(["Newest", "Renamed"])
    listed(page).get_by_text("Renamed").click()
    expect(answers(page).get_by_text("The older answer.")).to_be_visible()
    menu(page, "Renamed", "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(listed(page)).to_have_count(2)
    menu(page, "Renamed", "Delete")
    tab.shot("delete-en-US")
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(listed(page)).to_have_text(["Newest"])
    expect(page.get_by_role("heading", name=EMPTY)).to_be_visible()
    assert [held.head.title for held in stub.store.held.values()] == ["Newest"]


def test_export_and_import(stub: Stub, open_page: Open, tmp_path: Path) -> None:
    stub.store.add("A/B: what?", *pair(1, "Which?", "Both."))
    page = open_chat(stub, open_page).page
    with page.expect_download() as markdown:
        menu(page, "A/B: what?", "Export as Markdown")
    assert markdown.value.suggested_filename == "A B what.md"
    with page.expect_download() as exported:
        menu(page, "A/B: what?", "Export as JSON")
    file = tmp_path / "export.json"
    exported.value.save_as(file)
    assert json.loads(file.read_text())["format"] == "berth-conversations"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import from a file").click()
    chooser.value.set_files(file)
    expect(page.get_by_text("1 conversation was added.")).to_be_visible()
    expect(listed(page)).to_have_count(2)
    expect(answers(page).get_by_text("Both.")).to_be_visible()
    file.write_text('{"conversations": []}')
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import from a file").click()
    chooser.value.set_files(file)
    expect(page.get_by_text("export.json does not contain conversations")).to_be_visible()


def test_a_list_that_cannot_be_changed_says_why(stub: Stub, open_page: Open) -> None:
    held = stub.store.add("Here", *pair(1, "Q", "A"))
    tab = open_chat(stub, open_page)
    tab.watch.failures_expected = True
    expect(listed(tab.page)).to_have_count(1)
    del stub.store.held[held.head.id]
    menu(tab.page, "Here", "Pin")
    expect(tab.page.get_by_text("That could not be done.")).to_be_visible()


def test_two_tabs_show_the_same(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(text("First."), end())
    ask(page, "One")
    expect(answers(page).get_by_text("First.", exact=True)).to_be_visible()
    at_rest(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(answers(other).get_by_text("First.", exact=True)).to_be_visible()
    stub.say(text("Second."), end())
    ask(other, "Two")
    expect(answers(other).get_by_text("Second.", exact=True)).to_be_visible()
    expect(answers(page).get_by_text("Second.", exact=True)).to_be_visible()
    expect(questions(page)).to_have_count(2)
    stub.say(text("Elsewhere."), end())
    other.get_by_role("button", name="New chat").click()
    ask(other, "Another one")
    expect(listed(page)).to_have_text(["Another one", "One"])


def test_the_drawer_on_a_narrow_screen(stub: Stub, open_page: Open) -> None:
    stub.store.add("Cooking", *pair(1, "Dumplings?", "Fold them twice."))
    stub.status = states.ready()
    tab = open_chat(stub, open_page, "en-US", "dark", PHONE)
    page = tab.page
    expect(listed(page)).to_have_count(0)
    page.get_by_role("button", name="Show the conversations").click()
    expect(listed(page)).to_have_text(["Cooking"])
    tab.shot("phone-drawer-dark")
    page.keyboard.press("Escape")
    expect(listed(page)).to_have_count(0)
    page.get_by_role("button", name="Show the conversations").click()
    listed(page).click()
    expect(answers(page).get_by_text("Fold them twice.")).to_be_visible()
    expect(listed(page)).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_the_side_bar_stays_as_it_was_left(stub: Stub, tab: Tab) -> None:
    page = tab.page
    page.get_by_role("button", name="Hide the conversations").click()
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.reload()
    expect(box(page)).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.get_by_role("button", name="Show the conversations").click()
    expect(page.get_by_role("searchbox")).to_be_focused()
