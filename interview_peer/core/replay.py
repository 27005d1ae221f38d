"""Makes the transcript again from a journal: the same turns, to the last byte of their document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from interview_peer.core.realtime import model_event
from interview_peer.core.transcript import Transcript
from interview_peer.types import Direction, ItemId, Json

SPEECH_LINE: Final = "interview.speech"
"""The type of our own journal lines that say where in the recording the service heard speech."""


def speech_line(item_id: ItemId, edge: str, at: float) -> Json:
    """Our own journal line for `Transcript.place_speech`; `edge` is ``start`` or ``end``."""
    return {"type": SPEECH_LINE, "item_id": item_id, edge: at}


def rebuild(lines: Iterable[str]) -> Transcript:
    """Make the transcript again from the lines of a journal (``events.jsonl``).

    Only what went to the browser is the model's word. A line that is not a whole record is left
    out: a crash may tear the last one, and a damaged one must not cost the others. The transcript
    is closed where the interview was, or else by the last line.
    """
    transcript = Transcript()
    last: float | None = None
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        at, event = record.get("t"), record.get("event")
        if not (isinstance(at, int | float) and isinstance(event, dict)):
            continue
        last = at
        direction = record.get("direction")
        if direction == Direction.TO_BROWSER.value:
            transcript.feed(model_event(event), at)
        elif direction is None and event.get("type") == SPEECH_LINE:
            place_line(transcript, event)
        elif direction is None and event.get("type") == "interview.phase":
            phase = event.get("phase")
            if isinstance(phase, str):
                transcript.note_phase(phase, at)
    if last is not None:
        transcript.close(last)
    return transcript


def place_line(transcript: Transcript, line: Json) -> None:
    """Tell a transcript what a `speech_line` says; one that says nothing changes nothing."""
    item_id = line.get("item_id")
    if isinstance(item_id, str):
        start, end = _number(line.get("start")), _number(line.get("end"))
        transcript.place_speech(ItemId(item_id), start=start, end=end)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None
