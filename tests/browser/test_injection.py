"""Hostile texts at every place where the page shows what it didn't write: nothing runs, nothing leaves."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.contract.codec import to_json
from app.contract.conversations import ChatSettings, Conversation, ConversationHead, Export, StoredMessage
from app.contract.wire import ToolCall
from tests.browser.conftest import Open
from tests.browser.support.chatting import answers, ask, at_rest, open_chat
from tests.browser.support.stub import Stub, end, text, thought
from tests.browser.support.vectors import FORMULAS, HTML, MARKDOWN, VECTORS, WORDS
from tests.processes.service import running

FOUND = """() => {
    const bad = [];
    const inside = 'img, script, style, iframe, object, embed, link, meta, base, form, input, video, [id], [name]';
    for (const element of document.querySelectorAll('.prose *')) {
        const tool = element.closest('.code-tools');
        if (!tool && (element.matches(inside) || element.hasAttribute('style'))) bad.push(element.outerHTML);
    }
    for (const element of document.querySelectorAll('*'))
        for (const { name } of element.attributes) if (name.startsWith('on')) bad.push(element.outerHTML);
    for (const link of document.querySelectorAll('a[href]'))
        if (!/^(https?:|mailto:)/.test(link.href)) bad.push(link.outerHTML);
    if ('owned' in window) bad.push('window.owned');
    if (!/^(light|dark)?$/.test(document.documentElement.dataset.theme ?? '')) bad.push('theme');
    return bad;
}"""

LOOK_AT_ALL = """async () => {
    for (const article of document.querySelectorAll('main article')) {
        article.scrollIntoView();
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    }
}"""
"""Answers are drawn when they come near."""


def unfold(page: Page) -> None:
    page.evaluate("() => { for (const details of document.querySelectorAll('details')) details.open = true; }")


def nothing_came_of_it(page: Page) -> None:
    assert page.evaluate(FOUND) == []


@pytest.mark.parametrize("vectors", [HTML, MARKDOWN, FORMULAS, WORDS], ids=["html", "markdown", "formulas", "words"])
def test_nothing_runs_while_an_answer_grows(stub: Stub, open_page: Open, vectors: Sequence[str]) -> None:
    page = open_chat(stub, open_page).page
    whole = "\n\n".join(vectors)
    pieces = [whole[start : start + 60] for start in range(0, len(whole), 60)]
    stub.say(*map(thought, pieces), *map(text, pieces), text("\n\nTHE END"), end())
    ask(page, whole)
    expect(answers(page).get_by_text("THE END")).to_be_visible()
    at_rest(page)
    unfold(page)
    nothing_came_of_it(page)


def hostile(vector: str, at: float) -> Conversation:
    """A conversation of one vector at every place."""
    question, answer, result = (str(uuid.uuid4()) for _ in range(3))
    call = ToolCall(id=vector[:60], name=vector[:60], arguments=vector)
    messages = (
        StoredMessage(question, None, "user", vector, at),
        StoredMessage(answer, question, "assistant", vector, at, reasoning=vector, tool_calls=(call,)),
        StoredMessage(result, answer, "tool", vector, at, tool_call_id=vector[:60]),
    )
    head = ConversationHead(str(uuid.uuid4()), " ".join(vector.split())[:60] or "x", False, at, at)
    return Conversation(head, ChatSettings(system_prompt=vector), result, messages)


def long(vectors: Sequence[str], at: float) -> Conversation:
    """One conversation that goes through all of them."""
    messages: list[StoredMessage] = []
    for vector in vectors:
        for role in ("user", "assistant"):
            parent = messages[-1].id if messages else None
            messages.append(StoredMessage(str(uuid.uuid4()), parent, role, vector, at, reasoning=vector))
    head = ConversationHead(str(uuid.uuid4()), "All of them", True, at, at)
    return Conversation(head, ChatSettings(), messages[-1].id, tuple(messages))


def test_nothing_runs_that_was_imported(tmp_path: Path, open_page: Open) -> None:
    """As questions, answers, thoughts, calls, results, titles and settings; the service's own headers are on."""
    now = time.time()
    vectors = [vector.replace("\x00", "\ufffd") for vector in VECTORS]
    export = Export((*(hostile(vector, now) for vector in vectors), long(vectors, now)))
    with running(tmp_path) as service:
        service.wait_for("ready")
        status, added = service.request("POST", "/api/conversations/import", to_json(export))
        assert status == 201, added
        page = open_page(f"http://127.0.0.1:{service.port}/").page
        page.get_by_role("link", name="All of them").click()
        expect(page.get_by_role("article")).to_have_count(2 * len(vectors))
        page.evaluate(LOOK_AT_ALL)
        expect(answers(page)).to_have_count(len(vectors))
        unfold(page)
        nothing_came_of_it(page)
        for head in added["conversations"][:: len(vectors) // 8]:
            page.goto(f"http://127.0.0.1:{service.port}/#c={head['id']}")
            expect(answers(page).first).to_be_attached()
            nothing_came_of_it(page)
