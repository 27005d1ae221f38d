"""Carries ``oai-events`` between the two legs of one interview, in order, and taps them.

Each message is parsed once, here, into types: the dialect turns it into the shape its receiver
speaks, the gate judges what a browser says, the transcript and the journal take what passed.
One call a message, on the event loop, in the order of arrival: no task, no reordering.

The model may send more than the event loop can parse between two packets. Such a message is read
elsewhere (``reader``), and until it has passed, what follows it waits behind it (``backlog``). A
browser may not: its messages are measured before they are parsed, and refused.
"""

from __future__ import annotations

import collections
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from ..core import realtime
from ..core.beta import ClientDialect
from ..core.gate import EVENTS_PER_SECOND, Gate
from ..core.reading import Reading, without_audio
from ..core.redaction import Redactor
from ..core.refusal import (
    GateRefused,
    check_size,
    error_event,
    new_event_id,
    refusal_event,
)
from ..core.replay import place_line, speech_line
from ..core.speech_redaction import SpeechRedactor
from ..core.transcript import Transcript
from ..core.usage import add_usage
from ..errors import CallerError
from ..media.leg import ChannelClosed, Leg, MessageTooLarge
from ..tasks import Tasks
from ..types import Direction, Json, Speaker
from .backlog import Backlog
from .reader import EventReader, Unreadable

MOST_PARSED_HERE: Final = 64 * 1024
"""Longest event, in characters, that is parsed on the event loop: 1 to 3 ms of small objects."""

MOST_READINGS: Final = 5
"""How often a large event is read for browsers that come one upon the other meanwhile."""

MAX_WAITING: Final = 512
"""Events kept for a channel that is not open yet. A client sends a handful; the rest is abuse."""

MAX_WAITING_CHARACTERS: Final = 512 * 1024
"""The same by length: an interview's memory is meant to stay below a megabyte."""

_SETTLING: Final = (
    realtime.InputTextDone,
    realtime.InputTextFailed,
    realtime.ReplyDone,
    realtime.PlayoutStopped,
    realtime.PlayoutCleared,
    realtime.ItemTruncated,
    realtime.ItemDeleted,
)
"""Events after which the conversation's text is another."""

Journal = Callable[[Direction | None, float, Json | str], None]
"""Takes an event's direction, its arrival (monotonic) and the event, as parsed or as JSON text."""


class EventRelay:
    """Both directions of one interview's event channel.

    Legs come and go by ``bind``. What arrives for a channel that has not opened yet waits, in
    order; while the browser is away (``browser=None``) the model's events go to the taps alone.
    """

    def __init__(
        self,
        journal: Journal,
        elapsed: Callable[[float], float],
        redactor: Redactor,
        reader: EventReader,
        tasks: Tasks,
        log: logging.LoggerAdapter[logging.Logger],
        spoken: Callable[[], None] = lambda: None,
        heard_at: Callable[[int], float | None] = lambda audio_ms: None,
        piece: Callable[[str, str, str], None] = lambda item_id, speaker, text: None,
        speech: SpeechRedactor | None = None,
        told: Callable[[realtime.ModelEvent], None] = lambda event: None,
        events_per_second: int = EVENTS_PER_SECOND,
    ) -> None:
        """Begin without legs.

        Args:
            journal: keeps what passed.
            elapsed: an arrival (monotonic) in seconds since the interview's start.
            redactor: masks the server's secrets in what the model says.
            reader: reads what is too large for the event loop.
            tasks: run what waits meanwhile.
            log: the interview's.
            spoken: is called when a turn may have been settled.
            heard_at: a place in what the model heard (milliseconds), in seconds of the recording.
            piece: is told item, speaker and text of what is not settled yet.
            speech: takes out of texts what may not be kept; pieces of texts are withheld then.
            told: is told every event of the model's, once it was kept.
            events_per_second: what a browser may send; 0 counts none.
        """
        self.transcript = Transcript()
        self.usage: Json = {}
        """What the model's service counted in all replies so far."""
        self.counters: collections.Counter[str] = collections.Counter()
        self._journal = journal
        self._elapsed = elapsed
        self._reader = reader
        self._behind = Backlog(tasks, self._take, log)
        self._heard_at = heard_at
        self._piece = piece
        self._speech = speech
        self._told = told
        self._aside: set[str] = set()
        """Replies under way that join no conversation."""
        self._redactor = redactor
        self._log = log
        self._spoken = spoken
        self._dialect = ClientDialect()
        self.gate = Gate(events_per_second)
        """What the browser may say to the model, and be told of it."""
        self._browser: Leg | None = None
        self._model: Leg | None = None
        self.last_event_at = 0.0
        """When (monotonic) either side last sent an event."""
        self._for_model = _Waiting()
        self._for_browser = _Waiting()

    def bind(self, browser: Leg | None, model: Leg | None) -> None:
        """Relay between these legs from now on. A new browser starts in the GA dialect."""
        if browser is not self._browser:
            self._browser = browser
            self._dialect = ClientDialect()
            self._for_browser.clear()
        self._model = model

    def opened(self, leg: Leg) -> None:
        """A leg's channel opened: send what waited for it."""
        if leg is self._model:
            while self._for_model:
                self._send_to_model(*self._for_model.take())
        elif leg is self._browser:
            while self._for_browser:
                self._send_to_browser(*self._for_browser.take())

    # -- browser to model -------------------------------------------------------------------

    def from_browser(self, data: str | bytes) -> None:
        """Take one message of the browser's."""
        at = self.last_event_at = time.monotonic()
        event: Json | None = None
        try:
            if isinstance(data, bytes):
                raise GateRefused("invalid_event", "Events must be sent as text.")
            check_size(data)
            self.gate.count(at)
            event = realtime.parse(data)
            spoken = self._dialect.to_model(event)
            admitted = self.gate.admit(spoken, at)
        except CallerError as error:
            code = error.openai_code or "invalid_event"
            self._refuse(GateRefused(code, error.message), event, at)
            return
        except GateRefused as refused:
            self._refuse(refused, event or data, at)
            return
        if admitted is None:
            self.counters["answered"] += 1
            self._journal(None, at, {"type": "interview.answered", "event": spoken["type"]})
            self._tell_due()
            return
        waits = self._model is None or not self._model.channel_open
        text = data if admitted is event else json.dumps(admitted, ensure_ascii=False)
        if waits and not self._for_model.fits(text):
            self._refuse(GateRefused("too_many_events", "Too many events wait."), event, at)
            return
        kept = self._kept(admitted)
        self._journal(Direction.TO_MODEL, at, text if kept is admitted else kept)
        if waits:
            self._for_model.put(admitted, text)
        else:
            self._send_to_model(admitted, text)

    def to_model(self, event: Json) -> bool:
        """Say something to the model ourselves; false, and dropped, if its channel is not open.

        An event without an ``event_id`` gets one that no browser can guess: so that an error about
        it is known not to be for the browser.
        """
        if self._model is None or not self._model.channel_open:
            return False
        event = {"event_id": new_event_id()} | event
        self._journal(Direction.TO_MODEL, time.monotonic(), self._kept(event))
        return self._send_to_model(event, json.dumps(event), ours=True)

    def _send_to_model(self, event: Json, text: str, *, ours: bool = False) -> bool:
        """Send an event; whether it is on its way. Of one of ``ours`` no browser hears."""
        assert self._model is not None
        try:
            self._model.send_text(text)
        except ChannelClosed:
            self.counters["model_closed"] += 1
            return False
        except MessageTooLarge:
            if ours:
                self.counters["too_large"] += 1
                return False
            refused = GateRefused("too_large", "The event is too large.")
            self._refuse(refused, event, time.monotonic())
            return False
        self.counters["to_model"] += 1
        return True

    def _refuse(self, refused: GateRefused, event: Json | str | bytes | None, at: float) -> None:
        """Answer an event that goes no further, as parsed or as it came, unless it is one of a
        flood."""
        self.counters["refused"] += 1
        if refused.code == "rate_limit_exceeded":
            self.counters["rate_limited"] += 1
        if not self.gate.may_answer(at):
            self.counters["unanswered"] += 1
            return
        self._journal(None, at, {"type": "interview.refused", "code": refused.code})
        answer = refusal_event(refused, event if isinstance(event, dict) else _glance(event))
        self._queue_for_browser(answer, json.dumps(answer))

    def _tell_due(self) -> None:
        """Tell the browser what the gate answers by itself."""
        for event in self.gate.due():
            self._tell(event, None)

    # -- model to browser -------------------------------------------------------------------

    def from_model(self, data: str | bytes) -> None:
        """Take one message of the model's."""
        if isinstance(data, bytes):
            # Events are text. Who takes what is none for one may be led to do what nobody said.
            self.counters["model_binary"] += 1
            return
        at = self.last_event_at = time.monotonic()
        if len(data) <= MOST_PARSED_HERE and not self._behind:
            self._take_small(at, data)
        elif not self._behind.put(at, data):
            self._give_up("overflow", "event_too_large", "An event was too large to be passed on.")

    async def finish(self, seconds: float) -> None:
        """Wait, at most so long, until everything that came has been passed on or kept."""
        lost = await self._behind.drained(seconds)
        if lost:
            self.counters["unreadable"] += lost
            self._log.error("events were not read before the end", extra={"count": lost})

    async def _take(self, at: float, data: str) -> None:
        if len(data) <= MOST_PARSED_HERE:
            self._take_small(at, data)
        else:
            await self._take_large(at, data)

    def _take_small(self, at: float, data: str) -> None:
        try:
            event = realtime.parse(data)
        except CallerError:
            self._garbage()
            return
        event, text = self._redactor.event(event, data)
        kept = self._kept(event)
        self._keep(at, realtime.model_event(kept), text if kept is event else kept)
        told = self.gate.tell(event)
        if told is None:
            self.counters["withheld"] += 1
        else:
            self._tell(told, text if told is event else None)
        if self.gate.owes:
            self._tell_due()

    def _tell(self, event: Json, text: str | None) -> None:
        """Tell the browser an event, in its dialect. ``text`` is the event's, if that is known."""
        for spoken in self._dialect.to_client(event):
            if text is None or spoken is not event:
                self._queue_for_browser(spoken, json.dumps(spoken, ensure_ascii=False))
            else:
                self._queue_for_browser(spoken, text)

    async def _take_large(self, at: float, data: str) -> None:
        self.counters["large"] += 1
        try:
            reading = await self._read_for_browser(data)
        except CallerError:
            self._garbage()
            return
        except Unreadable:
            self._give_up("unreadable", "event_unreadable", "An event could not be read.")
            return
        text = data if reading.text is None else reading.text
        self._count_taken(reading.taken)
        self._keep(at, reading.typed, text if reading.kept is None else reading.kept)
        self.gate.note_session(reading.session)
        if reading.swallowed or self.gate.hides(reading.response_id):
            self.counters["withheld"] += 1
        else:
            self._queue_for_browser(reading.gist, text if reading.told is None else reading.told)
        self._tell_due()

    async def _read_for_browser(self, data: str) -> Reading:
        """Read a large event for the browser that is there when it was read: another may come
        meanwhile, who speaks another dialect or may not be told as much."""
        for _ in range(MOST_READINGS):
            now = self._dialect.is_beta, self.gate.withholds, self.gate.blanks
            # Instructions chosen meanwhile matter not: those of before were this client's as well.
            reading = await self._reader.read(
                data,
                is_beta=now[0],
                withholds=now[1],
                blanks=now[2],
                chosen=self.gate.chosen if now[2] else None,
            )
            if now == (self._dialect.is_beta, self.gate.withholds, self.gate.blanks):
                return reading
        raise Unreadable

    def _keep(self, at: float, typed: realtime.ModelEvent, event: Json | str) -> None:
        """Let gate, journal and transcript have an event that came at ``at``."""
        self.gate.note(typed)
        self._watch(typed)
        self._journal(Direction.TO_BROWSER, at, event)
        self.transcript.feed(typed, self._elapsed(at))
        self._place(typed, at)
        if isinstance(typed, _SETTLING):
            self._spoken()
        self._told(typed)

    def _kept(self, event: Json) -> Json:
        """The event as it may be written down: everything but the legs gets this one."""
        if self._speech is None:
            return event
        counts: collections.Counter[str] = collections.Counter()
        kept = self._speech.event(event, counts)
        self._count_taken(counts)
        return kept

    def _count_taken(self, counts: Mapping[str, int]) -> None:
        self.counters.update({f"redacted_{name}": count for name, count in counts.items()})

    def _place(self, event: realtime.ModelEvent, at: float) -> None:
        """Note where in the recording the model heard speech begin or end."""
        match event:
            case realtime.SpeechStarted(item_id, int() as audio_ms):
                edge = "start"
            case realtime.SpeechStopped(item_id, int() as audio_ms):
                edge = "end"
            case _:
                return
        heard_at = self._heard_at(audio_ms)
        if heard_at is not None:
            line = speech_line(item_id, edge, round(heard_at, 3))
            self._journal(None, at, line)
            place_line(self.transcript, line)

    def _garbage(self) -> None:
        self.counters["model_garbage"] += 1
        self._log.warning("the voice service sent an event that is not JSON")

    def _give_up(self, counter: str, code: str, sentence: str) -> None:
        """Count an event of the model's that is lost, and say so to everyone who would have it."""
        self.counters[counter] += 1
        self._journal(None, time.monotonic(), {"type": "interview.event_lost", "code": code})
        answer = error_event(code, sentence)
        self._queue_for_browser(answer, json.dumps(answer))

    def _watch(self, event: realtime.ModelEvent) -> None:
        match event:
            case realtime.ReplyTextDelta(response_id, item_id, delta):
                if delta and response_id not in self._aside:
                    self._piece(item_id, Speaker.INTERVIEWER.value, delta)
            case realtime.InputTextDelta(item_id, delta):
                if delta:
                    self._piece(item_id, Speaker.CANDIDATE.value, delta)
            case realtime.ReplyStarted(response_id, out_of_band):
                if out_of_band:
                    self._aside.add(response_id)
            case realtime.ReplyDone(response_id, usage=usage):
                self._aside.discard(response_id)
                add_usage(self.usage, usage)
            case realtime.ModelError(code=code):
                self.counters["model_errors"] += 1
                self._log.info("the voice service reported an error", extra={"code": code})
            case realtime.UnknownModelEvent():
                self.counters["unknown"] += 1
            case _:
                pass

    def _queue_for_browser(self, event: Json, text: str) -> None:
        if self._browser is None:
            self.counters["browser_away"] += 1
        elif self._browser.channel_open:
            self._send_to_browser(event, text)
        elif self._for_browser.fits(text):
            self._for_browser.put(event, text)
        else:
            self.counters["overflow"] += 1

    def _send_to_browser(self, event: Json, text: str) -> None:
        assert self._browser is not None
        try:
            self._browser.send_text(text)
            self.counters["to_browser"] += 1
        except ChannelClosed:
            self.counters["browser_closed"] += 1
        except MessageTooLarge:
            self._send_smaller(event)

    def _send_smaller(self, event: Json) -> None:
        """Send a retrieved item without its sound, or say that an event was too large."""
        assert self._browser is not None
        self.counters["too_large"] += 1
        smaller = without_audio(event) or error_event(
            "event_too_large", f"An event {event['type']!r} was too large to be passed on."
        )
        try:
            self._browser.send_text(json.dumps(smaller, ensure_ascii=False))
        except (ChannelClosed, MessageTooLarge):
            self.counters["overflow"] += 1


def _glance(data: str | bytes | None) -> Json | None:
    """The event in a message that was refused unread, for its id; None if it is none of ours."""
    if not isinstance(data, str):
        return None
    try:
        check_size(data)
        return realtime.parse(data)
    except (CallerError, GateRefused):
        return None


class _Waiting:
    """Events in order for a channel that is not open, bounded by number and by length."""

    def __init__(self) -> None:
        self._events: collections.deque[tuple[Json, str]] = collections.deque()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._events)

    def fits(self, text: str) -> bool:
        """Whether there is room for one more."""
        size = self._characters + len(text)
        return len(self._events) < MAX_WAITING and size <= MAX_WAITING_CHARACTERS

    def put(self, event: Json, text: str) -> None:
        """Add one at the end."""
        self._events.append((event, text))
        self._characters += len(text)

    def take(self) -> tuple[Json, str]:
        """The oldest, with its text."""
        event, text = self._events.popleft()
        self._characters -= len(text)
        return event, text

    def clear(self) -> None:
        """Forget all."""
        self._events.clear()
        self._characters = 0
