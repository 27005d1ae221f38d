"""A browser that has no way but a relay: a real coturn, over UDP, TCP and TLS."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.turn import for_browser, read_servers
from tests.support import audio, speech
from tests.support.chromium import Browser, browsing
from tests.support.coturn import Relay, relaying
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

from . import dialogue

SECRET = "shared-between-both-of-them"
MEDIA_HOST = "127.0.0.2"
"""Where the server's media port is: not where anything else of the test is."""

TRUSTING = ("--ignore-certificate-errors",)
"""The relay's certificate is made for the test; a person's browser would not take it."""

SELECTED = """(async () => {
  const stats = await interviewPeer.peerConnection.getStats();
  const all = [...stats.values()];
  const { selectedCandidatePairId } = all.find((one) => one.type === "transport");
  const pair = stats.get(selectedCandidatePairId);
  const { candidateType, relayProtocol } = stats.get(pair.localCandidateId);
  return { candidateType, relayProtocol, remote: stats.get(pair.remoteCandidateId).address };
})()"""

LOGGED = "interviewPeer.log.map((line) => line.text)"


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with relaying(tmp_path / "relay", SECRET, MEDIA_HOST) as relay:
        yield relay


@pytest.fixture
def silence(tmp_path: Path) -> Path:
    return speech.write_wav(tmp_path / "silence.wav", [], tail=40)


def served(folder: Path, *urls: str, secret: str = SECRET, **settings: str) -> Any:
    """A server that tells browsers of the relay at ``urls``, logging all it can."""
    return running_server(
        folder / "server",
        INTERVIEW_UDP_HOST=MEDIA_HOST,
        INTERVIEW_ICE_SERVERS=",".join(urls),
        INTERVIEW_TURN_SECRET=secret,
        LOG_LEVEL="debug",
        **settings,
    )


async def connect(browser: Browser, url: str) -> None:
    await browser.page.goto(f"{url}/?relay=1")
    await browser.page.get_by_role("button", name="Connect", exact=True).click()


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_the_interviewer_is_heard_through_the_relay(
    relay: Relay, tmp_path: Path, silence: Path, transport: str
) -> None:
    url = str(getattr(relay, transport))
    greeting = dialogue.spoken(dialogue.GREETING)
    async with served(tmp_path, url) as server, browsing(silence, flags=TRUSTING) as browser:
        greetings: list[str] = []
        answers: list[Any] = []
        browser.page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda text: greetings.append(str(text))),
        )
        browser.page.on("response", lambda answer: answers.append(answer))
        await connect(browser, server.url)
        await browser.until("interviewPeer.state.stage === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        await _hears(browser, greeting)
        selected = await browser.ask(SELECTED)
        logged = await browser.ask(LOGGED)
        (answer,) = [one for one in answers if one.url.endswith("/api/ice-servers")]
        told = (await answer.json())["iceServers"]
        await browser.page.get_by_role("button", name="Disconnect").click()
        await browser.until("interviewPeer.state.phase === 'ended'")

    assert selected == {
        "candidateType": "relay",
        "relayProtocol": transport,
        "remote": MEDIA_HOST,
    }
    recorded = await asyncio.to_thread(audio.decode, server.folder(session_id) / "interviewer.ogg")
    assert audio.find(greeting, recorded).score > audio.SAME
    assert "Audio may go through a relay alone, because of ?relay=1." in logged

    assert [one["urls"] for one in told] == [[url]]
    label = told[0]["username"].partition(":")[2]
    assert any('"session"' in text for text in greetings)
    said = "\n".join([*greetings, *logged, *server.lines])
    for private in (SECRET, label, told[0]["credential"]):
        assert private not in said


async def _hears(browser: Browser, sound: audio.Samples) -> None:
    """Wait until the page has played the sound to its end."""

    async def score() -> float:
        return audio.find(sound, (await browser.heard("remote")).samples).score

    await browser.until(
        "captured.events.some((event) => event.type === 'output_audio_buffer.stopped')", within=20
    )
    await eventually(
        score, within=10, what="the sound is heard", good=lambda found: found > audio.SAME
    )


async def test_a_wrong_secret_gets_no_relay_and_the_page_says_so(
    relay: Relay, tmp_path: Path, silence: Path
) -> None:
    async with (
        served(
            tmp_path, relay.udp, secret="not-what-the-relay-holds", INTERVIEW_CONNECT_SECONDS="4"
        ) as server,
        browsing(silence) as browser,
    ):
        await connect(browser, server.url)
        await _is_refused(browser, relay, relay.udp, 401)


async def test_an_expired_credential_gets_no_relay_and_the_page_says_so(
    relay: Relay, tmp_path: Path, silence: Path
) -> None:
    async with (
        served(tmp_path, relay.udp, INTERVIEW_CONNECT_SECONDS="4") as server,
        browsing(silence) as browser,
    ):
        expired = for_browser(read_servers(relay.udp), SECRET, 600, time.time() - 660, "late")
        await browser.page.route(
            "**/api/ice-servers",
            lambda route: route.fulfill(
                json={"iceServers": expired, "iceTransportPolicy": "all", "ttl": 600}
            ),
        )
        await connect(browser, server.url)
        await _is_refused(browser, relay, relay.udp, 401)


async def test_a_relay_with_a_certificate_that_nobody_trusts_is_not_used(
    relay: Relay, tmp_path: Path, silence: Path
) -> None:
    async with (
        served(tmp_path, relay.tls, INTERVIEW_CONNECT_SECONDS="4") as server,
        browsing(silence) as browser,
    ):
        await connect(browser, server.url)
        await _is_refused(browser, relay, relay.tls, 701)


async def _is_refused(browser: Browser, relay: Relay, url: str, code: int) -> None:
    await browser.until(f"{LOGGED}.some((text) => text.includes('{url}'))")
    told = [text for text in await browser.ask(LOGGED) if url in text]
    assert "could not be used" in told[0] and f"({code})" in told[0], told
    await browser.until("interviewPeer.state.stage === 'failed'", within=30)
    alert = await browser.page.get_by_role("alert").inner_text()
    assert "connection could not be made in time" in alert, alert
    assert not any("ALLOCATE processed, success" in line for line in relay.lines), relay.tail()


async def test_the_relay_reaches_the_server_and_nothing_else(tmp_path: Path, silence: Path) -> None:
    async with (
        relaying(tmp_path / "relay", SECRET, allowed_peer="127.0.0.3") as relay,
        served(tmp_path, relay.udp, INTERVIEW_CONNECT_SECONDS="4") as server,
        browsing(silence) as browser,
    ):
        await connect(browser, server.url)

        async def refusals() -> list[str]:
            return [line for line in relay.lines if "error 403" in line]

        await eventually(refusals, within=15, what="coturn forbids the peer")
        await browser.until("interviewPeer.state.stage === 'failed'", within=30)
        assert any("ALLOCATE processed, success" in line for line in relay.lines), relay.tail()
        assert not await browser.ask("captured.events.length")


async def test_without_an_answer_about_relays_the_interview_goes_on(
    server: ServerProcess, silence: Path
) -> None:
    async with browsing(silence) as browser:
        # Never answered: the page's own limit must end the wait.
        await browser.page.route("**/api/ice-servers", lambda route: None)
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")
        logged = await browser.ask(LOGGED)
        assert any(text.startswith("The server named no relays") for text in logged), logged
        assert (await browser.ask(SELECTED))["candidateType"] != "relay"


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        json.dumps({"iceServers": [{"urls": "turn:relay.example.org"}]}),
        json.dumps({"iceServers": "none"}),
    ],
)
async def test_relays_that_the_browser_refuses_are_left_out(
    server: ServerProcess, silence: Path, body: str
) -> None:
    async with browsing(silence) as browser:
        await browser.page.route(
            "**/api/ice-servers",
            lambda route: route.fulfill(body=body, content_type="application/json"),
        )
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")
        logged = await browser.ask(LOGGED)
        assert any(text.startswith("The server named no relays") for text in logged), logged
