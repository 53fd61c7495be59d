"""Turns that outlive the page: versions, editing, reloads in mid-stream, lost connections, drafts, settings, keys."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, Tab
from tests.browser.support.chatting import answers, ask, at_rest, box, open_chat, questions
from tests.browser.support.stub import Stub, end, text


@pytest.fixture
def tab(stub: Stub, open_page: Open) -> Tab:
    """The chat, open."""
    return open_chat(stub, open_page)


def exchange(stub: Stub, tab: Tab, question: str, answer: str) -> None:
    """A question, and its answer at rest."""
    stub.say(text(answer), end())
    ask(tab.page, question)
    expect(answers(tab.page).get_by_text(answer, exact=True)).to_be_visible()
    at_rest(tab.page)


def test_an_answer_can_be_given_again_and_versions_switched(stub: Stub, tab: Tab) -> None:
    page = tab.page
    exchange(stub, tab, "Name a colour", "Red.")
    stub.say(text("Blue."), end())
    page.get_by_role("button", name="Answer again").click()
    expect(answers(page).get_by_text("Blue.", exact=True)).to_be_visible()
    expect(answers(page).get_by_text("Red.", exact=True)).to_have_count(0)
    expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible()
    tab.shot("versions-en-US")
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page).get_by_text("Red.", exact=True)).to_be_visible()
    page.reload()
    expect(answers(page).get_by_text("Red.", exact=True)).to_be_visible()
    exchange(stub, tab, "Why?", "It is warm.")
    assert stub.requests[-1]["parent_id"] == stub.requests[0]["answer_id"]
    page.get_by_role("button", name="Next version").click()
    expect(answers(page)).to_have_text(["Blue."])
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page)).to_have_text(["Red.", "It is warm."])


def test_a_question_is_edited_as_another_version(stub: Stub, tab: Tab) -> None:
    page = tab.page
    exchange(stub, tab, "Capital of France?", "Paris.")
    exchange(stub, tab, "How large?", "Large.")
    questions(page).first.hover()
    questions(page).first.get_by_role("button", name="Edit").click()
    field = page.get_by_label("Edit your message")
    expect(field).to_be_focused()
    expect(field).to_have_value("Capital of France?")
    tab.shot("edit-en-US")
    field.press("Escape")
    expect(answers(page)).to_have_count(2)
    box(page).press("ArrowUp")
    expect(field).to_have_value("How large?")
    stub.say(text("105 km²."), end())
    field.fill("How many square kilometres?")
    field.press("Enter")
    expect(answers(page)).to_have_text(["Paris.", "105 km²."])
    expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible()
    request = stub.requests[-1]
    assert (request["content"], request["parent_id"]) == ("How many square kilometres?", stub.requests[0]["answer_id"])
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page)).to_have_text(["Paris.", "Large."])


def test_a_message_is_deleted_with_what_follows(stub: Stub, tab: Tab) -> None:
    page = tab.page
    exchange(stub, tab, "One", "First.")
    exchange(stub, tab, "Two", "Second.")
    questions(page).last.hover()
    questions(page).last.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(answers(page)).to_have_text(["First."])
    page.get_by_role("button", name="Delete", exact=True).last.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(answers(page)).to_have_count(0)
    stub.say(text("First, again."), end())
    page.get_by_role("button", name="Answer this").click()
    expect(answers(page)).to_have_text(["First, again."])


def test_a_reload_in_mid_stream_takes_the_answer_up_again(stub: Stub, tab: Tab) -> None:
    page, more = tab.page, threading.Event()
    stub.say(text("Half of it"), more, text(", and the rest."), end())
    ask(page, "Keep this")
    expect(answers(page).get_by_text("Half of it", exact=True)).to_be_visible()
    page.reload()
    expect(answers(page).get_by_text("Half of it", exact=True)).to_be_visible()
    other = page.context.new_page()
    other.goto(page.url)
    expect(answers(other).get_by_text("Half of it", exact=True)).to_be_visible()
    more.set()
    for each in (page, other):
        expect(answers(each).get_by_text("Half of it, and the rest.", exact=True)).to_be_visible()
        at_rest(each)
    assert len(stub.requests) == 1


def test_an_answer_goes_on_after_the_connection_was_lost(stub: Stub, tab: Tab) -> None:
    tab.watch.failures_expected = True
    page, more, rest = tab.page, threading.Event(), threading.Event()
    stub.say(text("One, "), more, text("two, "), rest, text("three."), end())
    ask(page, "Count")
    expect(answers(page).get_by_text("One,")).to_be_visible()
    stub.cut.set()
    more.set()
    page.wait_for_timeout(300)
    stub.cut.clear()
    expect(answers(page).get_by_text("One, two,")).to_be_visible()
    rest.set()
    expect(answers(page).get_by_text("One, two, three.", exact=True)).to_be_visible()
    at_rest(page)


def test_drafts_are_kept_for_each_conversation(stub: Stub, tab: Tab) -> None:
    page = tab.page
    exchange(stub, tab, "One", "First.")
    box(page).fill("about the first")
    page.get_by_role("button", name="New chat").click()
    expect(box(page)).to_have_value("")
    box(page).fill("something new")
    page.reload()
    expect(box(page)).to_have_value("something new")
    page.get_by_role("link", name="One").click()
    expect(box(page)).to_have_value("about the first")
    exchange(stub, tab, "Two", "Second.")
    page.reload()
    expect(answers(page)).to_have_count(2)
    expect(box(page)).to_have_value("")


def test_settings_are_checked_explained_and_kept(stub: Stub, tab: Tab) -> None:
    page = tab.page
    page.get_by_role("button", name="Conversation settings").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("System prompt").fill("Answer in rhymes.")
    dialog.get_by_label("Temperature").fill("3")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text("Enter a number from 0 to 2.")
    expect(dialog.get_by_label("Temperature")).to_be_focused()
    dialog.get_by_label("Temperature").fill("0.5")
    dialog.get_by_text("Advanced sampling").click()
    dialog.get_by_label("Seed").fill("7")
    dialog.get_by_label("Off").check()
    tab.shot("settings-en-US")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    exchange(stub, tab, "Roses are", "Red.")
    [held] = stub.store.held.values()
    settings = held.settings
    assert (settings.system_prompt, settings.temperature, settings.seed) == ("Answer in rhymes.", 0.5, 7)
    assert (settings.enable_thinking, settings.top_p) == (False, None)
    page.reload()
    page.get_by_role("button", name="Conversation settings").click()
    expect(dialog.get_by_label("Temperature")).to_have_value("0.5")
    dialog.get_by_role("button", name="Reset all").click()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    assert stub.store.held[held.head.id].settings.temperature is None


def test_everything_is_reached_by_keyboard(stub: Stub, tab: Tab) -> None:
    page, never = tab.page, threading.Event()
    expect(box(page)).to_be_focused()
    stub.say(text("Endless"), never, end())
    page.keyboard.type("Go")
    page.keyboard.press("Enter")
    expect(answers(page).get_by_text("Endless")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Shift+Escape")
    expect(box(page)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Edit your message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(box(page)).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    page.keyboard.press("Control+b")
    expect(page.get_by_role("searchbox")).to_have_count(0)
    page.keyboard.press("Control+b")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Control+,")
    expect(page.get_by_role("dialog").get_by_label("System prompt")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Control+/")
    expect(page.get_by_role("dialog")).to_contain_text("Edit your last message")
    tab.shot("keys-en-US")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_menu_by_keyboard(stub: Stub, tab: Tab) -> None:
    page = tab.page
    exchange(stub, tab, "Only one", "Yes.")
    button = page.get_by_role("button", name="Actions for “Only one”")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Pin")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
