"""The chat in a real browser: streaming, stopping, failing, coming back, and what an answer may not do."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Open, Tab
from tests.browser.support import states
from tests.browser.support.chatting import answers, ask, at_rest, box, open_chat
from tests.browser.support.stub import Stub, end, error, failed, text, thought, tool

MARKDOWN = """\
## Which precision fits

`int8` needs **11.03 GiB** of the *15.30 GiB* that are free:

1. the weights are stored in eight bits,
2. the cache stays in 16 bits.

| rung | needs | fits |
|:-----|------:|:----:|
| bf16 | 19.24 GiB | no |
| int8 | 11.03 GiB | yes |

```python
free = 15.30
print("fits" if 11.03 <= free else "too large")
```

> Measured, not guessed. See https://example.org/docs.
"""
VECTORS = """\
<script>alert(1)</script>
<img src=x onerror=alert(1)>
![x](https://elsewhere.example/pixel.png)
[click](javascript:alert(1))
[data](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)
<a href="javascript:alert(1)">x</a> <svg onload=alert(1)>
<style>body { display: none }</style>
<iframe src="https://elsewhere.example"></iframe>

[fine](https://example.org/path)

```<img/src=x onerror=alert(1)>
</code></pre><script>alert(1)</script>
```
"""


@pytest.fixture
def tab(stub: Stub, open_page: Open) -> Tab:
    """The chat, open."""
    return open_chat(stub, open_page)


def test_chinese_cut_anywhere_arrives_whole_and_the_conversation_goes_on(stub: Stub, tab: Tab) -> None:
    page, answer = tab.page, "显存不足时，会选择更低的精度。😀"
    stub.bytewise = True
    stub.say(text(answer), end())
    ask(page, "内存不够怎么办？")
    expect(answers(page).get_by_text(answer, exact=True)).to_be_visible()
    at_rest(page)
    stub.say(text("Second."), end())
    ask(page, "And then?")
    expect(answers(page).get_by_text("Second.", exact=True)).to_be_visible()
    first, second = stub.requests
    assert (first["content"], first["parent_id"]) == ("内存不够怎么办？", None)
    assert (second["content"], second["parent_id"]) == ("And then?", first["answer_id"])


def test_an_answer_grows_and_can_be_stopped(stub: Stub, tab: Tab) -> None:
    never = threading.Event()
    stub.say(text("First words. "), never, text("never seen"), end())
    ask(tab.page, "Tell me a lot")
    expect(answers(tab.page).get_by_text("First words.")).to_be_visible()
    tab.page.get_by_role("button", name="Stop the answer").click()
    expect(tab.page.get_by_text("You stopped this answer.")).to_be_visible()
    stub.say(text("Fresh."), end())
    ask(tab.page, "Again")
    expect(answers(tab.page).get_by_text("Fresh.", exact=True)).to_be_visible()


def test_thoughts_are_open_until_the_answer_begins(stub: Stub, tab: Tab) -> None:
    page, go_on = tab.page, threading.Event()
    stub.say(thought("The user <b>greets</b> me. "), thought("我也问好。"), go_on, text("Hello."), end())
    ask(page, "Hi")
    thoughts = page.get_by_text("The user <b>greets</b> me. 我也问好。", exact=True)
    expect(thoughts).to_be_visible()
    go_on.set()
    expect(answers(page).get_by_text("Hello.", exact=True)).to_be_visible()
    expect(thoughts).to_be_hidden()
    page.get_by_text("Thoughts", exact=True).click()
    expect(thoughts).to_be_visible()
    tab.shot("thoughts-en-US")
    stub.say(text("Well."), end())
    ask(page, "And you?")
    expect(answers(page).get_by_text("Well.", exact=True)).to_be_visible()


def test_markdown_code_and_answers_can_be_copied(stub: Stub, tab: Tab) -> None:
    page = tab.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stub.say(
        *[step for start in range(0, len(MARKDOWN), 16) for step in (text(MARKDOWN[start : start + 16]), 0.01)], end()
    )
    ask(page, "Which precision fits here?")
    page.get_by_role("button", name="Copy the code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("free = 15.30\nprint(")
    tab.shot("chat-en-US")
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN
    expect(page.get_by_role("columnheader", name="needs")).to_have_css("text-align", "right")
    expect(page.get_by_role("region", name="Service status")).to_contain_text("tokens/s")
    link = answers(page).get_by_role("link")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(link).to_have_attribute("target", "_blank")


def test_nothing_in_an_answer_or_question_runs_or_leaves(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(text(VECTORS), end())
    ask(page, "<img src=x onerror=alert(1)>")
    expect(page.get_by_role("link", name="fine")).to_be_visible()
    scroll = page.get_by_role("region", name="Chat")
    assert answers(page).locator("img, script, style, iframe, svg, [style], [onerror], [onload]").count() == 0
    hrefs = [link.get_attribute("href") or "" for link in scroll.locator("a[href]").all()]
    assert hrefs
    assert all(href.startswith("https://") for href in hrefs)


def test_tool_calls_are_shown_folded(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(text("I look it up."), tool("weather", '{"city": "北京"}'), end())
    ask(page, "Weather?")
    arguments = page.get_by_text('"city": "北京"')
    expect(page.get_by_text("Called the tool weather")).to_be_visible()
    expect(arguments).to_be_hidden()
    page.get_by_text("Called the tool weather").click()
    expect(arguments).to_be_visible()


def test_an_answer_that_failed_keeps_what_came_and_can_be_continued(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(text("Half an answer"), failed("engine_died", "The engine died in mid-answer."))
    ask(page, "Go on")
    expect(page.get_by_role("alert")).to_contain_text("could not be finished")
    expect(page.get_by_role("alert")).to_contain_text("The model process ended in the middle of the answer.")
    expect(answers(page).get_by_text("Half an answer", exact=True)).to_be_visible()
    tab.shot("chat-error")
    stub.say(text(", and the rest."), end())
    page.get_by_role("button", name="Continue").click()
    expect(answers(page).get_by_text("Half an answer, and the rest.", exact=True)).to_be_visible()
    assert stub.requests[-1]["continues"] == stub.requests[0]["answer_id"]
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_answer_that_failed_before_its_first_word_can_be_tried_again(stub: Stub, tab: Tab) -> None:
    page = tab.page
    stub.say(failed("context_length_exceeded", "9000 tokens, 8192 fit."))
    ask(page, "A long one")
    expect(page.get_by_role("alert")).to_contain_text("longer than the model’s context")
    stub.say(text("Now it fits."), end())
    page.get_by_role("button", name="Try again").click()
    expect(answers(page).get_by_text("Now it fits.", exact=True)).to_be_visible()


def test_refusals_are_said_in_words_and_the_same_turn_can_be_sent_again(stub: Stub, tab: Tab) -> None:
    page = tab.page
    tab.watch.failures_expected = True
    refusals = (
        (429, "too_many_turns", "Too many answers are being written at the moment."),
        (503, "model_not_ready", "The model is not ready."),
        (507, "storage_full", "The disk is full"),
        (500, "internal_error", "An error occurred in the service."),
        (500, "code_of_a_newer_service", "The service says: the details of code_of_a_newer_service"),
    )
    alert = page.get_by_role("alert")
    for status, code, words in refusals:
        stub.refuse(status, error(f"the details of {code}", code))
        if status == 429:
            ask(page, "Hello")
        else:
            page.get_by_role("button", name="Try again").click()
        expect(alert).to_contain_text(words)
        # The service's English sentence is only shown for a code that the page does not know.
        expect(alert.get_by_text(f"the details of {code}")).to_have_count(int(code in words))
    stub.say(text("Hello yourself."), end())
    page.get_by_role("button", name="Try again").click()
    expect(answers(page).get_by_text("Hello yourself.", exact=True)).to_be_visible()
    assert len({request["answer_id"] for request in stub.requests}) == 1


def test_a_lost_reply_makes_no_second_turn(stub: Stub, tab: Tab) -> None:
    tab.watch.failures_expected = True
    stub.lose_replies = 1
    stub.say(text("Only once."), end())
    ask(tab.page, "Once?")
    expect(answers(tab.page).get_by_text("Only once.", exact=True)).to_be_visible()
    assert [request["answer_id"] for request in stub.requests] == [stub.requests[0]["answer_id"]] * 2


def test_the_length_limit_is_named_and_the_answer_can_go_on(stub: Stub, tab: Tab) -> None:
    stub.say(text("Long"), end("length"))
    ask(tab.page, "Long?")
    expect(tab.page.get_by_text("The answer reached its length limit.")).to_be_visible()
    stub.say(text(" and longer"), end())
    tab.page.get_by_role("button", name="Continue").click()
    expect(answers(tab.page).get_by_text("Long and longer", exact=True)).to_be_visible()


def test_an_engine_that_recovers_during_the_chat(stub: Stub, tab: Tab) -> None:
    page = tab.page
    tab.watch.failures_expected = True
    stub.say(text("Kept."), end())
    ask(page, "Remember this")
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()
    stub.refuse(503, error("recovering", "model_not_ready"))
    ask(page, "And now?")
    stub.status = states.recovering()
    expect(page.get_by_text("Restarting the model", exact=True)).to_be_visible(timeout=10_000)
    expect(page.get_by_text("You can send messages when it is ready.")).to_be_visible()
    box(page).fill("A draft can be written meanwhile")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    box(page).press("Enter")
    expect(box(page)).to_have_value("A draft can be written meanwhile")
    tab.shot("chat-recovering")
    page.get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog").get_by_text("Killed by the kernel")).to_be_visible()
    page.keyboard.press("Escape")
    stub.status = replace(states.loading(4.7), last_death=stub.status.last_death, deaths=1)
    expect(page.get_by_text("50 %")).to_be_visible()
    stub.status = states.ready()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    expect(page.get_by_text("Restarting the model", exact=True)).to_have_count(0)
    expect(answers(page).get_by_text("Kept.", exact=True)).to_be_visible()


def test_a_service_that_goes_away_during_the_chat(stub: Stub, tab: Tab) -> None:
    tab.watch.failures_expected = True
    stub.status = None
    ask(tab.page, "Anybody there?")
    expect(tab.page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(tab.page.get_by_text("The service cannot be reached at the moment.")).to_be_visible()
    expect(tab.page.get_by_role("button", name="Try again")).to_be_disabled()
    stub.status = states.ready()
    stub.say(text("Here again."), end())
    tab.page.get_by_role("button", name="Try again").click()
    expect(answers(tab.page).get_by_text("Here again.", exact=True)).to_be_visible()


def test_enter_sends_shift_enter_breaks_the_line_and_composing_does_neither(stub: Stub, tab: Tab) -> None:
    page = tab.page
    box(page).fill("one")
    box(page).press("Shift+Enter")
    box(page).press_sequentially("two")
    expect(box(page)).to_have_value("one\ntwo")
    for init in ({"isComposing": True}, {"keyCode": 229}):
        box(page).dispatch_event("keydown", {"key": "Enter", "bubbles": True, "cancelable": True, **init})
    expect(box(page)).to_have_value("one\ntwo")
    assert stub.requests == []
    stub.say(text("ok"), end())
    box(page).press("Enter")
    expect(box(page)).to_have_value("")
    expect(answers(page).get_by_text("ok", exact=True)).to_be_visible()
    assert stub.requests[0]["content"] == "one\ntwo"


def test_scrolling_follows_the_answer_until_the_reader_scrolls_up(stub: Stub, tab: Tab) -> None:
    page, more, rest = tab.page, threading.Event(), threading.Event()
    lines = "".join(f"line {number}\n\n" for number in range(60))
    stub.say(text(lines), more, text(lines), rest, text("the last line"), end())
    ask(page, "A long one")
    scroll = page.get_by_role("region", name="Chat")
    from_end = "(e) => e.scrollHeight - e.clientHeight - e.scrollTop"
    expect(answers(page).get_by_text("line 59")).to_be_in_viewport()
    scroll.hover()
    page.mouse.wheel(0, -600)
    latest = page.get_by_role("button", name="Jump to the end")
    expect(latest).to_be_visible()
    top = scroll.evaluate("(e) => e.scrollTop")
    more.set()
    expect(answers(page).get_by_text("line 59")).to_have_count(2)
    assert abs(scroll.evaluate("(e) => e.scrollTop") - top) < 2, "what is being read stays where it is"
    tab.shot("chat-scrolled-up")
    latest.click()
    assert scroll.evaluate(from_end) < 2
    rest.set()
    expect(answers(page).get_by_text("the last line")).to_be_in_viewport()


def test_the_plan_opens_again_from_the_chat(stub: Stub, tab: Tab) -> None:
    page = tab.page
    page.get_by_role("button", name="Plan and memory").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("table")).to_be_visible()
    expect(dialog.get_by_text("Longest request: measured 10.4 GiB")).to_be_visible()
    dialog.get_by_text("All settings and where they come from").click()
    expect(dialog.get_by_text("GLM_MAX_MODEL_LEN")).to_be_visible()
    tab.shot("plan-dialog")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)


def test_the_demo_model_offers_questions_it_knows(stub: Stub, open_page: Open) -> None:
    stub.status = states.demo_ready()
    tab = open_page(stub.url, "zh-CN")
    expect(tab.page.get_by_text(stub.status.model_why.zh)).to_be_visible()
    tab.shot("welcome-zh-CN")
    stub.say(text("Berth 在机器真正拥有的内存里运行 GLM 对话模型。"), end())
    tab.page.get_by_role("button", name="Berth 是什么？").click()
    expect(answers(tab.page).get_by_text("真正拥有的内存")).to_be_visible()
    assert stub.requests[0]["content"] == "Berth 是什么？"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chat_on_a_phone(stub: Stub, open_page: Open, theme: str) -> None:
    stub.status = states.ready()
    tab = open_page(stub.url, "zh-CN", theme, PHONE)
    stub.say(text(MARKDOWN), end())
    ask(tab.page, "哪种精度放得下？它需要多少内存，为什么？")
    expect(tab.page.get_by_role("button", name="复制代码")).to_be_visible()
    tab.shot(f"phone-chat-{theme}")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert tab.page.get_by_role("region", name="对话").evaluate("(e) => e.scrollWidth") <= PHONE[0]
