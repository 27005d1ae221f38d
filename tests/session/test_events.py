"""The event channel from end to end: order, nothing lost, the shapes of the beta."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core import gate
from interview_peer.core.replay import rebuild
from interview_peer.media.udp import Address, UdpPort
from interview_peer.session import model_call
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json, SessionId
from tests.support.caller import Caller
from tests.support.waiting import eventually


def journal(folder: Path, session_id: str) -> list[Json]:
    """The lines of an interview's journal."""
    text = (folder / "interviews" / session_id / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def passed(lines: Sequence[Json], direction: str) -> list[Json]:
    return [line["event"] for line in lines if line["direction"] == direction]


async def end(caller: Caller) -> None:
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")


class HeldPort(UdpPort):
    """The model leg's socket, through which nothing leaves while ``held``."""

    held = True

    def send(self, data: bytes | bytearray | memoryview, addr: Address) -> bool:
        return True if type(self).held else super().send(data, addr)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> type[HeldPort]:
    """Keep model legs from connecting until ``held.held`` is set to False.

    So many events may come at once as these tests send.
    """
    monkeypatch.setattr(gate, "SECONDS_AT_ONCE", 20)
    monkeypatch.setattr(model_call, "UdpPort", HeldPort)
    monkeypatch.setattr(HeldPort, "held", True)
    return HeldPort


def numbered(number: int) -> Json:
    return {
        "type": "conversation.item.create",
        "event_id": f"e{number}",
        "item": {
            "id": f"item-{number}",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": f"number {number}"}],
        },
    }


async def test_what_is_said_before_the_model_listens_arrives_whole_and_in_order(
    local: Server, caller: Caller, held: type[HeldPort], tmp_path: Path
) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.ready()
    for number in range(200):
        caller.say(numbered(number))
    # Answered by the gate itself: everything before it has reached the server.
    caller.say({"type": "input_audio_buffer.append", "audio": ""})
    await caller.event("error")
    assert await caller.known_phase() == "connecting"
    assert [one["type"] for one in caller.events.items] == ["error"]

    held.held = False
    await caller.phase("live")
    await caller.event("conversation.item.done", where=lambda one: one["item"]["id"] == "item-199")
    await end(caller)

    wanted = [f"item-{number}" for number in range(200)]
    lines = journal(tmp_path, caller.session_id)
    sent = [event["item"]["id"] for event in passed(lines, "to_model")]
    assert sent == wanted
    told = [
        event["item"]["id"]
        for event in passed(lines, "to_browser")
        if event["type"] == "conversation.item.added" and event["item"]["role"] == "user"
    ]
    assert told == wanted
    heard = [
        event["item"]["id"]
        for event in caller.events.items
        if event["type"] == "conversation.item.added" and event["item"]["role"] == "user"
    ]
    assert heard == wanted


async def test_more_than_can_wait_is_refused_and_what_waits_is_kept(
    caller: Caller, held: type[HeldPort], tmp_path: Path
) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.ready()
    for number in range(513):
        caller.say(numbered(number))
    error = (await caller.event("error"))["error"]
    assert (error["code"], error["event_id"]) == ("too_many_events", "e512")
    held.held = False
    await caller.phase("live")
    await caller.event("conversation.item.done", where=lambda one: one["item"]["id"] == "item-511")
    await end(caller)
    lines = journal(tmp_path, caller.session_id)
    sent = [event["item"]["id"] for event in passed(lines, "to_model")]
    assert sent == [f"item-{number}" for number in range(512)]


async def test_the_browser_hears_every_event_that_the_journal_holds_in_that_order(
    caller: Caller, tmp_path: Path
) -> None:
    await caller.open()
    await caller.connect()
    await caller.event("response.output_audio_transcript.delta")
    caller.speak(seconds=1)
    await caller.event("conversation.item.input_audio_transcription.completed")
    await end(caller)
    lines = journal(tmp_path, caller.session_id)
    heard = caller.events.items
    # At the very end some may be in the journal that never reached the closing channel.
    kept = passed(lines, "to_browser")
    # The journal has the instructions, which are not for the browser.
    assert heard[0]["session"]["instructions"] == "" != kept[0]["session"]["instructions"]
    kept[0]["session"]["instructions"] = ""
    assert kept[: len(heard)] == heard
    assert heard[0]["type"] == "session.created"
    assert len(heard) > 20
    own = [line["event"]["type"] for line in lines if line["direction"] is None]
    assert own[0] == "interview.started"
    times = [line["t"] for line in lines]
    assert times == sorted(times)


async def test_a_transcript_rebuilt_from_the_journal_is_the_one_that_was_written(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    await caller.open()
    await caller.connect()
    await caller.event("output_audio_buffer.started")
    await caller.event("response.done")
    # In the middle of the greeting, the candidate begins to speak and goes.
    caller.speak()
    await caller.event("input_audio_buffer.speech_started")
    await end(caller)

    folder = tmp_path / "interviews" / caller.session_id
    written = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))
    greeting, answer = written["turns"]
    assert (greeting["status"], answer["status"], answer["text"]) == ("interrupted", "failed", "")
    assert 0 < greeting["heard_ms"] and greeting["text"].startswith(greeting["heard_text"])
    # Finishing may have moved the file's times by then; what was written first is still known.
    live = local.interviews.find(caller.session_id).transcript_so_far()
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    started_at = datetime.fromisoformat(json.loads(lines[0])["at"])
    again = rebuild(lines).document(SessionId(caller.session_id), started_at, final=False)
    assert json.dumps(again) == json.dumps(live)


async def test_nothing_is_missing_from_a_journal_whose_disk_is_slow(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = InterviewFolder.create

    def slowly(self: InterviewFolder) -> None:
        time.sleep(0.5)
        create(self)

    monkeypatch.setattr(InterviewFolder, "create", slowly)
    await caller.open()
    await caller.connect()
    await caller.event("session.created")
    await end(caller)
    lines = journal(tmp_path, caller.session_id)
    assert passed(lines, "to_browser")[0]["type"] == "session.created"


async def test_a_beta_client_is_answered_in_the_shapes_of_the_beta(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    caller.say(
        {
            "type": "session.update",
            "session": {
                "modalities": ["text", "audio"],
                "instructions": "You interview.",
                "voice": "verse",
                "input_audio_format": "pcm16",
                "output_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 9000},
                "temperature": 0.7,
            },
        }
    )
    session = (await caller.event("session.updated"))["session"]
    assert session["modalities"] == ["text", "audio"]
    assert session["instructions"] == "You interview."
    assert session["voice"] == "verse"
    assert session["input_audio_format"] == "pcm16"
    # The server's, not what the client wished.
    assert session["input_audio_transcription"] == {"model": "gpt-transcribe"}
    assert session["turn_detection"]["silence_duration_ms"] == 500
    assert not {"audio", "output_modalities", "type"} & set(session)

    delta = await caller.event("response.audio_transcript.delta")
    done = await caller.event("response.audio_transcript.done", within=20)
    assert delta["delta"] and done["transcript"].startswith(delta["delta"])
    created = await caller.event("conversation.item.created")
    assert created["item"]["role"] == "assistant"
    seen = {event["type"] for event in caller.events.items}
    assert not [kind for kind in seen if "output_audio_transcript" in kind]
    assert "conversation.item.done" not in seen


async def test_a_returning_browser_begins_in_the_shapes_of_today(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    caller.say({"type": "session.update", "session": {"voice": "verse"}})
    assert "voice" in (await caller.event("session.updated"))["session"]
    await caller.connect()
    caller.say({"type": "session.update", "session": {"type": "realtime"}})
    assert "audio" in (await caller.event("session.updated"))["session"]


async def test_a_second_channel_of_the_name_takes_over(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    assert caller._leg is not None
    first = caller._leg._channel
    caller._leg._adopt_channel(caller._leg.engine.pc.createDataChannel("oai-events"))
    second = caller._leg._channel
    assert first is not second

    async def opened() -> bool:
        return second is not None and second.readyState == "open"

    await eventually(opened, within=5, what="the second channel open")
    caller.say({"type": "session.update", "session": {"type": "realtime"}})
    await caller.event("session.updated")
    assert await caller.known_phase() == "live"
