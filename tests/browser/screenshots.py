"""Pictures of the chat for docs/ and review: `python -m tests.browser.screenshots [folder]`, by default into docs/.

They come from the built client and the scripted service, so that they are the same each time. With a folder, every
state in both languages and themes is written there; docs/ gets the three that docs/page.md shows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.contract.conversations import MessageError, StoredMessage
from tests.browser.conftest import FLAGS, PHONE, WIDE, chromium
from tests.browser.support import states
from tests.browser.support.chatting import answers, ask, box
from tests.browser.support.stub import Stub, end, text, thought, tool
from tests.paths import TOP

DOCS = TOP / "docs"
HOUR = 3600
TITLES = {
    "en": ("Packing for Iceland", "Tidy up a shell script", "Names for a rowing club", "Why is the sky blue?"),
    "zh": ("去冰岛要带什么", "整理一个 shell 脚本", "给赛艇俱乐部取名", "天空为什么是蓝色的？"),
}
QUESTION = {
    "en": "Which precision fits into 15 GiB, and how sure is that?",
    "zh": "15 GiB 里放得下哪种精度？这有多确定？",
}
THOUGHT = {"en": "They ask for a comparison; a table is clearest.", "zh": "对方想要比较，用表格最清楚。"}
ANSWER = {
    "en": """\
**int8** fits, with room for 8,192 tokens of context:

| precision | needs | free | result |
|:--|--:|--:|:-:|
| bf16 | 19.24 GiB | 15.30 GiB | too large |
| **int8** | **11.03 GiB** | 15.30 GiB | fits |
| int4 | 7.33 GiB | 15.30 GiB | fits |

The need is the sum of weights, KV cache and activations, $M = W + C + A$, and it is *tested* before the chat opens:

```python
def fits(rung, free):
    return rung.weights + rung.cache + rung.activations <= free
```
""",
    "zh": """\
**int8** 放得下，并留有 8,192 个 token 的上下文：

| 精度 | 需要 | 可用 | 结论 |
|:--|--:|--:|:-:|
| bf16 | 19.24 GiB | 15.30 GiB | 放不下 |
| **int8** | **11.03 GiB** | 15.30 GiB | 放得下 |
| int4 | 7.33 GiB | 15.30 GiB | 放得下 |

所需内存是权重、KV 缓存与激活值之和 $M = W + C + A$，并且在对话打开之前就会*实测*：

```python
def fits(rung, free):
    return rung.weights + rung.cache + rung.activations <= free
```
""",
}
BROKEN = {"en": ("Tell me about tides", "Tides come from"), "zh": ("讲讲潮汐", "潮汐来自")}


def pair(number: int, question: str, answer: str, **more: Any) -> tuple[StoredMessage, StoredMessage]:
    """A question and its answer."""
    ids = [f"00000000-0000-4000-8000-{2 * number + n:012}" for n in (0, 1)]
    first = StoredMessage(ids[0], None, "user", question, 1.0)
    return first, StoredMessage(ids[1], ids[0], "assistant", answer, 1.0, **more)


def stock(stub: Stub, language: str) -> None:
    """Conversations of the last days."""
    for number, title in enumerate(TITLES[language]):
        stub.store.add(title, *pair(number, title, title), age=(0.5, 3, 30, 60)[number] * HOUR, pinned=number == 3)


def chat(stub: Stub, page: Page, language: str) -> None:
    """A whole answer with thoughts, a table, a formula and code."""
    stub.say(thought(THOUGHT[language]), text(ANSWER[language]), end(tokens=186))
    ask(page, QUESTION[language])
    expect(answers(page).locator("math")).to_be_visible()
    expect(answers(page).locator(".hljs-keyword").first).to_be_visible()
    page.locator(".scroll").evaluate("(e) => e.scrollTo(0, 0)")


def streaming(stub: Stub, page: Page, language: str) -> None:
    """An answer that grows."""
    stub.say(thought(THOUGHT[language]), text(BROKEN[language][1]), threading.Event())
    ask(page, BROKEN[language][0])
    expect(answers(page)).to_contain_text(BROKEN[language][1])


def broken(stub: Stub, page: Page, language: str) -> None:
    """Each way in which an answer can break off, one below the other."""
    question, answer = BROKEN[language]
    messages: list[StoredMessage] = []
    error = MessageError("engine_died", "The engine died in mid-answer.")
    for number, state in enumerate(("stopped", "length", "interrupted", "failed")):
        first, second = pair(10 + number, question, answer, state=state, error=error if state == "failed" else None)
        parent = messages[-1].id if messages else None
        messages += [StoredMessage(first.id, parent, "user", question, 1.0), second]
    held = stub.store.add(question, *messages)
    page.goto(f"{stub.url}#c={held.head.id}")
    expect(page.get_by_role("alert")).to_be_visible()


def tools(stub: Stub, page: Page, language: str) -> None:
    """A tool call, unfolded."""
    stub.say(tool("weather", '{"city": "北京", "days": 3}'), end())
    ask(page, BROKEN[language][0])
    page.locator("main summary").last.click()


def settings(stub: Stub, page: Page, language: str) -> None:
    """The settings of a conversation, with a mistake."""
    page.keyboard.press("Control+,")
    page.get_by_label("Temperature" if language == "en" else "温度").fill("3")
    page.get_by_role("dialog").locator("summary").click()


def keys(stub: Stub, page: Page, language: str) -> None:
    """The list of shortcuts."""
    page.keyboard.press("Control+/")
    expect(page.get_by_role("dialog")).to_be_visible()


def menu(stub: Stub, page: Page, language: str) -> None:
    """What can be done with a conversation."""
    if not page.get_by_role("navigation").is_visible():
        page.keyboard.press("Control+b")
    page.get_by_role("navigation").get_by_role("button").nth(1).click()


def edit(stub: Stub, page: Page, language: str) -> None:
    """A question that is being edited."""
    chat(stub, page, language)
    box(page).press("ArrowUp")


def welcome(stub: Stub, page: Page, language: str) -> None:
    """A new chat."""
    expect(box(page)).to_be_visible()


SCENES: tuple[Callable[[Stub, Page, str], None], ...] = (
    welcome, chat, streaming, broken, tools, settings, keys, menu, edit,
)  # fmt: skip


def shoot(browser: Browser, scene: Callable[[Stub, Page, str], None], file: Path, language: str, theme: Any) -> None:
    """One picture; a name that begins with `phone` is taken on one."""
    width, height = PHONE if file.name.startswith("phone") else WIDE
    stub = Stub(status=states.ready())
    stock(stub, language)
    locale = "zh-CN" if language == "zh" else "en-US"
    context = browser.new_context(locale=locale, color_scheme=theme, viewport={"width": width, "height": height})
    try:
        page = context.new_page()
        page.goto(stub.url)
        expect(box(page)).to_be_visible()
        scene(stub, page, language)
        page.wait_for_timeout(250)  # transitions
        page.screenshot(path=str(file))
    finally:
        context.close()
        stub.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        if folder is None:
            shoot(browser, chat, DOCS / "chat.png", "en", "light")
            shoot(browser, chat, DOCS / "chat-zh-dark.png", "zh", "dark")
            shoot(browser, chat, DOCS / "phone-chat.png", "en", "dark")
            return
        folder.mkdir(parents=True, exist_ok=True)
        for scene in SCENES:
            for size in ("wide", "phone"):
                for language, theme in (("en", "light"), ("zh", "dark"), ("en", "dark"), ("zh", "light")):
                    shoot(browser, scene, folder / f"{size}-{scene.__name__}-{language}-{theme}.png", language, theme)


if __name__ == "__main__":
    main()
