"""What operators do that is written down: the names of all acts, and which of them are one.

An act holds ids alone: no name of a candidate, nothing that was said, no key and no token.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .allowance import Allowance

FOLD_SECONDS: Final = 600.0
"""A player asks for a recording in many pieces: what one key reads of one thing within so long is
one act, told by its first request."""
REFUSALS_AT_ONCE: Final = 60
REFUSALS_PER_SECOND: Final = 0.1
"""Refusals of one key that are written down one by one; of what is beyond only the number is."""
MOST_REMEMBERED: Final = 1_000
"""Readings that further ones can be folded into; beyond, the oldest is forgotten."""


class Act(StrEnum):
    """Every act there is. The values stand in the database and in answers."""

    INTERVIEW_MADE = "interview.made"
    INTERVIEW_FOLLOWED = "interview.followed"
    INTERVIEW_INSTRUCTED = "interview.instructed"
    INTERVIEW_SAID = "interview.said"
    INTERVIEW_ENDED = "interview.ended"
    INTERVIEW_ERASED = "interview.erased"
    CLIENT_SECRET_MADE = "client_secret.made"
    TRANSCRIPT_READ = "transcript.read"
    RECORDING_LISTED = "recording.listed"
    RECORDING_READ = "recording.read"
    KEY_MADE = "key.made"
    KEY_REVOKED = "key.revoked"
    WEBHOOK_MADE = "webhook.made"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_TESTED = "webhook.tested"
    DELIVERY_READ = "delivery.read"
    DELIVERY_RETRIED = "delivery.retried"
    DELIVERIES_REPLAYED = "deliveries.replayed"
    DRAIN_BEGUN = "drain.begun"
    DATABASE_MIGRATED = "database.migrated"
    REFUSALS_LEFT_OUT = "refusals.left_out"
    """Not asked for: how many refusals of a key were too many to have a row each."""


class Outcome(StrEnum):
    """What became of an act."""

    BEGUN = "begun"
    """It is under way, or the process did not live to write what became of it."""
    DONE = "done"
    REFUSED = "refused"
    """Nothing, or not all of it, was done; the code says why."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: a key, never what opens with it."""

    id: str
    """Of a key that is kept, the id that ``/api/keys`` tells; else one of the words below."""
    name: str


ENVIRONMENT: Final = Actor("environment", "INTERVIEW_ADMIN_KEY")
KEYLESS: Final = Actor("none", "no key is set")
"""Whoever asks a simulation on this machine."""
COMMAND_LINE: Final = Actor("command-line", "interview-peer")
SERVER: Final = "server"
"""Id of the server itself, which erases by age and goes on with what was begun; its name is why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act, as it is kept."""

    id: str
    """Sorts by when it was made."""
    at: int
    """When it began, in microseconds since 1970 in UTC."""
    act: Act | str
    """A name that this server does not know was written by a newer one on the same database."""
    actor: Actor
    address: str | None
    """Of the client, as far as trusted proxies tell it."""
    interview_id: str | None = None
    object_id: str | None = None
    """Of what was acted upon, where that is no interview: a key, an endpoint, a delivery. For
    ``REFUSALS_LEFT_OUT`` it is their number."""
    outcome: Outcome = Outcome.BEGUN
    code: str | None = None
    """The stable code of a refusal."""
    left_out: bool = False
    """Whether it is one refusal too many: nothing was done, and what was written of it goes."""


Reading = tuple[str, str, str, str, str]
"""The key's id, the act, what was read, the client's address, and the code of a refusal."""


class Readings:
    """Which readings were written down lately. Time is an argument, in seconds of any clock that
    never goes back."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._written: OrderedDict[Reading, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._written)

    def is_known(self, reading: Reading, now: float) -> bool:
        """Whether this one belongs to one that was written down."""
        at = self._written.get(reading)
        return at is not None and now - at < FOLD_SECONDS

    def written(self, reading: Reading, now: float) -> None:
        """It is written down now."""
        self._written[reading] = now
        self._written.move_to_end(reading)
        if len(self._written) > self._most:
            self._written.popitem(last=False)


@dataclass(slots=True)
class LeftOut:
    """Refusals of one key that have no rows."""

    actor: Actor
    at: int
    """When the first of them was, in microseconds since 1970 in UTC."""
    count: int = 0


class Refusals:
    """Which refusals are written down, and how many are not. Time is as in ``Readings``."""

    def __init__(self) -> None:
        self._allowed = Allowance(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, MOST_REMEMBERED)
        self._left_out: dict[str, LeftOut] = {}

    def take(self, actor: Actor, now: float) -> bool:
        """Whether one more of this key is written down."""
        return self._allowed.take(actor.id, now)

    def leave_out(self, actor: Actor, at: int) -> None:
        """Count one that is not; ``at`` is as in `LeftOut`."""
        self._left_out.setdefault(actor.id, LeftOut(actor, at)).count += 1

    def collect(self) -> list[LeftOut]:
        """Those that were counted since this was asked last."""
        left_out, self._left_out = self._left_out, {}
        return [*left_out.values()]
