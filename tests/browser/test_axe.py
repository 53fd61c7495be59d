"""axe-core finds nothing in any state of the page, in both themes: names, roles, contrast, focus, headings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.contract.status import Status
from tests.browser.conftest import PHONE, WIDE, Open
from tests.browser.screenshots import SCENES, stock
from tests.browser.support import states
from tests.browser.support.chatting import box
from tests.browser.support.stub import Stub
from tests.paths import TOP

AXE = TOP / "app" / "client" / "node_modules" / "axe-core" / "axe.min.js"
STARTING = {
    "loading": states.loading(3.1),
    "downloading": states.downloading(3.1),
    "failed": states.failed(),
    "recovering": states.recovering(),
    "proving": states.proving(2),
}


def violations(page: Page) -> list[str]:
    """What axe objects to, with the elements. Evaluated from outside, since the page's policy lets no script in."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_the_chat(stub: Stub, open_page: Open, scene: Callable[[Stub, Page, str], None], theme: str) -> None:
    language = "en" if theme == "light" else "zh"
    stub.status = states.ready()
    stock(stub, language)
    page = open_page(
        stub.url, "en-US" if language == "en" else "zh-CN", theme, WIDE if language == "en" else PHONE
    ).page
    expect(box(page)).to_be_visible()
    scene(stub, page, language)
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("status", STARTING.values(), ids=STARTING)
def test_the_way_there(stub: Stub, open_page: Open, status: Status, theme: str) -> None:
    stub.status = status
    page = open_page(stub.url, "en-US", theme).page
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_door(stub: Stub, open_page: Open, theme: str) -> None:
    stub.status = states.ready()
    tab = open_page(stub.url, "en-US", theme)
    tab.watch.failures_expected = True
    tab.page.route("**/api/**", lambda route: route.fulfill(status=401, json={"error": {"message": "", "code": "x"}}))
    outside = {"key_needed": True, "signed_in": False, "csrf_token": None}
    tab.page.route("**/api/session", lambda route: route.fulfill(json=outside))
    tab.page.reload()
    expect(tab.page.get_by_label("Key")).to_be_visible()
    assert violations(tab.page) == []
