"""A front end written for the older signalling and the beta's events works unchanged."""

from __future__ import annotations

from pathlib import Path

from interview_peer.app import SIMULATED_KEY
from interview_peer.personas import Personas
from tests.support import audio, speech
from tests.support.chromium import browsing
from tests.support.server import ServerProcess, running_server, running_simulator
from tests.support.waiting import eventually

from . import dialogue
from .front_end import Received

HOOK = Path(__file__).with_name("hook_client.js")
OWN_ID = "test-session-1700000000000"


async def test_the_hook_sequence_gets_an_interview_in_the_shape_it_knows(
    server: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with browsing(silence) as browser:
        received = Received(browser.page, server.url)
        await browser.page.goto(server.url)
        seen = await browser.page.evaluate(
            HOOK.read_text(encoding="utf-8"),
            {"serverUrl": server.socket_url, "sessionId": OWN_ID},
        )
        await browser.until_played_out()
        told = await received.text()
        heard = await browser.heard("remote")
        session_id = seen["greeting"]["sessionId"]

        # This front end says no goodbye: it closes what it opened.
        await browser.page.evaluate("() => { hook.peer.close(); hook.socket.close(); }")

        assert seen["errors"] == []
        assert (seen["keyStatus"], seen["keysAsked"]) == (200, 1)
        assert seen["key"]["success"] is True
        assert seen["key"]["expires_in"] == 60
        assert seen["key"]["client_secret"]["value"] == "held-by-server"
        assert session_id != OWN_ID
        # All that it was told, by HTTP, socket and channel, holds no key.
        assert "held-by-server" in told and "sdp_answer" in told and "session.created" in told
        assert SIMULATED_KEY not in told and "sk-" not in told
        ours = Personas.load().default.instructions
        assert ours[:40] not in told and ours[-40:] not in told

        updated = seen["updated"]
        assert updated["voice"] == "alloy"
        assert updated["modalities"]
        assert "audio" not in updated and "output_modalities" not in updated
        assert updated["instructions"] == "You are a helpful interviewer."
        assert "input_audio_transcription" in updated and "turn_detection" in updated

        assert seen["deltas"] > 1
        assert seen["text"] == seen["transcript"] == dialogue.GREETING.text
        assert seen["done"] == 1
        assert not [name for name in seen["types"] if "output_audio_transcript" in name]
        assert not [name for name in seen["types"] if name.startswith("conversation.item.added")]

        greeting = audio.find(dialogue.spoken(dialogue.GREETING), heard.samples)
        never = audio.find(dialogue.spoken(dialogue.NEVER_SAID), heard.samples)
        assert never.score < audio.SAME < greeting.score, (greeting, never)

        # A closed peer connection is noticed at once, and held for the browser to come back.
        await eventually(
            lambda: server.phase(session_id),
            within=5,
            what="detached",
            good=lambda phase: phase in ("detached", "ending", "ended"),
        )
    # The made-up id was answered and stored nowhere.
    assert (await server.get(f"/api/sessions/{OWN_ID}"))[0] == 404
    await eventually(
        lambda: server.phase(session_id), within=15, what="ended", good=lambda p: p == "ended"
    )
    recorded = audio.decode(server.folder(session_id) / "interviewer.ogg")
    assert audio.find(dialogue.spoken(dialogue.GREETING), recorded).score > audio.SAME


async def test_the_hook_hears_that_its_offer_failed_and_asks_for_another_key(
    tmp_path: Path,
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=30)
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
        seen = await browser.page.evaluate(
            HOOK.read_text(encoding="utf-8"),
            {"serverUrl": server.socket_url, "sessionId": OWN_ID},
        )
        (error,) = seen["errors"]
        assert (error["code"], error["reason"]) == ("SDP_EXCHANGE_FAILED", "UPSTREAM_AUTH_FAILED")
        assert error["message"].startswith("The voice service refused this server's credentials.")
        assert (seen["keyStatus"], seen["keysAsked"]) == (200, 2)
        assert seen["key"]["client_secret"]["value"] == "held-by-server"
        # The session is as it was, and would take another offer.
        assert await server.phase(seen["greeting"]["sessionId"]) == "created"
