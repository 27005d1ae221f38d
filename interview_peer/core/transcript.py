"""The transcript: events in, turns out, in the order the conversation was held.

A reducer without clock or I/O. Replaying a journal gives the same turns as listening did.

The order of arrival is not the order of speech: the text of what the candidate said is usually
finished after the reply to it. So an item's place comes from the item before it, as the service
names it, and its texts and times are collected under its id whenever they come. An item keeps its
place after it is deleted, for those that follow it, but is no turn any more.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import assert_never

from interview_peer.core.realtime import (
    UNPLACED,
    InputCommitted,
    InputTextDelta,
    InputTextDone,
    InputTextFailed,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    ModelError,
    ModelEvent,
    PlayoutCleared,
    PlayoutStarted,
    PlayoutStopped,
    ReplyDone,
    ReplyItemAdded,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTextDone,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    UnknownModelEvent,
    model_event,
)
from interview_peer.types import Direction, ItemId, Json, ResponseId, SessionId, Speaker

SCHEMA = 1
"""Version of the document's shape."""

_SPEAKERS = {"user": Speaker.CANDIDATE, "assistant": Speaker.INTERVIEWER}


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


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of speech, or one typed message, by one speaker."""

    item_id: ItemId
    speaker: Speaker
    text: str
    started_at: float | None
    """Seconds since the interview's start, as is `ended_at`. None while unknown."""
    ended_at: float | None
    status: TurnStatus
    heard_ms: int | None
    """How much of an interrupted reply the candidate heard, where the service said so."""


@dataclass(slots=True)
class _Reply:
    """What is known of one reply as a whole; its items share its playout."""

    out_of_band: bool = False
    playout_started_at: float | None = None
    playout_ended_at: float | None = None
    done_at: float | None = None
    cut: bool = False


@dataclass(slots=True)
class _Entry:
    """What is known of one item, spoken or not."""

    item_id: ItemId
    speaker: Speaker | None = None
    previous: ItemId | None = UNPLACED
    placed: int = 0
    """Counts placements: of two items after the same one, the later was put in between."""
    in_conversation: bool = False
    deleted: bool = False
    reply: _Reply | None = None
    pieces: list[str] = field(default_factory=list)
    settled: bool = False
    failed: bool = False
    cut: bool = False
    heard_ms: int | None = None
    speech_started_at: float | None = None
    ended_at: float | None = None
    first_text_at: float | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def settle(self, text: str, at: float) -> None:
        self.add("", at)
        self.pieces = [text]
        self.settled = True
        self.failed = False

    def add(self, piece: str, at: float) -> None:
        if self.first_text_at is None:
            self.first_text_at = at
        self.pieces.append(piece)


class Transcript:
    """Collects an interview's events; says at any time what the conversation is so far."""

    def __init__(self) -> None:
        self._entries: dict[ItemId, _Entry] = {}
        self._replies: dict[ResponseId, _Reply] = {}
        self._speaking: ItemId | None = None
        self._placements = 0
        self._closed_at: float | None = None

    def feed(self, event: ModelEvent, at: float) -> None:
        """Take in one event of the model. `at` is its arrival in seconds since the start.

        Times are kept to the millisecond, which is what the journal holds.
        """
        at = round(at, 3)
        match event:
            case ReplyTextDelta(response_id, item_id, delta):
                self._spoken(item_id, response_id).add(delta, at)
            case InputTextDelta(item_id, delta):
                entry = self._heard(item_id)
                if not entry.settled:
                    entry.add(delta, at)
            case ReplyTextDone(response_id, item_id, text):
                self._spoken(item_id, response_id).settle(text, at)
            case InputTextDone(item_id, text):
                self._heard(item_id).settle(text, at)
            case InputTextFailed(item_id):
                entry = self._heard(item_id)
                entry.failed = not entry.settled
            case SpeechStarted(item_id):
                entry = self._heard(item_id)
                if entry.speech_started_at is None:
                    entry.speech_started_at = at
                self._speaking = item_id
            case SpeechStopped(item_id):
                self._heard(item_id).ended_at = at
            case InputCommitted(item_id, previous):
                entry = self._heard(item_id)
                if entry.ended_at is None:
                    entry.ended_at = at
                self._place(entry, previous)
            case ItemAdded(item_id, previous, role, text):
                self._bury(item_id)
                self._take_item(item_id, previous, role, text, at)
            case ItemDone(item_id, previous, role, text):
                self._take_item(item_id, previous, role, text, at)
            case ReplyStarted(response_id, out_of_band):
                self._reply(response_id).out_of_band = out_of_band
            case ReplyItemAdded(response_id, item_id):
                self._entry(item_id).reply = self._reply(response_id)
            case ReplyDone(response_id, status):
                reply = self._reply(response_id)
                reply.done_at = at
                reply.cut = reply.cut or status == "cancelled"
            case PlayoutStarted(response_id):
                reply = self._reply(response_id)
                if reply.playout_started_at is None:
                    reply.playout_started_at = at
                reply.playout_ended_at = None
            case PlayoutStopped(response_id):
                self._reply(response_id).playout_ended_at = at
            case PlayoutCleared(response_id):
                reply = self._reply(response_id)
                # Clearing after the last sound was played cuts nothing.
                if reply.playout_ended_at is None:
                    reply.playout_ended_at = at
                    reply.cut = True
            case ItemTruncated(item_id, audio_end_ms):
                entry = self._entry(item_id)
                entry.cut = True
                entry.heard_ms = audio_end_ms
            case ItemDeleted(item_id):
                self._entry(item_id).deleted = True
            case SessionCreated() | SessionUpdated() | ModelError() | UnknownModelEvent():
                pass
            case _:
                assert_never(event)

    def close(self, at: float) -> None:
        """Say that the interview ended at `at`: what is under way then was cut off by that.

        The first call counts. Events may still come in; texts that they finish are whole.
        """
        if self._closed_at is None:
            self._closed_at = round(at, 3)

    def turns(self) -> list[Turn]:
        """The conversation so far, in its own order, unfinished turns included."""
        return [
            self._turn(entry, entry.speaker)
            for entry in self._in_order()
            if entry.speaker is not None and self._is_turn(entry)
        ]

    def document(self, session_id: SessionId, started_at: datetime, *, final: bool = True) -> Json:
        """What ``transcript.json`` holds. `started_at` must know its time zone."""
        return document(session_id, started_at, self.turns(), final=final)

    # Collecting

    def _entry(self, item_id: ItemId) -> _Entry:
        entry = self._entries.get(item_id)
        if entry is None:
            entry = self._entries[item_id] = _Entry(item_id)
        return entry

    def _heard(self, item_id: ItemId) -> _Entry:
        entry = self._entry(item_id)
        entry.speaker = Speaker.CANDIDATE
        return entry

    def _spoken(self, item_id: ItemId, response_id: ResponseId) -> _Entry:
        entry = self._entry(item_id)
        entry.speaker = Speaker.INTERVIEWER
        entry.reply = self._reply(response_id)
        return entry

    def _reply(self, response_id: ResponseId) -> _Reply:
        reply = self._replies.get(response_id)
        if reply is None:
            reply = self._replies[response_id] = _Reply()
        return reply

    def _take_item(
        self, item_id: ItemId, previous: ItemId | None, role: str | None, text: str, at: float
    ) -> None:
        entry = self._entry(item_id)
        if role is not None:
            entry.speaker = _SPEAKERS.get(role)
        self._place(entry, previous)
        # A cut reply may come back with less text than was generated: never take a shorter one.
        if text and len(text) >= len(entry.text):
            entry.settle(text, at)

    def _place(self, entry: _Entry, previous: ItemId | None) -> None:
        entry.in_conversation = True
        # The first id that is given stays. A null gives way to an id, for it may mean no more
        # than that the sender did not know.
        if previous == UNPLACED or entry.previous or previous == entry.previous:
            return
        self._placements += 1
        entry.previous = previous
        entry.placed = self._placements

    def _bury(self, item_id: ItemId) -> None:
        """Make room for an item that is created again under the id of a deleted one.

        Clients edit history that way. The old one must stay behind as a place, for its
        followers still name it; it gets a name that no service can give.
        """
        old = self._entries.get(item_id)
        if old is None or not old.deleted:
            return
        grave = ItemId(f"{item_id}\0{len(self._entries)}")
        self._entries = {
            (grave if key == item_id else key): entry for key, entry in self._entries.items()
        }
        old.item_id = grave
        for entry in self._entries.values():
            if entry.previous == item_id:
                entry.previous = grave

    # Telling

    def _in_order(self) -> Iterator[_Entry]:
        """Walk the items from predecessor to successor; those without a known place come last."""
        followers: dict[ItemId | None, list[_Entry]] = {}
        for entry in sorted(self._entries.values(), key=lambda entry: entry.placed):
            followers.setdefault(entry.previous, []).append(entry)
        seen: set[ItemId] = set()

        def walk(stack: list[_Entry]) -> Iterator[_Entry]:
            while stack:
                entry = stack.pop()
                if entry.item_id not in seen:
                    seen.add(entry.item_id)
                    yield entry
                    stack.extend(followers.get(entry.item_id, ()))

        yield from walk(list(followers.get(None, ())))
        for entry in self._entries.values():
            if entry.previous not in self._entries:
                yield from walk([entry])
        # Only what follows itself, in a circle, is left now; such nonsense is not lost either.
        for entry in self._entries.values():
            yield from walk([entry])

    def _is_turn(self, entry: _Entry) -> bool:
        if entry.deleted:
            return False
        if entry.speaker is Speaker.CANDIDATE:
            if entry.failed or entry.text:
                return True
            # Sound that was thrown away before it became an item is nobody's turn; the latest
            # may yet become one.
            kept = entry.in_conversation or entry.item_id == self._speaking
            return kept and entry.speech_started_at is not None
        reply = entry.reply
        played = reply is not None and reply.playout_started_at is not None
        if reply is not None and reply.out_of_band and not (entry.in_conversation or played):
            return False
        return played or bool(entry.text)

    def _turn(self, entry: _Entry, speaker: Speaker) -> Turn:
        if speaker is Speaker.CANDIDATE:
            started_at, ended_at = self._candidate_times(entry)
            cut = False
        else:
            started_at, ended_at = self._interviewer_times(entry)
            cut = entry.cut or (entry.reply is not None and self._is_cut(entry.reply))
        if entry.failed:
            status = TurnStatus.FAILED
        elif cut:
            status = TurnStatus.INTERRUPTED
        else:
            status = TurnStatus.COMPLETE if entry.settled else TurnStatus.PARTIAL
        if self._closed_at is not None:
            if status is TurnStatus.PARTIAL:
                wordless = speaker is Speaker.CANDIDATE and not entry.text
                status = TurnStatus.FAILED if wordless else TurnStatus.INTERRUPTED
            if started_at is not None and ended_at is None:
                ended_at = max(started_at, self._closed_at)
        return Turn(
            item_id=ItemId(_well_formed(entry.item_id)),
            speaker=speaker,
            text="" if entry.failed else _well_formed(entry.text).strip(),
            started_at=started_at,
            ended_at=ended_at,
            status=status,
            heard_ms=entry.heard_ms,
        )

    def _is_cut(self, reply: _Reply) -> bool:
        sounding = reply.playout_started_at is not None and reply.playout_ended_at is None
        return reply.cut or (sounding and self._closed_at is not None)

    def _candidate_times(self, entry: _Entry) -> tuple[float | None, float | None]:
        if entry.speech_started_at is None and entry.ended_at is None:
            # Typed, not spoken: it took place when it was sent.
            return entry.first_text_at, entry.first_text_at
        return entry.speech_started_at, entry.ended_at

    def _interviewer_times(self, entry: _Entry) -> tuple[float | None, float | None]:
        reply = entry.reply
        if reply is None:
            return entry.first_text_at, entry.first_text_at
        started_at, ended_at = reply.playout_started_at, reply.playout_ended_at
        if started_at is not None:
            # The end of generation says nothing about the end of speech.
            return started_at, ended_at
        return entry.first_text_at, ended_at if ended_at is not None else reply.done_at


def document(
    session_id: SessionId, started_at: datetime, turns: Iterable[Turn], *, final: bool = True
) -> Json:
    """What ``transcript.json`` holds for these turns; `final` once nothing can follow them.

    Raises ``ValueError`` if `started_at` has no time zone.
    """
    if started_at.tzinfo is None:
        raise ValueError("started_at has no time zone")
    started = started_at.astimezone(UTC).isoformat(timespec="milliseconds")
    return {
        "schema": SCHEMA,
        "session_id": session_id,
        "started_at": started.removesuffix("+00:00") + "Z",
        "final": final,
        "turns": [
            {
                "item_id": turn.item_id,
                "speaker": turn.speaker.value,
                "text": turn.text,
                "started_at": turn.started_at,
                "ended_at": turn.ended_at,
                "status": turn.status.value,
                "heard_ms": turn.heard_ms,
            }
            for turn in turns
        ],
    }


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
        if record.get("direction") == Direction.TO_BROWSER.value:
            transcript.feed(model_event(event), at)
        elif event.get("type") == "interview.phase" and event.get("phase") == "ending":
            # Only our own lines have such a type: a browser's are refused.
            transcript.close(at)
    if last is not None:
        transcript.close(last)
    return transcript


def _well_formed(text: str) -> str:
    """Join or replace halves of surrogate pairs: JSON may carry them, UTF-8 may not."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
