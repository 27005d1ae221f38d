"""Every failure a person can meet is one sentence with a next step, in the alert region."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest

from interview_peer.core.lifecycle import Reason
from tests.support import speech
from tests.support.chromium import Browser, browsing
from tests.support.inprocess import serving
from tests.support.server import ServerProcess, running_server, running_simulator


async def _alert(browser: Browser, code: str, *parts: str) -> None:
    """The alert names the failure: its sentence, and what to do next."""
    await browser.until(f"interviewPeer.state.failure?.code === {code!r}", within=30)
    said = await browser.page.get_by_role("alert").inner_text()
    for part in parts:
        assert part in said
    await browser.until("interviewPeer.state.stage === 'failed'", within=10)
    # The way is free for another try, by keyboard too.
    assert await browser.page.get_by_role("button", name="Connect", exact=True).is_enabled()
    assert await browser.ask("document.activeElement.id") == "connect"


@pytest.fixture
def silence(tmp_path: Path) -> Path:
    return speech.write_wav(tmp_path / "silence.wav", [], tail=30)


async def test_a_denied_microphone_is_said_with_the_way_to_allow_it(server: ServerProcess) -> None:
    async with browsing(None, grant=False) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await _alert(
            browser,
            "MICROPHONE_DENIED",
            "may not use your microphone",
            "Allow the microphone for this page",
        )
        assert await browser.ask("interviewPeer.state.sessionId") is None


async def test_an_insecure_address_is_said_and_nothing_is_asked_for(
    server: ServerProcess,
) -> None:
    async with browsing(None) as browser:
        # Loopback counts as secure, so the browser says of it what it says of any other address.
        await browser.page.add_init_script(
            "Object.defineProperty(globalThis, 'isSecureContext', { value: false });"
            "globalThis.asked = 0; const media = navigator.mediaDevices;"
            "const before = media.getUserMedia.bind(media);"
            "media.getUserMedia = (wanted) => { globalThis.asked += 1; return before(wanted); };"
        )
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await _alert(browser, "INSECURE_ORIGIN", "https")
        assert await browser.ask("globalThis.asked") == 0
        assert await browser.ask("interviewPeer.state.sessionId") is None


async def test_a_missing_microphone_is_said(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        await browser.page.add_init_script(
            "navigator.mediaDevices.getUserMedia = async () => {"
            " throw new DOMException('Requested device not found', 'NotFoundError'); };"
        )
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await _alert(browser, "NO_MICROPHONE", "No microphone was found", "press Connect")


async def test_an_unreachable_server_is_said(server: ServerProcess, silence: Path) -> None:
    with socket.socket() as taken:
        # Bound but not listening: connections are refused, and nobody else can take the port.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with browsing(silence) as browser:
            await browser.page.goto(server.url)
            await browser.page.get_by_label("Server URL").fill(f"ws://127.0.0.1:{port}/ws")
            await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
            await _alert(
                browser, "SERVER_UNREACHABLE", "could not be reached", "Check the server URL"
            )


async def test_an_address_that_is_none_is_said(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_label("Server URL").fill("not an address")
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await browser.until("interviewPeer.state.failure?.code === 'BAD_ADDRESS'")
        assert "wss://" in await browser.page.get_by_role("alert").inner_text()


async def test_a_refusal_of_the_model_is_said_and_names_no_key(
    tmp_path: Path, silence: Path
) -> None:
    async with (
        running_simulator(tmp_path / "simulator", key="sk-the-right-key") as simulator,
        running_server(
            tmp_path / "server",
            SIMULATION_MODE="false",
            OPENAI_API_KEY="sk-the-wrong-key",
            OPENAI_BASE_URL=simulator.url,
        ) as server,
        browsing(silence) as browser,
    ):
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await _alert(
            browser,
            "UPSTREAM_AUTH_FAILED",
            "refused this server's credentials",
            "tell whoever runs this server",
        )
        assert "sk-the" not in await browser.page.content()


async def test_a_model_that_goes_away_is_said(tmp_path: Path, silence: Path) -> None:
    key = "sk-the-right-key"
    async with contextlib.AsyncExitStack() as stack:
        calls = await stack.enter_async_context(contextlib.AsyncExitStack())
        simulator = await calls.enter_async_context(
            running_simulator(tmp_path / "simulator", key=key)
        )
        server = await stack.enter_async_context(
            running_server(
                tmp_path / "server",
                SIMULATION_MODE="false",
                OPENAI_API_KEY=key,
                OPENAI_BASE_URL=simulator.url,
            )
        )
        browser = await stack.enter_async_context(browsing(silence))
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await browser.until("interviewPeer.state.phase === 'live'")
        await calls.aclose()
        await _alert(browser, "MODEL_CLOSED", "Press Connect")


async def test_an_end_that_is_near_is_said_beside_who_speaks(tmp_path: Path, silence: Path) -> None:
    async with serving(tmp_path) as server, browsing(silence) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
        await browser.until("interviewPeer.state.stage === 'live'")
        await browser.until("interviewPeer.state.speaking === 'interviewer'", within=20)
        interview = server.interviews.find(await browser.ask("interviewPeer.state.sessionId"))
        interview.max_seconds = 3000.0
        interview.keep_limits(time.monotonic() - interview.seconds + 2900.0)
        await browser.until("interviewPeer.state.notice !== null")
        said = await browser.page.locator("#status-detail").inner_text()
        assert re.fullmatch(
            r"The interviewer is speaking\. The interview will end at about \d+:\d\d\s?([AP]M)?\.",
            said,
        ), said
        interview.end_soon(Reason.TIME_LIMIT)
        await browser.until("interviewPeer.state.stage === 'ended'", within=20)
        said = await browser.page.locator("#status-detail").inner_text()
        assert said == "The interview has ended: its time was over."


async def test_a_server_that_stops_is_said(tmp_path: Path, silence: Path) -> None:
    async with browsing(silence) as browser:
        async with running_server(tmp_path) as server:
            await browser.page.goto(server.url)
            await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
            await browser.until("interviewPeer.state.stage === 'live'")
        await browser.until("interviewPeer.state.stage === 'ended'", within=20)
        said = await browser.page.locator("#status-detail").inner_text()
        assert said == "The interview has ended: the server is being stopped."


async def test_a_killed_server_is_said_after_trying_to_continue(
    tmp_path: Path, silence: Path
) -> None:
    async with browsing(silence) as browser:
        with pytest.raises(AssertionError, match="exit code -9"):
            async with running_server(tmp_path) as server:
                await browser.page.goto(server.url)
                await browser.page.get_by_role("button", name="Connect", exact=True).press("Enter")
                await browser.until("interviewPeer.state.stage === 'live'")
                server.process.kill()
                await server.process.wait()
        await browser.until("interviewPeer.state.stage === 'reconnecting'", within=20)
        await _alert(browser, "CONNECTION_LOST", "was lost", "start a new interview")
