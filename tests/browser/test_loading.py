"""The loading page in a real browser: what it says in each phase, and how it turns into the chat."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from entrypoint.messages.sentence import text as text_of
from entrypoint.reasons.download import DownloadStalled
from entrypoint.reasons.engine import LoadingStalled
from tests.browser.conftest import PHONE, Open
from tests.browser.support import states
from tests.browser.support.stub import Stub, end, text

TITLES = {
    "en-US": {
        "loading": "Loading the model",
        "failed": "The model could not be started",
        "recovering": "Restarting the model",
    },
    "zh-CN": {"loading": "正在加载模型", "failed": "模型无法启动", "recovering": "正在重新启动模型"},
}
LANGUAGES = pytest.mark.parametrize("language", ["en-US", "zh-CN"])


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


@LANGUAGES
def test_loading_turns_into_the_chat(stub: Stub, open_page: Open, language: str) -> None:
    chinese = language == "zh-CN"
    stub.status = states.base("starting", 0)
    tab = open_page(stub.url, language)
    page = tab.page
    heading(page, "正在启动" if chinese else "Starting")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if chinese else "en")

    stub.status = states.loading(2.1)
    heading(page, TITLES[language]["loading"])
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "22")
    expect(page.get_by_text("2.10 / 9.30 GiB" if chinese else "2.10 of 9.30 GiB")).to_be_visible()
    stub.status = states.loading(4.7)
    expect(bar).to_have_attribute("aria-valuenow", "50")
    expect(page.get_by_text("大约还需 6 秒" if chinese else "about 6 s left")).to_be_visible()
    expect(page.get_by_text(re.compile(r"(G|M)iB/(s|秒)"))).to_be_visible()
    expect(page).to_have_title(re.compile(r"^50 % · "))
    tab.shot(f"loading-{language}")

    stub.status = states.proving(2)
    heading(page, "正在做满载自检" if chinese else "Final memory check")
    stub.status = states.ready()
    box = page.get_by_role("textbox")
    expect(box).to_be_focused()

    stub.say(text("你好！" if chinese else "Hello!"), end())
    box.fill("你好" if chinese else "Hello")
    box.press("Enter")
    expect(page.locator(".prose").get_by_text("你好！" if chinese else "Hello!")).to_be_visible()
    expect(page.get_by_role("region", name="服务状态" if chinese else "Service status")).to_contain_text("int8")


@LANGUAGES
def test_the_disk_is_named_only_while_weights_are_read(stub: Stub, open_page: Open, language: str) -> None:
    chinese = language == "zh-CN"
    words = {
        "starting_process": "模型进程正在启动" if chinese else "The model process is starting",
        "reading": "正在把模型权重读入内存" if chinese else "The weights are being read",
        "preparing": "权重已全部读完" if chinese else "All weights are read",
    }
    stub.status = states.loading(0)
    tab = open_page(stub.url, language)
    page, bar = tab.page, tab.page.get_by_role("progressbar")
    note = text_of(LoadingStalled(20, int(2.1 * states.GIB), int(9.3 * states.GIB)))
    reading = states.loading(2.1, note=note)
    for status, shares in ((states.loading(0), 0), (reading, 1), (states.loading(9.3), 0)):
        stub.status = status
        assert status.load_stage
        expect(page.get_by_text(words[status.load_stage])).to_be_visible()
        expect(bar).to_have_count(shares)
        expect(page.get_by_text(note.zh if chinese else note.en)).to_have_count(shares)
        expect(page.get_by_text(re.compile("left$|大约还需"))).to_have_count(0)
        expect(page).to_have_title(re.compile("^22 %" if shares else "^[^0-9]"))
        tab.shot(f"loading-{status.load_stage}-{language}")


@LANGUAGES
def test_the_memory_check_shows_its_steps_and_the_time_left(stub: Stub, open_page: Open, language: str) -> None:
    chinese = language == "zh-CN"
    left = page_text(chinese, "about 8 s left", "大约还需 8 秒")
    stub.status = states.proving(0, share=0.0, left=None)
    tab = open_page(stub.url, language)
    page, bar = tab.page, tab.page.get_by_role("progressbar")
    expect(page.get_by_text(page_text(chinese, "Step 1 of 12", "第 1 步，共 12 步"))).to_be_visible()
    expect(bar).to_have_attribute("aria-valuenow", "0")
    expect(page.get_by_text(left)).to_have_count(0)
    stub.status = states.proving(2)
    expect(page.get_by_text(page_text(chinese, "Step 3 of 12", "第 3 步，共 12 步"))).to_be_visible()
    expect(page.get_by_text(left)).to_be_visible()
    expect(bar).to_have_attribute("aria-valuenow", "25")
    expect(page).to_have_title(re.compile("^25 % · "))
    tab.shot(f"proving-{language}")


def page_text(chinese: bool, en: str, zh: str) -> str:
    return zh if chinese else en


@LANGUAGES
def test_a_download_shows_bytes_rate_time_left_and_what_holds_it_up(stub: Stub, open_page: Open, language: str) -> None:
    chinese = language == "zh-CN"
    stub.status = states.downloading(3.1)
    tab = open_page(stub.url, language)
    page = tab.page
    heading(page, "正在下载模型" if chinese else "Downloading the model")
    expect(page.get_by_text("3.10 / 17.5 GiB" if chinese else "3.10 of 17.5 GiB")).to_be_visible()
    expect(page.get_by_text("53.2 MiB/秒" if chinese else "53.2 MiB/s")).to_be_visible()
    expect(page.get_by_text("大约还需 4 分 37 秒" if chinese else "about 4 min 37 s left")).to_be_visible()
    stalled = DownloadStalled(
        seconds=30,
        done_bytes=int(3.1 * states.GIB),
        total_bytes=int(17.51 * states.GIB),
        endpoint="https://hf-mirror.com",
        hub_error=None,
        retry_seconds=8,
    )
    note = text_of(stalled)
    stub.status = states.downloading(3.1, rate=0, note=note)
    expect(page.get_by_text(note.zh if chinese else note.en)).to_be_visible()
    expect(page.get_by_text(re.compile("MiB/(s|秒)"))).to_have_count(0)
    tab.shot(f"downloading-{language}")


def test_the_plan_is_a_table_with_the_chosen_rung_first(stub: Stub, open_page: Open) -> None:
    stub.status = states.loading(3.2)
    page = open_page(stub.url).page
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(5)
    assert [row.split("\n")[0] for row in page.get_by_role("rowheader").all_inner_texts()] == [
        *["int8", "bf16", "int4", "bf16"]
    ]
    expect(rows.nth(1)).to_contain_text("Chosen")
    expect(rows.nth(2)).to_contain_text("3.94 GiB short")
    expect(rows.nth(3)).to_contain_text("Fits too; a higher precision was chosen")
    expect(rows.nth(3)).to_contain_text("Also fits")
    expect(rows.nth(1).get_by_role("img")).to_have_attribute("aria-label", re.compile("^Weights: 9.30 GiB; KV cache"))
    # A bar reaches past the mark of free memory exactly where the rung is too large.
    for row, too_large in ((1, False), (2, True), (3, False)):
        parts = rows.nth(row).locator(".parts > div").last.bounding_box()
        mark = rows.nth(row).locator(".mark").bounding_box()
        assert parts and mark
        assert (parts["x"] + parts["width"] > mark["x"] + 2) == too_large


@LANGUAGES
def test_failed_gives_the_line_to_copy(stub: Stub, open_page: Open, language: str) -> None:
    stub.status = states.failed()
    tab = open_page(stub.url, language)
    page = tab.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    heading(page, TITLES[language]["failed"])
    why = states.REFUSAL.why
    expect(page.get_by_text(why.zh if language == "zh-CN" else why.en)).to_be_visible()
    tab.shot(f"failed-{language}")
    page.get_by_role("button", name="复制这一行" if language == "zh-CN" else "Copy the line").click()
    expect(page.get_by_role("button", name="已复制" if language == "zh-CN" else "Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "GLM_PRECISION=auto"
    expect(page.get_by_role("textbox")).to_have_count(0)


@LANGUAGES
def test_recovering_shows_the_death_certificate(stub: Stub, open_page: Open, language: str) -> None:
    stub.status = states.recovering()
    tab = open_page(stub.url, language)
    page = tab.page
    heading(page, TITLES[language]["recovering"])
    death = stub.status.last_death
    assert death
    expect(page.get_by_text(death.why.zh if language == "zh-CN" else death.why.en)).to_be_visible()
    expect(page.get_by_text("32.0 GiB", exact=True).first).to_be_visible()
    tab.shot(f"recovering-{language}")
    stub.status = states.ready()
    expect(page.get_by_role("textbox")).to_be_visible()


def test_a_death_without_refusal_is_named_when_the_start_failed(stub: Stub, open_page: Open) -> None:
    stub.status = replace(states.recovering(), phase="failed", plan=None)
    page = open_page(stub.url).page
    heading(page, "The model could not be started")
    expect(page.get_by_text("The kernel killed the engine")).to_be_visible()
    expect(page.get_by_text("The model is restarted automatically")).to_have_count(0)


def test_a_service_that_goes_away_is_said_quietly_and_asked_again(stub: Stub, open_page: Open) -> None:
    stub.status = states.loading(1.0)
    tab = open_page(stub.url)
    tab.watch.failures_expected = True
    heading(tab.page, "Loading the model")
    stub.status = None
    note = tab.page.get_by_text("The service cannot be reached")
    expect(note).to_be_visible()
    heading(tab.page, "Loading the model")
    tab.shot("away")
    stub.status = states.loading(5.0)
    expect(note).to_be_hidden()
    expect(tab.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "53")


def test_the_language_can_be_switched_and_is_kept(stub: Stub, open_page: Open) -> None:
    stub.status = states.loading(1.0)
    page = open_page(stub.url, "zh-CN").page
    heading(page, "正在加载模型")
    page.get_by_role("button", name="English").click()
    heading(page, "Loading the model")
    page.reload()
    heading(page, "Loading the model")
    expect(page.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("state", ["loading", "failed", "recovering"])
def test_a_phone_needs_no_sideways_scrolling(stub: Stub, open_page: Open, state: str) -> None:
    stub.status = {"loading": states.loading(2.0), "failed": states.failed(), "recovering": states.recovering()}[state]
    tab = open_page(stub.url, "zh-CN", "dark", PHONE)
    heading(tab.page, TITLES["zh-CN"][state])
    tab.shot(f"phone-{state}-dark")
    assert tab.page.evaluate("document.querySelector('main').scrollWidth") <= PHONE[0]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_it_works_below_a_path(open_page: Open) -> None:
    stub = Stub(prefix="/models/glm")
    try:
        stub.status = states.ready()
        page = open_page(stub.url).page
        stub.say(text("from below a path"), end())
        page.get_by_role("textbox").fill("hi")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".prose").get_by_text("from below a path")).to_be_visible()
    finally:
        stub.close()
