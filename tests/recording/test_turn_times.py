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

SAID = scripts()[1].lines[1]
"""What a caller speaks."""

BOUND_MS = 150


def spans(line: Line, file: Path) -> tuple[int, int]:
    """Where a line's first and last sound are in a file, in milliseconds."""
    samples = audio.decode(Path(str(SPEECH_FOLDER / line.file)))
    loud = np.flatnonzero(audio.levels(samples) > audio.QUIET) * audio.HOP * 1000 // audio.RATE
    match = audio.find(samples, audio.decode(file))
    assert match.score > audio.SAME
    return round(match.at * 1000 + loud[0]), round(match.at * 1000 + loud[-1] + 20)


def errors(turn: Json, true: tuple[int, int]) -> tuple[int, int]:
    return turn["start_ms"] - true[0], turn["end_ms"] - true[1]


async def conversation(caller: Caller) -> None:
    """The interviewer greets, the candidate says a sentence, the interviewer asks."""
    await caller.open()
    await caller.connect()
    await caller.event("output_audio_buffer.stopped", within=30)
    caller.speak()
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
    greeting, question = scripts()[0].lines[:2]
    true = [
        spans(greeting, folder / "interviewer.ogg"),
        spans(SAID, folder / "candidate.ogg"),
        spans(question, folder / "interviewer.ogg"),
    ]
    assert [turn["speaker"] for turn in kept] == ["interviewer", "candidate", "interviewer"]
    off = [error for turn, span in zip(kept, true, strict=True) for error in errors(turn, span)]
    assert max(map(abs, off)) <= 100, off
    # The service's own times, mapped to the file and freed of their padding, before the sound
    # was looked at.
    candidate = errors(told[1], true[1])
    assert max(map(abs, candidate)) <= BOUND_MS, candidate
    assert verify(folder) == []
