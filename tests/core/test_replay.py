"""Journals of every order of events replay to the transcript that listening gave, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from interview_peer.core.realtime import model_event
from interview_peer.core.replay import rebuild, speech_line
from interview_peer.core.transcript import Transcript
from interview_peer.types import ItemId, Json, SessionId, Speaker
from tests.simulator.talk import Talk
from tests.simulator.test_official_types import TALKS

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

Heard = tuple[Transcript, list[str]]


def listened(talk: Talk, begins: float = 1_000.0) -> Heard:
    """What listening to a talk gives, and the journal that is written meanwhile."""
    transcript, lines = Transcript(), []

    def write(at: float, direction: str | None, event: Json) -> None:
        lines.append(json.dumps({"t": round(at, 3), "direction": direction, "event": event}))

    for event, moment in zip(talk.events, talk.at, strict=True):
        at = moment - begins
        transcript.feed(model_event(event), at)
        write(at, "to_browser", event)
        for edge, field in (("start", "audio_start_ms"), ("end", "audio_end_ms")):
            if event["type"].startswith("input_audio_buffer.speech_") and field in event:
                placed = round(event[field] / 1000, 3)
                known = {"start": placed} if edge == "start" else {"end": placed}
                transcript.place_speech(ItemId(event["item_id"]), **known)
                write(at, None, speech_line(ItemId(event["item_id"]), edge, placed))
    end = talk.now - begins
    transcript.close(end)
    write(end, None, {"type": "interview.phase", "before": "live", "phase": "ending"})
    return transcript, lines


def text(transcript: Transcript) -> str:
    return json.dumps(transcript.document(SessionId("s"), BEGAN))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", TALKS, ids=lambda make: make.__name__)
def test_a_journal_gives_the_same_transcript_to_the_byte(
    make: Callable[[int], Talk], seed: int
) -> None:
    transcript, lines = listened(make(seed))
    assert text(rebuild(lines)) == text(transcript)
    # A line that a crash tore adds nothing.
    assert text(rebuild([*lines, lines[0][:-9]])) == text(transcript)


EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "talk_of_turns": [
        ("candidate", "speech", "complete|failed"),
        ("interviewer", "speech", "complete"),
    ]
    * 4,
    "interrupted": [
        ("interviewer", "speech", "interrupted"),
        ("candidate", "speech", "complete"),
        ("interviewer", "speech", "complete"),
    ],
    "stopped_by_the_client": [("interviewer", "speech", "interrupted")],
    "written": [("interviewer", "text", "complete")],
    "tool_called": [],
    "outside": [],
    "mistaken": [],
}
"""Speaker, kind and status of each turn, by the talk."""


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize(
    "make",
    [make for make in TALKS if make.__qualname__.split(".")[0] in EXPECTED],
    ids=lambda make: make.__name__,
)
def test_each_order_of_events_is_the_conversation_that_it_tells_of(
    make: Callable[[int], Talk], seed: int
) -> None:
    transcript, lines = listened(make(seed))
    expected = EXPECTED[make.__qualname__.split(".")[0]]
    turns = json.loads(text(rebuild(lines)))["turns"]
    told = [(turn["speaker"], turn["kind"]) for turn in turns]
    assert told == [(speaker, kind) for speaker, kind, _ in expected], turns
    for turn, (_, _, statuses) in zip(turns, expected, strict=True):
        assert turn["status"] in statuses.split("|")
        if turn["status"] == "interrupted":
            assert turn["heard_ms"] >= 0 and turn["text"].startswith(turn["heard_text"])
            assert turn["heard_text"] != turn["text"]


def test_what_a_silent_candidate_is_asked_follows_no_turn_of_the_candidates() -> None:
    make = next(make for make in TALKS if make.__name__ == "idle")
    transcript, _ = listened(make(1))
    speakers = [turn.speaker for turn in transcript.turns()]
    assert len(speakers) > 2
    assert speakers == [Speaker.CANDIDATE, *[Speaker.INTERVIEWER] * (len(speakers) - 1)]


def test_a_tool_call_is_marked() -> None:
    make = next(make for make in TALKS if make.__name__ == "tool_called")
    transcript, _ = listened(make(1))
    (call,) = transcript.calls()
    assert (call.name, call.after) == ("lookup", None)
