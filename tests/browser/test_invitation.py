"""The page at the link of an invitation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import speech
from tests.support.caller import calling
from tests.support.chromium import browsing
from tests.support.operator import KEY, Operator
from tests.support.server import ServerProcess, running_server

SHOWN = (
    "document.documentElement.outerHTML + location.href"
    " + JSON.stringify([history.state, interviewPeer.state, interviewPeer.log])"
)


@pytest.fixture
async def inviting(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path, INTERVIEW_ADMIN_KEY=KEY) as server:
        yield server


async def test_the_link_leads_into_its_interview_and_leaves_no_token_behind(
    inviting: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with calling(inviting.url) as caller, browsing(silence) as browser:
        operator = Operator(caller)
        made = await operator.make(persona="engineer")
        asked: list[str] = []
        browser.page.on("request", lambda request: asked.append(request.url))
        await browser.page.goto(made["join_url"])
        await browser.until("location.hash === ''")
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")

        assert await browser.ask("interviewPeer.state.sessionId") == made["id"]
        assert await browser.ask("location.pathname") == f"/i/{made['id']}"
        token = made["join_token"]
        shown = await browser.ask(SHOWN)
        assert token not in str(shown)
        assert not [url for url in asked if token in url.partition("#")[0]]
        assert not [line for line in inviting.lines if token in line]

        # The link was good for one start; coming back is the page's own business.
        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'live'")
        assert await browser.ask("interviewPeer.state.sessionId") == made["id"]
        await browser.page.get_by_role("button", name="Disconnect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'ended'")


async def test_a_used_or_incomplete_link_is_told_in_a_sentence(
    inviting: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=20)
    async with calling(inviting.url) as caller, browsing(silence) as browser:
        made = await Operator(caller).make()
        await browser.page.goto(made["join_url"].partition("#")[0])
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.failure?.code === 'TOKEN_REQUIRED'")

        await caller.open_bare()
        await caller.send({"type": "init", "token": made["join_token"]})
        await caller.connect()
        await browser.page.goto("about:blank")
        await browser.page.goto(made["join_url"])
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.failure?.code === 'TOKEN_USED'")
