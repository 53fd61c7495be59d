"""Signing in and out of the page, against the service itself: by the link in the log, and by a typed key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, Tab
from tests.processes.service import Service, running, wait_until

READY_MS = 90_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("sign-in"), GLM_AUTH="on", GLM_MODEL="demo") as service:
        wait_until(lambda: is_alive(service), 30, "alive")
        yield service


def is_alive(service: Service) -> bool:
    assert service.process.poll() is None, service.log()[-4000:]
    with contextlib.suppress(OSError):
        return service.request("GET", "/health/live")[0] == 200
    return False


def base(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}/"


def key_of(service: Service) -> str:
    return (service.state_dir / "api_key").read_text().strip()


def link_of(service: Service) -> str:
    """As the log prints it."""
    found = re.search(r"Open (http://\S+#key=\S+)", service.log())
    assert found
    return found[1]


def expect_inside(tab: Tab) -> None:
    expect(tab.page.get_by_role("button", name=re.compile("^(Sign out|退出登录)$"))).to_be_visible()
    expect(tab.page.get_by_label(re.compile("^(Key|密钥)$"))).to_have_count(0)


def expect_outside(tab: Tab) -> None:
    expect(tab.page.get_by_label(re.compile("^(Key|密钥)$"))).to_be_focused()


def test_the_link_signs_in_and_leaves_no_key_behind(service: Service, open_page: Open) -> None:
    tab = open_page(base(service))
    expect_outside(tab)
    tab.shot("sign-in-en-US")
    tab.page.goto("about:blank")
    tab.page.goto(link_of(service))
    expect_inside(tab)
    assert key_of(service) not in tab.page.url
    tab.page.go_back()
    assert key_of(service) not in tab.page.url
    tab.page.goto(base(service))
    expect_inside(tab)
    kept = tab.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert key_of(service) not in kept and "berth_" not in kept, "scripts can't read the cookie"


def test_the_link_signs_in_where_the_page_is_open_already(service: Service, open_page: Open) -> None:
    tab = open_page(base(service), "zh-CN", "dark")
    expect_outside(tab)
    tab.shot("sign-in-zh-CN")
    tab.page.goto(link_of(service))
    expect_inside(tab)
    assert key_of(service) not in tab.page.url


def test_wrong_keys_and_signing_out(service: Service, open_page: Open) -> None:
    tab = open_page(base(service))
    tab.watch.failures_expected = True
    key = tab.page.get_by_label("Key", exact=True)
    key.fill("incorrect-horse-battery-staple")
    key.press("Enter")
    expect(tab.page.get_by_role("alert")).to_have_text("This is not the key of this service.")
    expect(key).to_be_focused()
    tab.shot("sign-in-wrong")
    key.fill(key_of(service))
    key.press("Enter")
    expect_inside(tab)
    tab.page.get_by_role("button", name="Sign out").click()
    expect_outside(tab)
    tab.page.reload()
    expect_outside(tab)


def test_a_session_that_ends_covers_the_page_and_keeps_what_was_written(service: Service, open_page: Open) -> None:
    tab = open_page(base(service))
    tab.watch.failures_expected = True
    tab.page.goto(link_of(service))
    box = tab.page.get_by_role("textbox", name="Message")
    expect(box).to_be_visible(timeout=READY_MS)
    box.fill("What is Berth?")
    tab.page.context.clear_cookies()
    box.press("Enter")
    expect_outside(tab)
    expect(tab.page.locator("#app")).to_have_attribute("inert", "")
    tab.page.get_by_label("Key", exact=True).fill(key_of(service))
    tab.page.keyboard.press("Enter")
    expect_inside(tab)
    expect(tab.page.get_by_text("What is Berth?").first).to_be_visible()
    tab.page.get_by_role("button", name="Try again").click()
    expect(tab.page.locator(".prose")).to_have_text(re.compile(r"[a-z]{3}"), timeout=20_000)


def test_whoever_guesses_is_told_how_long_to_wait(service: Service, open_page: Open) -> None:
    """The last one here: it shuts this address out for a minute."""
    tab = open_page(base(service))
    tab.watch.failures_expected = True
    key = tab.page.get_by_label("Key", exact=True)
    for _ in range(12):
        key.fill("incorrect-horse-battery-staple")
        key.press("Enter")
        expect(tab.page.get_by_role("button", name="Sign in")).to_be_enabled()
    expect(tab.page.get_by_role("alert")).to_have_text(re.compile(r"Too many wrong keys .* in \d+ s\."))
    tab.shot("sign-in-throttled")
