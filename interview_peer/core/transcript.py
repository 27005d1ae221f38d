"""The transcript: events in, turns out, in the order the conversation was held.

A reducer without clock or I/O. Replaying a journal gives the same turns as listening did.

The order of arrival is not the order of speech: the text of what the candidate said is usually
finished after the reply to it. So an item's place comes from the item before it, as the service
names it, and its texts and times are collected under its id whenever they come. An item keeps its
place after it is deleted, for those that follow it, but is no turn any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from interview_peer.core.realtime import (
    DICTATED,
    UNPLACED,
    IdleTimedOut,
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
    ToolCalled,
    UnknownModelEvent,
)
from interview_peer.core.turns import (
    Steering,
    ToolCall,
    Turn,
    TurnKind,
    TurnStatus,
    document,
    heard_of,
)
from interview_peer.types import ItemId, Json, ResponseId, SessionId, Speaker

PREFIX_PADDING_MS: Final = 300
SILENCE_DURATION_MS: Final = 500
"""What the service takes where a session does not say: the one is in front of each start that it
names, the other behind each end."""

_TOOLS: Final = ("function_call", "mcp_call")

_SPEAKERS = {"user": Speaker.CANDIDATE, "assistant": Speaker.INTERVIEWER}


@dataclass(slots=True)
class _Reply:
    """What is known of one reply as a whole; its items share its playout."""

    out_of_band: bool = False
    playout_started_at: float | None = None
    playout_ended_at: float | None = None
    done_at: float | None = None
    cut: bool = False
    dictated_at: float | None = None
    """When it began, if its words were given by somebody outside."""
    unheard_from: float | None = None
    """From when on nobody was there to hear it: the browser was away while it sounded."""
    spoken_ms: int | None = None
    """How long its sound is, by the service's own count."""
    items: list[ItemId] = field(default_factory=list)
    """Its items that were spoken or written."""


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
    idle: bool = False
    """It is the silence after which the service went on by itself."""
    cut: bool = False
    heard_ms: int | None = None
    speech_started_at: float | None = None
    ended_at: float | None = None
    placed_start: float | None = None
    """Where in the recording speech begins, padding taken away, as is `placed_end`."""
    placed_end: float | None = None
    first_text_at: float | None = None
    written: bool = False
    tool: str | None = None
    call_id: str | None = None
    tool_at: float | None = None
    told_at: float | None = None
    """When the model was told this, by whoever is no speaker."""

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
        self._padding = PREFIX_PADDING_MS, SILENCE_DURATION_MS
        self._placements = 0
        self._closed_at: float | None = None
        self._is_away = False

    def feed(self, event: ModelEvent, at: float) -> None:
        """Take in one event of the model. `at` is its arrival in seconds since the start.

        Times are kept to the millisecond, which is what the journal holds.
        """
        at = round(at, 3)
        match event:
            case ReplyTextDelta(response_id, item_id, delta, written):
                self._said(item_id, response_id, written).add(delta, at)
            case InputTextDelta(item_id, delta):
                entry = self._heard(item_id)
                if not entry.settled:
                    entry.add(delta, at)
            case ReplyTextDone(response_id, item_id, text, written):
                self._said(item_id, response_id, written).settle(text, at)
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
            case IdleTimedOut(item_id):
                self._heard(item_id).idle = True
            case InputCommitted(item_id, previous):
                entry = self._heard(item_id)
                if entry.ended_at is None:
                    entry.ended_at = at
                self._place(entry, previous)
            case ItemAdded(item_id):
                self._bury(item_id)
                self._take_item(event, at)
            case ItemDone():
                self._take_item(event, at)
            case ReplyStarted(response_id, out_of_band, tag):
                reply = self._reply(response_id)
                reply.out_of_band = out_of_band
                if tag is not None and tag.startswith(DICTATED):
                    reply.dictated_at = at
                if self._is_away:
                    reply.unheard_from = at
            case ReplyItemAdded(response_id, item_id):
                self._entry(item_id).reply = self._reply(response_id)
            case ReplyDone(response_id, status, audio_ms=audio_ms):
                reply = self._reply(response_id)
                reply.done_at = at
                reply.spoken_ms = audio_ms
                reply.cut = reply.cut or status == "cancelled"
            case PlayoutStarted(response_id):
                reply = self._reply(response_id)
                if self._is_away:
                    reply.unheard_from = at if reply.unheard_from is None else reply.unheard_from
                elif reply.playout_started_at is None:
                    # Made while nobody was there, and heard all the same.
                    reply.unheard_from = None
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
            case SessionCreated(padding=padding) | SessionUpdated(padding=padding):
                if padding is not None:
                    prefix, silence = padding
                    self._padding = (
                        PREFIX_PADDING_MS if prefix is None else prefix,
                        SILENCE_DURATION_MS if silence is None else silence,
                    )
            case ModelError() | ToolCalled() | UnknownModelEvent():
                pass
            case _:
                assert_never(event)

    def place_speech(
        self, item_id: ItemId, *, start: float | None = None, end: float | None = None
    ) -> None:
        """Say where in the recording the service heard a stretch of speech begin or end.

        Seconds; what the service names, with its padding. The session's settings at that time
        tell how much of it that is.
        """
        entry, (prefix_ms, silence_ms) = self._heard(item_id), self._padding
        if start is not None and entry.placed_start is None:
            entry.placed_start = round(max(0.0, start + prefix_ms / 1000), 3)
        if end is not None:
            entry.placed_end = round(max(0.0, end - silence_ms / 1000), 3)

    def note_phase(self, phase: str, at: float) -> None:
        """Say that the interview came to this phase at `at`, by the name that the journal has.

        While it is ``detached`` nobody hears the interviewer; at ``ending`` it is closed.
        """
        if phase == "ending":
            self.close(at)
        self._is_away = phase == "detached"
        if not self._is_away:
            return
        for reply in self._replies.values():
            sounding = reply.playout_started_at is not None and reply.playout_ended_at is None
            if sounding and reply.unheard_from is None:
                reply.unheard_from = round(at, 3)

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

    def calls(self) -> list[ToolCall]:
        """The tools that were asked for, in order."""
        found: list[ToolCall] = []
        after: ItemId | None = None
        for entry in self._in_order():
            if entry.tool is not None and entry.tool_at is not None and not entry.deleted:
                name = _well_formed(entry.tool)
                found.append(ToolCall(entry.item_id, after, entry.tool_at, name, entry.call_id))
            elif entry.speaker is not None and self._is_turn(entry):
                after = ItemId(_well_formed(entry.item_id))
        return found

    def steerings(self) -> list[Steering]:
        """Where others than the speakers took part, in order."""
        found: list[Steering] = []
        after: ItemId | None = None
        for entry in self._in_order():
            item_id = ItemId(_well_formed(entry.item_id))
            if entry.told_at is not None and not entry.deleted:
                found.append(Steering("instruction", item_id, after, entry.told_at))
            elif entry.speaker is not None and self._is_turn(entry):
                if entry.reply is not None and entry.reply.dictated_at is not None:
                    found.append(Steering("dictated", item_id, after, entry.reply.dictated_at))
                after = item_id
        return found

    def document(self, session_id: SessionId, started_at: datetime, *, final: bool = True) -> Json:
        """What ``transcript.json`` holds. `started_at` must know its time zone."""
        turns, calls, steerings = self.turns(), self.calls(), self.steerings()
        until = self._closed_at
        return document(session_id, started_at, turns, calls, steerings, until=until, final=final)

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

    def _said(self, item_id: ItemId, response_id: ResponseId, written: bool) -> _Entry:
        entry = self._entry(item_id)
        entry.speaker = Speaker.INTERVIEWER
        entry.written = written
        reply = entry.reply = self._reply(response_id)
        if item_id not in reply.items:
            reply.items.append(item_id)
        return entry

    def _reply(self, response_id: ResponseId) -> _Reply:
        reply = self._replies.get(response_id)
        if reply is None:
            reply = self._replies[response_id] = _Reply()
        return reply

    def _take_item(self, event: ItemAdded | ItemDone, at: float) -> None:
        entry = self._entry(event.item_id)
        if event.role is not None:
            entry.speaker = _SPEAKERS.get(event.role)
        if event.kind in _TOOLS:
            entry.tool, entry.call_id = event.name or entry.tool or "", event.call_id
            entry.tool_at = at if entry.tool_at is None else min(entry.tool_at, at)
        if event.role == "system":
            entry.told_at = at if entry.told_at is None else min(entry.told_at, at)
        self._place(entry, event.previous_item_id)
        entry.written = entry.written or event.written
        # A cut reply may come back with less text than was generated: never take a shorter one.
        if event.text and len(event.text) >= len(entry.text):
            entry.settle(event.text, at)

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
            if entry.idle and entry.speech_started_at is None:
                # Whatever a transcription makes of silence, nobody said it.
                return False
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
            cut = cut or self._audible_ms(entry) is not None
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
        text = "" if entry.failed else _well_formed(entry.text).strip()
        cut_short = speaker is Speaker.INTERVIEWER and status is TurnStatus.INTERRUPTED
        heard_ms = self._heard_ms(entry) if cut_short and not entry.written else None
        heard_text = None
        if heard_ms is not None:
            heard_text = heard_of(text, heard_ms, self._spoken_ms(entry))
        return Turn(
            item_id=ItemId(_well_formed(entry.item_id)),
            speaker=speaker,
            text=text,
            started_at=started_at,
            ended_at=ended_at,
            status=status,
            heard_ms=heard_ms,
            kind=TurnKind.TEXT if entry.written else TurnKind.SPEECH,
            heard_text=heard_text,
        )

    def _heard_ms(self, entry: _Entry) -> int | None:
        """How much of a cut reply was heard: never more than was played before nobody was there."""
        played, audible = self._played_ms(entry), self._audible_ms(entry)
        if not played or audible is None:
            # With nothing audible nothing was heard, whatever was played.
            return 0 if audible == 0 else played
        return min(played, audible)

    def _audible_ms(self, entry: _Entry) -> int | None:
        """How much of it was played before nobody was there; None if somebody always was."""
        reply = entry.reply
        if entry.written or reply is None or reply.unheard_from is None:
            return None
        if reply.playout_started_at is None:
            return 0
        return max(0, round((reply.unheard_from - reply.playout_started_at) * 1000))

    def _played_ms(self, entry: _Entry) -> int | None:
        """How much of a cut reply was played: the service's word, or else our own clock's."""
        if entry.heard_ms is not None:
            return entry.heard_ms
        reply = entry.reply
        if reply is None or len(reply.items) > 1:
            # Which of several items the clock speaks of is not known.
            return None
        if reply.playout_started_at is None:
            return 0
        ended_at = reply.playout_ended_at
        if ended_at is None:
            ended_at = self._closed_at
        if ended_at is None:
            return None
        return max(0, round((ended_at - reply.playout_started_at) * 1000))

    def _spoken_ms(self, entry: _Entry) -> int | None:
        """How long all of an item's sound is, heard or not; its share, if a reply has several."""
        reply = entry.reply
        if reply is None or reply.spoken_ms is None or len(reply.items) < 2:
            return None if reply is None else reply.spoken_ms
        total = sum(len(one.text) for name in reply.items if (one := self._entries.get(name)))
        return reply.spoken_ms * len(entry.text) // total if total else None

    def _is_cut(self, reply: _Reply) -> bool:
        sounding = reply.playout_started_at is not None and reply.playout_ended_at is None
        return reply.cut or (sounding and self._closed_at is not None)

    def _candidate_times(self, entry: _Entry) -> tuple[float | None, float | None]:
        if entry.speech_started_at is None and entry.ended_at is None:
            # Typed, not spoken: it took place when it was sent.
            return entry.first_text_at, entry.first_text_at
        start, end = entry.placed_start, entry.placed_end
        if start is None:
            start = entry.speech_started_at
        if end is None or entry.ended_at is None:
            end = entry.ended_at
        if start is not None and end is not None and end < start:
            # Speech shorter than the padding's clamp at the recording's beginning.
            start = end
        return start, end

    def _interviewer_times(self, entry: _Entry) -> tuple[float | None, float | None]:
        reply = entry.reply
        if reply is None:
            return entry.first_text_at, entry.first_text_at
        started_at, ended_at = reply.playout_started_at, reply.playout_ended_at
        if started_at is not None:
            # The end of generation says nothing about the end of speech.
            return started_at, ended_at
        return entry.first_text_at, ended_at if ended_at is not None else reply.done_at


def _well_formed(text: str) -> str:
    """Join or replace halves of surrogate pairs: JSON may carry them, UTF-8 may not."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
