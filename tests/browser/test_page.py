"""The page by keyboard, by screen reader and on a narrow screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import speech
from tests.support.chromium import Browser, browsing
from tests.support.server import ServerProcess

CONTROLS = "a[href], button, input, select, textarea, [tabindex='0']"


async def _tab_order(browser: Browser) -> list[str]:
    """What the Tab key reaches from the top of the page, by id or address, once around."""
    await browser.ask("document.querySelector('.skip').focus()")
    reached = ["#transcript-heading"]
    for _ in range(30):
        await browser.page.keyboard.press("Tab")
        name = await browser.ask(
            "(() => { const at = document.activeElement;"
            " return at === document.body ? '' : at.id || at.getAttribute('href'); })()"
        )
        if not name or name in reached:
            break
        reached.append(name)
    return reached


async def _usable(browser: Browser) -> list[str]:
    """The controls that are shown and enabled, in document order."""
    names: list[str] = await browser.ask(
        f"[...document.querySelectorAll({CONTROLS!r})].filter("
        "(one) => !one.disabled && one.checkVisibility())"
        ".map((one) => one.id || one.getAttribute('href'))"
    )
    return names


async def test_every_control_has_a_name_and_is_reached_by_tab(
    server: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=30)
    async with browsing(silence) as browser:
        page = browser.page
        await page.goto(server.url)
        await browser.until("interviewPeer.state.personas.length > 0")
        for name in ("Connect", "Disconnect", "Send Test Message"):
            assert await page.get_by_role("button", name=name, exact=True).count() == 1
        assert await page.get_by_role("textbox", name="Server URL").count() == 1
        assert await page.get_by_role("combobox", name="Interviewer").count() == 1
        assert await page.get_by_role("meter", name="Microphone level").count() == 1
        assert await page.get_by_role("log", name="Log").count() == 1
        # Two of one name could not be told apart, and the log's region is no log's child.
        regions = re.findall(r"- region \"(.+?)\"", await page.locator("body").aria_snapshot())
        assert sorted(regions) == ["Connection", "Log", "Transcript"]
        assert await page.get_by_role("group", name="Turns").count() == 1
        assert await page.locator("#transcript").get_attribute("aria-live") == "polite"
        snapshot = await page.locator("body").aria_snapshot()
        nameless = [
            line
            for line in snapshot.splitlines()
            if line.strip().rstrip(":") in ("- button", "- textbox", "- combobox", "- link")
        ]
        assert nameless == []

        assert await page.get_by_role("button", name="Disconnect").is_disabled()
        assert await page.get_by_role("button", name="Send Test Message").is_disabled()
        assert await _tab_order(browser) == await _usable(browser)

        # A whole call by keyboard alone.
        await page.get_by_role("button", name="Connect", exact=True).focus()
        await page.keyboard.press("Enter")
        await browser.until("interviewPeer.state.channelOpen")
        assert await browser.ask("document.activeElement.id") == "disconnect"
        assert await _tab_order(browser) == await _usable(browser)
        await page.get_by_role("button", name="Send Test Message").focus()
        await page.keyboard.press("Space")
        await browser.until(
            "interviewPeer.log.some((line) => line.text === 'Sent response.create.')"
        )
        await page.get_by_role("button", name="Disconnect").focus()
        await page.keyboard.press("Enter")
        await browser.until("interviewPeer.state.stage === 'ended'")
        assert await browser.ask("document.activeElement.id") == "connect"


@pytest.mark.parametrize("width", [320, 360])
async def test_a_phone_needs_no_sideways_scrolling(
    server: ServerProcess, tmp_path: Path, width: int
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=30)
    async with browsing(silence, viewport=(width, 640)) as browser:
        await browser.page.goto(server.url)
        wide = "document.documentElement.scrollWidth"
        assert await browser.ask(wide) <= width
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.transcript.some((turn) => turn.text.length > 20)")
        assert await browser.ask(wide) <= width
        small = await browser.ask(
            "[...document.querySelectorAll('button, input, select')].filter("
            "(one) => one.checkVisibility() && one.getBoundingClientRect().height < 44)"
            ".map((one) => one.id)"
        )
        assert small == [], "too small for a finger"


async def test_words_from_elsewhere_are_shown_as_text(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        odd = "<img src=x onerror=alert(1)>"
        await browser.page.route(
            "**/api/personas",
            lambda route: route.fulfill(
                json={
                    "personas": [{"name": "odd", "title": odd, "description": odd, "voice": "x"}],
                    "default": "odd",
                }
            ),
        )
        await browser.page.goto(server.url)
        await browser.until("interviewPeer.state.persona === 'odd'")
        assert await browser.page.locator("#persona-hint").inner_text() == odd
        assert await browser.page.locator("img").count() == 0


async def test_the_page_obeys_a_strict_content_security_policy(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        response = await browser.page.goto(server.url)
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        source = await response.text()
        assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", source) == []
        # `browsing` fails the test if Chromium had to hold anything back.
        await browser.until("interviewPeer.state.personas.length > 0")
