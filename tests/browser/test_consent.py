"""The page asks before the microphone is opened, and what was agreed to stays so."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from playwright.async_api import WebSocketRoute, expect

from interview_peer.app import Server
from interview_peer.core.persona import Persona
from interview_peer.types import Json
from tests.network.spoilt import Network
from tests.support import speech
from tests.support.begun import Begun, counting
from tests.support.caller import calling
from tests.support.chromium import Browser, browsing
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.waiting import eventually

TEXT = "This is for Acme.\n\nYour voice is <b>recorded</b>.\n\nAsk Acme."
PERSONA = f'''title = "t"
description = "d"
instructions = "i"
[consent]
version = "7"
text = """{TEXT.replace("Acme", "{organisation}")}"""
'''
LISTENING = """
window.microphones = 0;
const media = navigator.mediaDevices;
const real = media.getUserMedia.bind(media);
media.getUserMedia = (...values) => { window.microphones += 1; return real(...values); };
const Real = WebSocket;
window.sockets = [];
window.WebSocket = class extends Real {
  constructor(...values) { super(...values); window.sockets.push(this); }
};
"""
STAGE = "interviewPeer.state.stage"


@contextlib.asynccontextmanager
async def asking(
    tmp_path: Path, width: int = 1280, **settings: Any
) -> AsyncIterator[tuple[Server, Browser, Begun, Operator]]:
    """A server whose persona `own` has a text of its own, and a browser that counts."""
    personas = tmp_path / "personas"
    personas.mkdir()
    (personas / "own.toml").write_text(PERSONA)
    options: Json = {"personas_dir": personas, "organisation": "Acme", "admin_key": KEY, **settings}
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=60)
    with counting() as begun:
        async with (
            serving(tmp_path / "data", **options) as server,
            calling(server.url) as caller,
            browsing(silence, viewport=(width, 900)) as browser,
        ):
            await browser.page.add_init_script(LISTENING)
            yield server, browser, begun, Operator(caller)


async def press(browser: Browser, name: str) -> None:
    await browser.page.get_by_role("button", name=name, exact=True).click()


async def invited(operator: Operator) -> Json:
    return await operator.make(persona="own", consent="required")


async def test_consent_comes_first_and_outlives_reloads_and_a_lost_network(tmp_path: Path) -> None:
    network = Network(seed=7)
    async with asking(tmp_path, hold_seconds=30) as (server, browser, begun, operator):
        page = browser.page
        await page.route_web_socket(re.compile("/ws"), network.relay)
        made = await invited(operator)
        await page.goto(made["join_url"])
        await press(browser, "Connect")
        consent = page.get_by_role("region", name="Before you begin")
        await expect(consent).to_contain_text("Your voice is <b>recorded</b>.")
        await expect(consent.locator("#consent-text p")).to_have_count(3)
        await expect(page.get_by_role("heading", name="Before you begin")).to_be_focused()
        # A reload while somebody reads loses neither the invitation nor the question.
        await page.reload()
        await press(browser, "Connect")
        await expect(consent).to_contain_text("This is for Acme.")
        assert await browser.ask("microphones") == 0
        assert begun.nothing
        # Its heading has the focus: what comes next is the choice.
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="I agree, begin")).to_be_focused()
        await page.keyboard.press("Enter")
        await browser.until(f"{STAGE} === 'live'")
        await expect(consent).to_be_hidden()
        assert (begun.legs, begun.calls) == (2, 1)
        assert await browser.ask("interviewPeer.state.sessionId") == made["id"]
        assert made["join_token"] not in await browser.ask("Object.values(sessionStorage).join()")

        await page.reload()
        await browser.until(f"{STAGE} === 'live'")
        await expect(consent).to_be_hidden()

        # Gone without a word, and back by the browser's word that there is a network again.
        network.leave(with_signalling=True)
        await page.context.set_offline(True)
        await page.context.set_offline(False)
        await browser.until(f"{STAGE} === 'reconnecting'")
        await browser.until(f"{STAGE} === 'live'")
        assert await browser.ask("interviewPeer.state.sessionId") == made["id"]
        assert begun.calls == 1
        await press(browser, "Disconnect")
        await browser.until(f"{STAGE} === 'ended'")
        assert "consent_required" not in await browser.ask("interviewPeer.log.join()")

        async def finished() -> str:
            answer = await operator.ask("GET", f"{PATH}/{made['id']}/recording")
            return str(answer.json().get("state"))

        await eventually(finished, within=20, what="ready", good=lambda state: state == "ready")
        await page.goto(f"{server.url}/static/review.html?id={made['id']}")
        await page.get_by_label("Operator's key").fill(KEY)
        await page.keyboard.press("Enter")
        told = page.locator("#consent")
        await expect(told).to_contain_text("The candidate agreed to being recorded on")
        await expect(told).to_contain_text("text version 7.")
    await network.close()


async def test_who_does_not_agree_is_let_go_politely_and_nothing_is_kept(tmp_path: Path) -> None:
    async with asking(tmp_path, width=360) as (server, browser, begun, operator):
        page = browser.page
        made = await invited(operator)
        await page.goto(made["join_url"])
        await press(browser, "Connect")
        await browser.until("interviewPeer.state.consent !== null")
        assert await browser.ask("document.documentElement.scrollWidth") <= 360
        # Leaving without a decision decides nothing.
        await press(browser, "Disconnect")
        await browser.until(f"{STAGE} === 'idle'")
        assert (await operator.show(made))["phase"] == "consent"
        await press(browser, "Connect")
        await press(browser, "I do not agree")
        await browser.until(f"{STAGE} === 'ended'")
        farewell = page.get_by_role("region", name="The interview does not take place")
        await expect(farewell).to_contain_text("Nothing was recorded")
        await expect(page.get_by_role("button", name="I agree, begin")).to_be_hidden()
        assert await browser.ask("interviewPeer.state.failure") is None
        assert await browser.ask("microphones") == 0
        assert begun.nothing
        await server.state.chronicle.drained()
        shown = await operator.show(made)
        assert (shown["phase"], shown["reason"], shown["files"]) == ("ended", "consent_refused", [])
        kept = [one for one in (tmp_path / "data").rglob("*") if made["id"] in one.name]
        assert kept == []
        # Once more tells that it is over.
        await press(browser, "Connect")
        await browser.until("interviewPeer.state.failure?.code === 'SESSION_ENDED'")
        assert begun.nothing


async def test_a_socket_that_drops_and_a_text_that_changes_while_somebody_reads(
    tmp_path: Path,
) -> None:
    """The operator asks everybody here: those without an invitation choose their interviewer."""
    async with asking(tmp_path, require_consent="true") as (server, browser, begun, _):
        page = browser.page
        await page.goto(server.url)
        await page.get_by_label("Interviewer", exact=True).select_option("own")
        await press(browser, "Connect")
        await browser.until("interviewPeer.state.consent?.version === '7'")
        await browser.ask("sockets.at(-1).close()")
        await browser.until("sockets.at(-1).readyState === WebSocket.CLOSED")
        server.interviews.personas._personas["own"] = _other(server)
        await press(browser, "I agree, begin")
        # The server had another text by then: that one is to be read.
        await browser.until("interviewPeer.state.consent?.version === '8'")
        await expect(page.locator("#consent-text")).to_have_text("Another text.")
        await expect(page.get_by_text("The text has changed since you read it.")).to_be_visible()
        assert begun.nothing
        await press(browser, "I agree, begin")
        await browser.until(f"{STAGE} === 'live'")
        assert await browser.ask("microphones") == 1
        session_id = await browser.ask("interviewPeer.state.sessionId")
        interview = server.interviews.find(session_id)
        assert interview.consent is not None and interview.consent.version == "8"
        journal = tmp_path / "data" / "interviews" / session_id / "events.jsonl"

        async def first() -> Any:
            text = journal.read_text() if journal.exists() else ""
            return json.loads(text.partition("\n")[0]) if "\n" in text else None

        line: Json = await eventually(first, within=5, what="the first line")
        assert line["event"]["consent"] == interview.consent.told()


async def test_an_answer_on_its_way_is_shown_sent_once_more_and_told_if_it_is_lost(
    tmp_path: Path,
) -> None:
    taken: list[WebSocketRoute] = []
    let_through = False

    def relay(socket: WebSocketRoute) -> None:
        """Hands everything on but the decision, until that is let through."""
        server = socket.connect_to_server()

        def hand_on(message: str | bytes) -> None:
            if json.loads(message)["type"] != "consent" or let_through:
                server.send(message)
            else:
                taken.append(socket)

        socket.on_message(hand_on)

    async def lost(count: int) -> None:
        async def look() -> int:
            return len(taken)

        await eventually(look, within=5, what="a decision", good=lambda found: found == count)

    async with asking(tmp_path) as (_, browser, begun, operator):
        page = browser.page
        await page.route_web_socket(re.compile("/ws"), relay)
        made = await invited(operator)
        await page.goto(made["join_url"])
        await press(browser, "Connect")
        agree = page.get_by_role("button", name="I agree, begin")
        decline = page.get_by_role("button", name="I do not agree")
        sending = page.get_by_text("Sending your answer…")
        await expect(agree).to_be_enabled()
        await expect(sending).to_have_count(0)
        await agree.click()
        await expect(sending).to_be_visible()
        await expect(agree).to_be_disabled()
        await expect(decline).to_be_disabled()
        await decline.dispatch_event("click")
        await lost(1)
        # The connection drops: the answer is sent by another one, and lost there too.
        await taken[0].close()
        await lost(2)
        await expect(sending).to_be_visible()
        await taken[1].close()
        await browser.until("interviewPeer.state.failure?.code === 'DECISION_LOST'")
        await expect(page.get_by_role("alert")).to_contain_text("you are asked once more")
        assert len(taken) == 2 and begun.nothing
        assert (await operator.show(made))["phase"] == "consent"
        # Nothing is used up; and what drops once is not noticed.
        await press(browser, "Connect")
        await expect(agree).to_be_enabled()
        await agree.click()
        await lost(3)
        let_through = True
        await taken[2].close()
        await browser.until(f"{STAGE} === 'live'")


async def test_a_server_that_is_emptied_tells_who_reads_and_the_invitation_stays_good(
    tmp_path: Path,
) -> None:
    async with asking(tmp_path) as (server, browser, begun, operator):
        page = browser.page
        made = await invited(operator)
        await page.goto(made["join_url"])
        await press(browser, "Connect")
        await expect(page.get_by_role("button", name="I agree, begin")).to_be_visible()
        assert (await operator.ask("POST", "/api/drain")).status == 202
        alert = page.get_by_role("alert")
        told = "This server is about to restart. Please try again in a few minutes."
        await expect(alert).to_contain_text(told)
        await expect(page.get_by_role("region", name="Before you begin")).to_be_hidden()
        # Again it says the same, and asks nothing that would be in vain.
        await press(browser, "Connect")
        await browser.until(f"{STAGE} === 'failed'")
        await expect(alert).to_contain_text(told)
        assert await browser.ask("microphones") == 0
        assert begun.nothing
        assert (await operator.show(made))["phase"] == "consent"
        assert server.drain.over.is_set() is False


async def test_who_was_answered_by_a_server_that_ends_shows_the_invitation_again(
    tmp_path: Path,
) -> None:
    shown: list[str] = []

    def sent(frame: str | bytes) -> None:
        message = json.loads(frame)
        if message["type"] == "init":
            shown.append(message["token"])

    async with asking(tmp_path) as (server, browser, _, operator):
        page = browser.page
        page.on("websocket", lambda socket: socket.on("framesent", sent))
        # It gets the answer, and a token for coming back with it, and never connects.
        await page.add_init_script(
            "RTCPeerConnection.prototype.setRemoteDescription = async () => {};"
        )
        made = await operator.make(consent="given")
        await page.goto(made["join_url"])
        await press(browser, "Connect")
        await browser.until("interviewPeer.state.sessionId !== null")
        interview = server.interviews.find(made["id"])

        async def answered() -> float:
            return interview.seconds

        await eventually(answered, within=10, what="an answer", good=lambda seconds: seconds > 0)
        reply = await operator.ask("POST", "/api/drain", json={"seconds": 0})
        assert reply.status == 202
        await browser.until("interviewPeer.state.failure?.code === 'DRAINING'")
        count = len(shown)
        await press(browser, "Connect")
        await browser.until(f"{STAGE} === 'failed'")
        assert len(shown) > count and set(shown) == {made["join_token"]}


def _other(server: Server) -> Persona:
    own = server.interviews.personas.find("own")
    return dataclasses.replace(own, consent_text="Another text.", consent_version="8")
