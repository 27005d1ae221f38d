"""The gate: what a browser may say to the model, and what it is told of what the model says.

One gate stands at one interview. Who comes through it is a `Client`: an *open* one without a token
may choose instructions and voice, and sees all but instructions that it did not choose; an
*invited* candidate takes part in the conversation and chooses nothing, and what the integrator told
the model stays hidden; a *trusted* client does nearly what it likes. ``gate_rules`` holds the
tables for the way up, ``withholding`` the one for the way down; here is what depends on the
conversation so far.

The gate judges events in GA shape, so it stands behind the dialect. It never changes an event.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..types import Json
from . import realtime
from .allowance import Allowance
from .gate_rules import INVITED, OPEN, TRUSTED, WIDENING, Rule, checked_session, with_given_tools
from .refusal import GateRefused, event_id_of, new_event_id
from .withholding import OF_SESSION, digest_of, is_shown, session_told, withhold, without_ours

EVENTS_PER_SECOND: Final = 50
"""What a browser may send, if nobody says otherwise."""

SECONDS_AT_ONCE: Final = 2
"""So many seconds' worth of it may come at once."""

ITEMS_PER_SECOND: Final = 1
ITEMS_AT_ONCE: Final = 20
"""Messages that an invited candidate may type; each is read, and paid for, with every reply."""

REPLIES_PER_SECOND: Final = 1
REPLIES_AT_ONCE: Final = 20
"""Replies that it may ask for: with cancelling, each is begun anew, and paid for."""

REFUSALS_PER_SECOND: Final = 5
REFUSALS_AT_ONCE: Final = 50
"""Refused events that are answered."""

MOST_ITEMS: Final = 4096
"""Items known; beyond, the oldest is forgotten and cannot be asked for any more."""

MOST_REPLIES: Final = 64
"""Hidden replies known at once."""

MOST_OWED: Final = 8
"""Updates of a session, before it exists, that will be answered."""

MOST_EVENT_IDS: Final = 256
"""Ids of a browser's own events that are remembered, to know which errors are for it."""


_NOTED: Final = frozenset(
    {realtime.ItemAdded, realtime.ItemDone, realtime.ItemDeleted, realtime.ReplyStarted}
)
_ERROR_FIELDS: Final = ("type", "code", "message", "param", "event_id")


class Client(enum.Enum):
    """Who is at the browser's end."""

    OPEN = "open"
    INVITED = "invited"
    TRUSTED = "trusted"


class Gate:
    """Decides about the events of one interview, in both directions."""

    def __init__(self, events_per_second: int = EVENTS_PER_SECOND) -> None:
        """``events_per_second`` is what a browser may send; 0 counts none."""
        self._per_second = events_per_second
        self._session: Json | None = None
        self.chosen: bytes | None = None
        """Digest of the instructions that an open client set last."""
        self.given: tuple[str, ...] = ()
        """Names of the tools that the server gave the interviewer."""
        self._items: dict[str, bool] = {}
        """Whether the browser may know of it, by item id."""
        self._before_hidden: dict[str, str | None] = {}
        """What stands before each hidden item."""
        self._hidden_replies: deque[str] = deque(maxlen=MOST_REPLIES)
        # Of the interview, not of a connection: coming back fills none of them.
        self._events = Allowance(events_per_second, events_per_second * SECONDS_AT_ONCE, 1)
        self._typed = Allowance(ITEMS_PER_SECOND, ITEMS_AT_ONCE, 1)
        self._replies = Allowance(REPLIES_PER_SECOND, REPLIES_AT_ONCE, 1)
        self._refusals = Allowance(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, 1)
        self.client = Client.OPEN
        self.serve(Client.OPEN)

    def serve(self, client: Client, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        """Begin with another browser connection.

        Args:
            allow: event types that an invited one may send besides.
            deny: event types that neither it nor an open one may send.
        """
        self.client = client
        rules: dict[str, Rule] = {}
        match client:
            case Client.OPEN:
                rules = dict(OPEN)
            case Client.TRUSTED:
                rules, deny = dict(TRUSTED), ()
            case Client.INVITED:
                rules = {**INVITED, **{kind: WIDENING[kind] for kind in allow if kind in WIDENING}}
        self._rules: Mapping[str, Rule] = {
            kind: rule for kind, rule in rules.items() if kind not in frozenset(deny)
        }
        self._owed = 0
        self._event_ids: deque[str] = deque(maxlen=MOST_EVENT_IDS)

    @property
    def withholds(self) -> bool:
        """Whether the browser is told less than the model says."""
        return self.client is Client.INVITED

    @property
    def blanks(self) -> bool:
        """Whether it is told all, but of instructions only those that it chose."""
        return self.client is Client.OPEN

    # -- browser to model -------------------------------------------------------------------------

    def count(self, now: float) -> None:
        """Note that a message came at ``now`` (seconds of a clock that never goes back).

        Raises `GateRefused` if they come too fast.
        """
        if self._per_second and not self._events.take("", now):
            raise GateRefused("rate_limit_exceeded", "Events come too fast.")

    def may_answer(self, now: float) -> bool:
        """Whether one more refusal is to be answered; a flood of events gets no flood back."""
        return self._refusals.take("", now)

    def admit(self, event: Json, now: float) -> Json | None:
        """Return the event as the model may see it; None if the gate answers it by itself.

        What is to be answered by then, `due` has. Raises `GateRefused` for an event to be answered
        with an error.
        """
        kind = event.get("type")
        rule = self._rules.get(kind) if isinstance(kind, str) else None
        if rule is None:
            if kind != "session.update":
                raise GateRefused("invalid_value", "This client may not send such events.", "type")
            # A stock client sends its whole configuration and waits: it is told what is in force.
            checked_session(event)
            if self._owed >= MOST_OWED:
                raise GateRefused("too_many_events", "Too many updates wait for the session.")
            self._owed += 1
            return None
        admitted = rule(event)
        if self.client is Client.TRUSTED:
            admitted = with_given_tools(admitted, self.given)
        if self.client is Client.OPEN and kind == "session.update":
            instructions = admitted["session"].get("instructions")
            if instructions is not None:
                self.chosen = digest_of(instructions)
        if self.withholds:
            self._check_conversation(admitted, now)
            event_id = event_id_of(admitted)
            if event_id is not None:
                self._event_ids.append(event_id)
        return admitted

    @property
    def owes(self) -> bool:
        """Whether `due` has something."""
        return self._owed > 0 and self._session is not None

    def due(self) -> list[Json]:
        """What the gate has to tell the browser itself, once each; empty before the session is."""
        if self._session is None or not self._owed:
            return []
        owed, self._owed = self._owed, 0
        return [
            {"type": "session.updated", "event_id": new_event_id(), "session": self._session}
            for _ in range(owed)
        ]

    def _check_conversation(self, event: Json, now: float) -> None:
        """Refuse what names something that is not there, or that the browser may not know of."""
        match event:
            case {"type": "conversation.item.create", "item": {"id": item_id}} if (
                item_id in self._items
            ):
                raise GateRefused("invalid_value", "There is an item of this id.", "item.id")
            case {"type": "conversation.item.create"} if not self._typed.take("", now):
                raise GateRefused("rate_limit_exceeded", "Messages come too fast.")
            case {"type": "response.create"} if not self._replies.take("", now):
                raise GateRefused("rate_limit_exceeded", "Replies are asked for too fast.")
            case {"type": str(kind), "item_id": item_id} if not self._items.get(item_id, False):
                verb = kind.rpartition(".")[2]
                raise GateRefused(
                    f"item_{verb}_invalid_item_id",
                    "An item of this id does not exist.",
                    "item_id",
                )
            case {"type": "response.cancel", "response_id": reply} if reply in self._hidden_replies:
                raise GateRefused(
                    "response_cancel_not_active", "Cancellation failed: no active response found"
                )
            case _:
                pass

    # -- model to browser -------------------------------------------------------------------------

    def note(self, event: realtime.ModelEvent) -> None:
        """Learn from an event of the model's what there is, before it is told."""
        if type(event) not in _NOTED:
            return
        match event:
            case realtime.ItemAdded() | realtime.ItemDone():
                self._items[event.item_id] = shown = is_shown(event.kind, event.role)
                if not shown and event.previous_item_id != realtime.UNPLACED:
                    self._before_hidden.setdefault(event.item_id, event.previous_item_id)
                while len(self._items) > MOST_ITEMS:
                    oldest = next(iter(self._items))
                    del self._items[oldest]
                    self._before_hidden.pop(oldest, None)
            case realtime.ItemDeleted(item_id):
                self._items.pop(item_id, None)
            case realtime.ReplyStarted(response_id, True):
                self._hidden_replies.append(response_id)
            case _:
                pass

    def note_session(self, session: Json | None) -> None:
        """Keep what a browser may be told of the session now in force, if there is one."""
        if session is not None:
            self._session = session

    def tell(self, event: Json) -> Json | None:
        """Return the model's event as the browser may see it; None if it may not.

        The very same object where nothing is withheld.
        """
        if event["type"] in OF_SESSION:
            self.note_session(session_told(event.get("session")))
        if self.blanks:
            return without_ours(event, self.chosen)
        if not self.withholds:
            return event
        if self._hidden_replies and self._of_hidden_reply(event):
            return None
        told = withhold(event)
        if told is None:
            return None
        if told["type"] == "error":
            return self._error(event, told)
        if self._before_hidden:
            return self._without_hidden(told)
        return told

    def hides(self, response_id: str | None) -> bool:
        """Whether the browser is told nothing of this reply: one that joins no conversation is
        ours, for an invited candidate cannot ask for such."""
        return self.withholds and response_id in self._hidden_replies

    def _of_hidden_reply(self, event: Json) -> bool:
        response = event.get("response")
        reply = response.get("id") if isinstance(response, dict) else event.get("response_id")
        return reply in self._hidden_replies

    def _error(self, event: Json, told: Json) -> Json | None:
        """An error about an event of the browser's own is told whole, one about ours not at all."""
        error = event.get("error")
        about = error.get("event_id") if isinstance(error, dict) else None
        if about is None or not isinstance(error, dict):
            return told
        if about not in self._event_ids:
            return None
        return told | {"error": {name: error[name] for name in _ERROR_FIELDS if name in error}}

    def _without_hidden(self, told: Json) -> Json | None:
        """Leave hidden items out of the chain that places each behind another."""
        item_id = told.get("item_id")
        if isinstance(item_id, str) and item_id in self._before_hidden:
            return None
        before: Any = told.get("previous_item_id")
        if not isinstance(before, str) or before not in self._before_hidden:
            return told
        for _ in range(MOST_ITEMS):
            if before not in self._before_hidden:
                break
            before = self._before_hidden[before]
        return told | {"previous_item_id": before}
