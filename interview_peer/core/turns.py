"""What a transcript consists of: turns, what lies between them, and the document of both.

Values and their JSON form. How they are found in the events is `core.transcript`'s business.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from interview_peer.types import ItemId, Json, SessionId, Speaker

SCHEMA: Final = 2
"""Version of the document's shape."""

SILENCE_MS: Final = 5_000
"""A stretch without any speech that is at least this long is marked."""

CHARACTERS_PER_SECOND: Final = 15
"""How fast speech is taken to be where the service did not count its sound."""


class TurnStatus(enum.Enum):
    """How final a turn's text is."""

    PARTIAL = "partial"
    """More text may come. A closed transcript has no such turn."""
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    """Cut short, by the candidate or by the interview's end. A reply's text is all that was
    generated, heard or not; a candidate's is what had been transcribed."""
    FAILED = "failed"
    """The candidate spoke, but it was not transcribed. The text is empty."""


class TurnKind(enum.Enum):
    """How a turn's words came."""

    SPEECH = "speech"
    TEXT = "text"
    """Typed by the candidate, or written and not spoken by the interviewer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of speech, or one typed message, by one speaker."""

    item_id: ItemId
    speaker: Speaker
    text: str
    started_at: float | None
    """Seconds of the recording, to the millisecond, as is `ended_at`. None while unknown."""
    ended_at: float | None
    status: TurnStatus
    heard_ms: int | None
    """How much of an interrupted reply the candidate heard; None where that is not known."""
    kind: TurnKind = TurnKind.SPEECH
    heard_text: str | None = None
    """What the candidate heard of an interrupted reply: its text, cut in proportion to time."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The interviewer asked for a tool between two turns. Arguments are the journal's to keep."""

    item_id: ItemId
    after: ItemId | None
    """The turn that it follows; None before the first."""
    at: float
    """Seconds of the recording."""
    name: str
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Steering:
    """Somebody who does not speak in the conversation took part in it. The journal has the text."""

    kind: str
    """``instruction``: the model was told something; ``dictated``: this turn's words were given."""
    item_id: ItemId
    after: ItemId | None
    """The turn that it follows; None before the first."""
    at: float
    """Seconds of the recording."""


def heard_of(text: str, heard_ms: int, spoken_ms: int | None) -> str:
    """The part of a text that was heard in `heard_ms`, up to a whole word: an estimate.

    `spoken_ms` is how long all of it takes; None to go by the usual pace of speech.
    """
    if spoken_ms is None or spoken_ms <= 0:
        spoken_ms = len(text) * 1000 // CHARACTERS_PER_SECOND
    if heard_ms >= spoken_ms:
        return text
    cut = len(text) * max(0, heard_ms) // spoken_ms
    if cut < len(text) and not text[cut].isspace():
        # Within a word, which then was not heard. Languages without spaces have none to look for.
        words = text[:cut].rsplit(maxsplit=1)
        cut = len(words[0]) if len(words) == 2 else (0 if " " in text else cut)
    return text[:cut].rstrip()


def document(
    session_id: SessionId,
    started_at: datetime,
    turns: Iterable[Turn],
    calls: Iterable[ToolCall] = (),
    steerings: Iterable[Steering] = (),
    *,
    until: float | None = None,
    final: bool = True,
) -> Json:
    """What ``transcript.json`` holds for these turns; `final` once nothing can follow them.

    `until` is the end of the recording in seconds, where that is known. Raises ``ValueError`` if
    `started_at` has no time zone.
    """
    if started_at.tzinfo is None:
        raise ValueError("started_at has no time zone")
    started = started_at.astimezone(UTC).isoformat(timespec="milliseconds")
    told = [turn_document(turn) for turn in turns]
    marks: list[Json] = [
        {
            "kind": "tool_call",
            "after": call.after,
            "start_ms": _ms(call.at),
            "end_ms": _ms(call.at),
            "item_id": call.item_id,
            "name": call.name,
            "call_id": call.call_id,
        }
        for call in calls
    ]
    marks += [
        {
            "kind": one.kind,
            "after": one.after,
            "start_ms": _ms(one.at),
            "end_ms": _ms(one.at),
            "item_id": one.item_id,
        }
        for one in steerings
    ]
    return {
        "schema": SCHEMA,
        "session_id": session_id,
        "started_at": started.removesuffix("+00:00") + "Z",
        "final": final,
        "turns": told,
        "marks": in_time([*marks, *silences(told, _ms(until))]),
    }


def silences(turns: Sequence[Json], until: int | None) -> list[Json]:
    """Where nobody speaks for long, as marks of the document; `until` in milliseconds.

    Goes by the turns' times; where a turn's end is not known nothing is said of what follows it.
    """
    spoken = [
        (turn["start_ms"], turn["end_ms"], turn["item_id"])
        for turn in turns
        if turn["start_ms"] is not None
    ]
    found: list[Json] = []
    quiet_from: int | None = 0
    after: Any = None
    for start, end, item_id in sorted(spoken, key=lambda one: one[0]):
        if quiet_from is not None and start - quiet_from >= SILENCE_MS:
            found.append(_silence(after, quiet_from, start))
        if end is None:
            quiet_from = None
        elif quiet_from is None or end >= quiet_from:
            quiet_from, after = end, item_id
    if spoken and until is not None and quiet_from is not None and until - quiet_from >= SILENCE_MS:
        found.append(_silence(after, quiet_from, until))
    return found


def in_time(marks: Iterable[Json]) -> list[Json]:
    """Marks by the time that they begin."""
    return sorted(marks, key=lambda mark: int(mark["start_ms"]))


def _silence(after: Any, start: int, end: int) -> Json:
    return {"kind": "silence", "after": after, "start_ms": start, "end_ms": end}


def turn_document(turn: Turn) -> Json:
    """What the document says of one turn."""
    heard = turn.heard_text
    return {
        "item_id": turn.item_id,
        "speaker": turn.speaker.value,
        "kind": turn.kind.value,
        "text": turn.text,
        "start_ms": _ms(turn.started_at),
        "end_ms": _ms(turn.ended_at),
        "status": turn.status.value,
        "heard_ms": turn.heard_ms,
        "heard_text": heard,
        # All and nothing are certain; a part is a matter of proportion.
        "estimated": heard is not None and heard not in ("", turn.text),
    }


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))
