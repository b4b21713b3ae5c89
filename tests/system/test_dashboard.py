"""The dashboard in a real Chromium, with a node that has real calls: a phone talks, the page shows it."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

try:
    from playwright.async_api import Browser, Page, async_playwright, expect
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the browser's driver is missing: pip install 'sipagent[dev]'") from error

from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.state_folder import local_key
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp
from tests.speech.prompts import prompts
from tests.system.node import DIALPLAN, Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(240)]

SHOTS = os.environ.get("SIPAGENT_SCREENSHOTS", "")  # a folder to look at them
GREETING = "Hello, this is the desk."
PLAN = DIALPLAN.replace('greeting: "Hello."', f'greeting: "{GREETING}"\n    record: true', 1)
LIMIT_MS = 20_000


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("Chromium is not installed; type: apt-get install chromium")
    async with async_playwright() as driver:
        shown = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield shown
        finally:
            await shown.close()


@asynccontextmanager
async def phone() -> AsyncIterator[Phone]:
    low = free_block(64)
    one = Phone(PhoneSettings(media_ports=(low, low + 62), ears=False), SpeechSettings())
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def shoot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


async def opened(page: Page, node: Node, complaints: list[str]) -> None:
    """With the key typed in."""
    page.set_default_timeout(LIMIT_MS)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    await page.goto(f"http://127.0.0.1:{node.api_port}/")
    await page.get_by_label("API key").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="no valid key")).to_be_visible(timeout=LIMIT_MS)
    complaints.clear()  # of the 401, which was asked for
    await page.get_by_label("API key").fill(local_key(node.folder)[0])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Live calls")).to_be_visible(timeout=LIMIT_MS)
    await expect(page.get_by_role("status")).to_have_text("live", timeout=LIMIT_MS)


async def test_calls_are_seen_and_steered() -> None:
    complaints: list[str] = []
    callee = Sipp("uas-outbound-answered.xml", timeout_s=90)
    async with callee, Node(dialplan=PLAN) as node, phone() as caller, browser() as shown:
        await _nothing_else_runs(node)
        page = await shown.new_page(viewport={"width": 1200, "height": 900})
        await opened(page, node, complaints)
        await expect(page.get_by_text("No call is up on this node.")).to_be_visible()
        await shoot(page, "empty")

        call = await caller.call(f"sip:desk@{node.target}", from_user="anna")
        assert await call.answered(10)
        await _words_as_they_are_spoken(page, call)
        await shoot(page, "live")

        await page.get_by_role("link", name="anna").click()
        await expect(page.get_by_role("heading", name="anna", exact=True)).to_be_visible(timeout=LIMIT_MS)
        await _is_whole(page)
        await shoot(page, "call")
        await _listened_in(page, callee)
        await _steered_by_keyboard(page, call)
        await _the_record_of_it(page)
        await shoot(page, "ended")
        await _other_pages(page)
        await _on_a_phone_at_night(shown, page, node, complaints)
        assert await page.evaluate("localStorage.length") == 0
        await page.get_by_role("button", name="Forget the key").click()
        await expect(page.get_by_label("API key")).to_be_visible(timeout=LIMIT_MS)
        assert await page.evaluate("sessionStorage.length") == 0
        assert complaints == []
        assert await node.stop() == 0


async def _words_as_they_are_spoken(page: Page, call: PhoneCall) -> None:
    card = page.get_by_role("article")
    await expect(card.get_by_role("link")).to_have_text("anna", timeout=LIMIT_MS)
    await expect(card.locator(".talk .agent .words")).to_contain_text("this is the desk", timeout=LIMIT_MS)
    speech = np.concatenate([prompts(3)[0].pcm, np.zeros(12_000, np.int16)])
    await asyncio.sleep(2.5)  # the agent has said it
    await call.play(speech, 8000)
    await expect(card.locator(".talk .caller .words").first).not_to_be_empty(timeout=LIMIT_MS)
    await expect(card.locator(".talk .agent")).to_have_count(2, timeout=LIMIT_MS)


async def _is_whole(page: Page) -> None:
    await expect(page.locator(".turn svg rect").first).to_be_attached(timeout=LIMIT_MS)
    await expect(page.locator("#part-talk .caller").first).to_be_visible()
    await expect(page.locator(".ladder .arrow").first).to_be_attached(timeout=LIMIT_MS)
    await expect(page.locator("#part-events summary").first).to_be_visible()
    await expect(page.locator("#part-audio figure")).to_have_count(1, timeout=LIMIT_MS)
    arrow = page.locator(".ladder .arrow").first
    await arrow.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("pre.sip")).to_contain_text("INVITE sip:desk@")


async def _listened_in(page: Page, callee: Sipp) -> None:
    await page.get_by_role("button", name="Listen in…").click()
    await page.get_by_label("Your number or SIP URI").fill(callee.uri)
    await page.get_by_role("button", name="Ring").click()
    await expect(page.locator("#part-line tbody tr")).to_have_count(2, timeout=LIMIT_MS)


async def _steered_by_keyboard(page: Page, call: PhoneCall) -> None:
    transfer = page.get_by_role("button", name="Transfer…")
    await transfer.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Number or SIP URI")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Hang up").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("dialog").get_by_role("button", name="Hang up").press("Enter")
    await asyncio.wait_for(asyncio.shield(call.leg.ended), 15)
    await expect(page.locator(".facts")).to_contain_text("operator", timeout=LIMIT_MS)
    await call.hang_up()


async def _the_record_of_it(page: Page) -> None:
    await expect(page.locator("#part-audio .badge")).to_have_text("done", timeout=LIMIT_MS)
    for side in ("caller", "agent"):
        await expect(page.locator(f".wave .{side}")).to_have_attribute("d", re.compile("M.{200}"), timeout=LIMIT_MS)
    audio = page.locator("audio")
    await audio.evaluate("player => { player.preload = 'auto'; player.load(); }")

    async def loaded() -> bool:
        return bool(await audio.evaluate("player => player.duration > 3"))

    await Node.until(loaded, LIMIT_MS / 1000)
    assert await audio.evaluate("player => player.error === null")


async def _other_pages(page: Page) -> None:
    nav = page.get_by_role("navigation")
    await nav.get_by_role("link", name="Calls").click()
    await expect(page.locator("tbody tr")).to_have_count(1, timeout=LIMIT_MS)
    await shoot(page, "calls")
    await nav.get_by_role("link", name="Trunks").click()
    await expect(page.get_by_text("This node has no trunk.")).to_be_visible(timeout=LIMIT_MS)
    await nav.get_by_role("link", name="Reports").click()
    await expect(page.locator(".tile").first).to_contain_text("1", timeout=LIMIT_MS)
    await expect(page.locator(".chart rect").first).to_be_attached(timeout=LIMIT_MS)
    await page.get_by_label("By").select_option("agent")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("tbody tr td").first).to_have_text("desk", timeout=LIMIT_MS)
    await shoot(page, "reports")
    async with page.expect_download(timeout=LIMIT_MS) as download:
        await page.get_by_role("button", name="As CSV").click()
    assert (await download.value).suggested_filename == "report.csv"


async def _on_a_phone_at_night(shown: Browser, page: Page, node: Node, complaints: list[str]) -> None:
    """And with a caller who tries to be a script."""
    async with phone() as another:
        small = await shown.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
        await opened(small, node, complaints)
        call = await another.call(f"sip:desk@{node.target}", from_user="%3Cimg%20src=x%20onerror=alert(1)%3E")
        assert await call.answered(10)
        await expect(small.get_by_role("article")).to_be_visible(timeout=LIMIT_MS)
        await expect(small.locator(".talk .agent .words")).to_contain_text("this is the desk", timeout=LIMIT_MS)
        assert await small.locator("article img").count() == 0
        await shoot(small, "phone-live")
        for name in ("Live", "Calls", "Trunks", "Reports"):
            await small.get_by_role("navigation").get_by_role("link", name=name).click()
            await small.wait_for_timeout(300)
            wide = await small.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} is wider than the screen"
        await small.get_by_role("navigation").get_by_role("link", name="Live").click()
        await small.get_by_role("article").get_by_role("link").click()
        await expect(small.locator(".ladder .arrow").first).to_be_attached(timeout=LIMIT_MS)
        assert await small.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        await shoot(small, "phone-call")
        await call.hang_up()
        await small.close()


async def _nothing_else_runs(node: Node) -> None:
    """Policy, types, and no file outside of the folder."""
    async with node.http.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        assert response.status == 200 and response.content_type == "text/html"
        text = await response.text()
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "<script>" not in text and "http://" not in text and "style=" not in text
    for file in re.findall(r"/dashboard/[\w.]+", text):
        async with node.http.get(file) as response:
            assert response.status == 200, file
    for path in ("/dashboard/%2e%2e/handlers.py", "/dashboard/nothing.js"):
        async with node.http.get(path) as response:
            assert response.status == 404, path


def test_no_file_makes_markup_of_texts() -> None:
    folder = Path(__file__).parents[2] / "sipagent" / "api" / "dashboard" / "assets"
    for file in folder.glob("*.js"):
        code = file.read_text()
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert way not in code, f"{file.name}: {way}"
