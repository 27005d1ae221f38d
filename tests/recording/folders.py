"""Interview folders as a server leaves them, made in simulated time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.finishing.facts import Facts
from interview_peer.finishing.job import finish
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder
from interview_peer.types import Direction, Json, SessionId, Speaker
from tests.storage.senders import Sender
from tests.storage.sound import encode, marked_signal

START = 500.0
STARTED_AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
FRAMES = 400
SECONDS = FRAMES / 50
MARKS: Mapping[Speaker, Mapping[int, int]] = {
    Speaker.CANDIDATE: {20: 1, 150: 2, 310: 3},
    Speaker.INTERVIEWER: {60: 11, 220: 12, 360: 13},
}
"""First frame and seed of each mark."""


@functools.cache
def speech(speaker: Speaker) -> tuple[bytes, ...]:
    """The packets of one speaker's marked hum."""
    return tuple(encode(marked_signal(FRAMES, dict(MARKS[speaker]))))


def events() -> list[tuple[float, Json]]:
    """A short conversation, as the model tells it, with seconds from the start."""
    said = {"role": "user", "type": "message", "content": []}
    asked = {"role": "assistant", "type": "message", "content": []}
    return [
        (0.3, {"type": "response.created", "response": {"id": "r1", "status": "in_progress"}}),
        (
            0.4,
            {
                "type": "conversation.item.added",
                "previous_item_id": None,
                "item": {"id": "i1", **asked},
            },
        ),
        (
            0.5,
            {
                "type": "response.output_audio_transcript.done",
                "response_id": "r1",
                "item_id": "i1",
                "transcript": "What do you build?",
            },
        ),
        (
            2.0,
            {
                "type": "input_audio_buffer.committed",
                "item_id": "i2",
                "previous_item_id": "i1",
            },
        ),
        (
            2.1,
            {
                "type": "conversation.item.added",
                "previous_item_id": "i1",
                "item": {"id": "i2", **said},
            },
        ),
        (
            2.5,
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": "i2",
                "transcript": "Bridges.",
            },
        ),
    ]


def record(
    root: Path, name: str = "one", *, until: float = SECONDS, close: bool = True
) -> InterviewFolder:
    """Record the marks and the conversation; with ``close`` as at an interview's proper end.

    Without, the folder is left as by a process killed at ``until`` (seconds).
    """
    folder = InterviewFolder(root, SessionId(name))
    folder.create()
    recorder = Recorder(folder, START, STARTED_AT)
    arrivals = []
    for speaker in Speaker:
        sender = Sender(START, payload=speech(speaker).__getitem__, delay=0.0)
        sender.talk(SECONDS)
        arrivals += [(one.at, speaker, one) for one in sender.deliveries]
    arrivals.sort(key=lambda one: one[0])
    waiting = events()
    for tick in range(1, int(until * 2) + 1):
        now = START + tick / 2
        while arrivals and arrivals[0][0] <= now:
            at, speaker, one = arrivals.pop(0)
            recorder.audio(speaker, at, one.sequence, one.timestamp, one.payload)
        while waiting and START + waiting[0][0] <= now:
            seconds, event = waiting.pop(0)
            recorder.event(Direction.TO_BROWSER, START + seconds, event)
        recorder.flush(now)
    if close:
        summary = recorder.close(START + until)
        facts = Facts.at_end(
            folder.session_id,
            STARTED_AT,
            Phase.ENDED.value,
            Reason.CLIENT_REQUEST.value,
            summary,
        )
        facts.write(folder)
    else:
        # What the operating system does with a killed process's files.
        recorder._close_files()
        if recorder._claim is not None:
            import os

            os.close(recorder._claim)
    return folder


def finished(root: Path, name: str = "one", *, until: float = SECONDS) -> InterviewFolder:
    """A finished folder of ``until`` seconds."""
    folder = record(root, name, until=until)
    finish(folder, ignore)
    return folder


def ignore(share: float) -> None:
    """Take a job's progress, and do nothing with it."""
