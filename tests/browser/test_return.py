"""A browser that goes away, with and without coming back."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from playwright.async_api import WebSocketRoute

from interview_peer.core.lifecycle import Reason
from tests.support import speech
from tests.support.chromium import browsing
from tests.support.inprocess import serving
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

SERVICE_RESTART = 1012
NOTICED_WITHIN = 5.0
"""Seconds from the death of the browser to the phase `detached`."""

HOLD = 1.0
ENDING = 3.0
"""Seconds that hanging up and closing the files may take on a busy machine."""


async def test_a_killed_browser_is_noticed_and_its_model_leg_let_go(tmp_path: Path) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=30)
    async with running_server(tmp_path, INTERVIEW_HOLD_SECONDS=str(HOLD)) as server:
        async with browsing(silence, may_die=True) as browser:
            await browser.page.goto(server.url)
            await browser.page.get_by_role("button", name="Connect", exact=True).click()
            await browser.until("interviewPeer.state.phase === 'live'")
            session_id = await browser.ask("interviewPeer.state.sessionId")

            browser.kill()
            killed = time.monotonic()

            async def phase() -> str:
                return await server.phase(session_id)

            await eventually(
                phase, within=NOTICED_WITHIN, what="detached", good=lambda now: now == "detached"
            )
            noticed = time.monotonic() - killed
            await eventually(
                phase, within=HOLD + ENDING, what="ended", good=lambda now: now == "ended"
            )
            assert time.monotonic() - killed > noticed + HOLD * 0.9, "the hold was not kept"
        _, record = await server.get(f"/api/sessions/{session_id}")
        assert record.get("reason") == "browser_gone"
        assert (server.folder(session_id) / "transcript.json").is_file()


async def test_a_reload_continues_the_same_interview(server: ServerProcess, tmp_path: Path) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with browsing(silence) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")

        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'live'")

        assert await browser.ask("interviewPeer.state.sessionId") == session_id
        assert await server.phase(session_id) == "live"
        await browser.page.get_by_role("button", name="Disconnect").click()
        await browser.until("interviewPeer.state.phase === 'ended'")
        # What was ended on purpose is not continued.
        await browser.page.reload()
        await browser.until(
            "document.readyState === 'complete' && window.interviewPeer !== undefined"
        )
        assert await browser.ask("interviewPeer.state.stage") == "idle"


async def test_a_reload_continues_while_the_server_is_emptied(tmp_path: Path) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with serving(tmp_path / "data") as server, browsing(silence) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        server.drain.begin(600)
        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'live'")
        assert await browser.ask("interviewPeer.state.sessionId") == session_id
        # Nor does it matter to one whose connection is lost.
        await browser.ask("interviewPeer.peerConnection.close()")
        await browser.until("interviewPeer.state.stage === 'reconnecting'")
        await browser.until("interviewPeer.state.stage === 'live'")
        assert server.interviews.running == 1


async def test_a_reload_that_cannot_connect_leaves_the_next_one_its_chance(
    server: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with browsing(silence) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        refused = asyncio.Event()

        async def refuse_the_first(socket: WebSocketRoute) -> None:
            if refused.is_set():
                socket.connect_to_server()
            else:
                refused.set()
                await socket.close(code=1013)

        await browser.page.route_web_socket(re.compile("/ws"), refuse_the_first)
        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'failed'")
        assert refused.is_set()

        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'live'")
        assert await browser.ask("interviewPeer.state.sessionId") == session_id


@pytest.mark.parametrize(("hold", "away", "continues"), [(60, 30, True), (4, 8, False)])
async def test_a_reload_continues_for_as_long_as_the_server_holds_the_interview(
    tmp_path: Path, hold: int, away: int, continues: bool
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with (
        running_server(tmp_path, INTERVIEW_HOLD_SECONDS=str(hold)) as server,
        browsing(silence) as browser,
    ):
        # The reload takes as long as the page's clock says.
        await browser.page.add_init_script(
            "if (sessionStorage.getItem('away')) {"
            " const now = Date.now, away = Number(sessionStorage.getItem('away'));"
            " Date.now = () => now() + away * 1000; }"
        )
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        await browser.ask(f"sessionStorage.setItem('away', '{away}')")

        await browser.page.reload()
        if continues:
            await browser.until("interviewPeer.state.stage === 'live'")
            assert await browser.ask("interviewPeer.state.sessionId") == session_id
        else:
            await browser.until("interviewPeer.state.personas.length > 0")
            assert await browser.ask("interviewPeer.state.stage") == "idle"


async def test_the_call_goes_on_when_only_the_socket_drops(
    server: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with browsing(silence) as browser:
        await browser.page.add_init_script(
            "const Real = WebSocket; window.sockets = [];"
            "window.WebSocket = class extends Real {"
            "  constructor(...values) { super(...values); window.sockets.push(this); } };"
        )
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")

        await browser.ask("sockets[0].close()")
        await browser.until("interviewPeer.log.some((line) => line.text.includes('goes on'))")
        # The interviewer goes on speaking, and the page goes on hearing it.
        await browser.until(
            "captured.events.some((event) => event.type === 'output_audio_buffer.stopped')"
        )
        assert await browser.ask("interviewPeer.state.stage") == "live"
        assert await server.phase(session_id) == "live"

        # Disconnect still ends it at once, not after the hold.
        await browser.page.get_by_role("button", name="Disconnect").click()
        await eventually(
            lambda: server.phase(session_id), within=4, what="ended", good=lambda p: p == "ended"
        )


async def test_a_socket_whose_server_ends_is_opened_again_and_nothing_is_lost_or_said(
    tmp_path: Path,
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    sockets: list[WebSocketRoute] = []
    ending = asyncio.Event()

    async def lead(socket: WebSocketRoute) -> None:
        """As another server does that passes sockets on, and ends while the page is on its way."""
        if ending.is_set():
            ending.clear()
            await socket.close(code=SERVICE_RESTART)
        else:
            sockets.append(socket)
            socket.connect_to_server()

    async with serving(tmp_path / "data") as server, browsing(silence) as browser:
        await browser.page.route_web_socket(re.compile("/ws"), lead)
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.phase === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        ending.set()
        await browser.page.reload()
        await browser.until("interviewPeer.state.stage === 'live'")
        assert not ending.is_set()
        assert await browser.ask("interviewPeer.state.failure") is None

        ending.set()
        await sockets[-1].close(code=SERVICE_RESTART)
        interview = server.interviews.find(session_id)
        await browser.until("interviewPeer.log.some((line) => line.text.includes('goes on'))")

        async def listens() -> bool:
            return len(sockets) == 3 and interview.watched

        await eventually(listens, within=10, what="a socket again")
        assert await browser.ask("interviewPeer.state.sessionId") == session_id
        assert await browser.ask("interviewPeer.state.failure") is None
        # What only the socket tells reaches the page again.
        interview.end_soon(Reason.INTERVIEWER_ENDED)
        await browser.until("interviewPeer.state.stage === 'ended'")
        assert "said goodbye" in await browser.ask("interviewPeer.state.notice")
        assert await browser.ask("interviewPeer.state.failure") is None
