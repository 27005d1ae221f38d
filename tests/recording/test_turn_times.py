"""Turns lie where their words are in the recording's files, of both speakers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from interview_peer.core.replay import rebuild
from interview_peer.finishing.verify import verify
from interview_peer.simulator.library import SPEECH_FOLDER, Line, scripts
from interview_peer.types import Json, SessionId
from tests.support import audio
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

from .folders import STARTED_AT

pytestmark = pytest.mark.timeout(120)

BOUND_MS = 150

HEARD_SECONDS = 1.0
"""How much of the greeting is sure to have sounded when the candidate breaks in."""

BREAKS_IN, ANSWERS = 5, 3
"""Which lines of its script a caller speaks: the short one into the greeting."""

PAUSE_SECONDS = 1.5
"""For so long the caller sends nothing at all before it answers."""


def loud(samples: audio.Samples) -> tuple[int, int]:
    """Where the first and the last sound are, in milliseconds."""
    found = np.flatnonzero(audio.levels(samples) > audio.QUIET) * 20
    return int(found[0]), int(found[-1]) + 20


def spans(line: Line, recording: audio.Samples) -> tuple[int, int]:
    """Where a line's first and last sound are in a recording, in milliseconds."""
    samples = audio.decode(Path(str(SPEECH_FOLDER / line.file)))
    first, last = loud(samples)
    match = audio.find(samples, recording)
    assert match.score > audio.SAME
    return round(match.at * 1000 + first), round(match.at * 1000 + last)


def cut_span(line: Line, recording: audio.Samples, before: int) -> tuple[int, int]:
    """The same of a line that was cut: it ends with the last sound before that time."""
    samples = audio.decode(Path(str(SPEECH_FOLDER / line.file)))
    beginning = samples[: round(HEARD_SECONDS * audio.RATE)]
    match = audio.find(beginning, recording)
    assert match.score > audio.SAME
    end = loud(recording[: before * audio.RATE // 1000])[1]
    assert end < match.at * 1000 + loud(samples)[1] - 1000, "it was not cut"
    return round(match.at * 1000 + loud(beginning)[0]), end


def errors(turn: Json, true: tuple[int, int]) -> tuple[int, int]:
    return turn["start_ms"] - true[0], turn["end_ms"] - true[1]


async def conversation(caller: Caller) -> None:
    """The candidate breaks into the greeting, is asked, sends nothing, answers, is asked again."""
    await caller.open()
    await caller.connect()
    await caller.event("output_audio_buffer.started", within=30)
    await caller.sound(round(HEARD_SECONDS / 0.02))
    caller.speak(line=BREAKS_IN)
    await caller.event("output_audio_buffer.cleared", within=30)
    await caller.event("input_audio_buffer.speech_stopped", within=30)
    await caller.event("output_audio_buffer.stopped", within=30)
    caller.pause(PAUSE_SECONDS)
    caller.speak(line=ANSWERS)
    await caller.event("input_audio_buffer.speech_stopped", within=30)
    await caller.event("output_audio_buffer.stopped", within=30)
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")


async def test_turns_are_within_150_ms_of_their_words_and_finishing_comes_closer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await conversation(caller)
        folder = tmp_path / "interviews" / caller.session_id

        async def finished() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(finished, within=40, what="a finished folder", good=bool)
    with (folder / "events.jsonl").open(encoding="utf-8") as lines:
        told = rebuild(lines).document(SessionId("s"), STARTED_AT)["turns"]
    kept = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))["turns"]
    greeting, first, second = scripts()[0].lines[:3]
    said = scripts()[1].lines
    interviewer = audio.decode(folder / "interviewer.ogg")
    candidate = audio.decode(folder / "candidate.ogg")
    asked = [spans(first, interviewer), spans(second, interviewer)]
    true = [
        cut_span(greeting, interviewer, asked[0][0] - 100),
        spans(said[BREAKS_IN], candidate),
        asked[0],
        spans(said[ANSWERS], candidate),
        asked[1],
    ]
    speakers = [turn["speaker"] for turn in kept]
    assert speakers == ["interviewer", *["candidate", "interviewer"] * 2]
    assert [turn["status"] for turn in kept] == ["interrupted", *["complete"] * 4]
    off = [errors(turn, span) for turn, span in zip(kept, true, strict=True)]
    assert max(abs(error) for pair in off for error in pair) <= 100, off
    # The times of the events alone, before the sound was looked at: the service's own for the
    # candidate, mapped to the file and freed of their padding; those of playout for the others,
    # whose lines end in silence that is played as well.
    events = [errors(turn, span) for turn, span in zip(told, true, strict=True)]
    by_event = [*events[1], *events[3], *(start for start, _ in events[::2]), events[0][1]]
    assert max(map(abs, by_event)) <= BOUND_MS, events
    assert verify(folder) == []
