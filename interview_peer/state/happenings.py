"""What the media side tells the chronicle: one frozen class for each kind of happening.

A happening carries all that is needed to write it, so that it can wait. Its id is made when it
happens: by it a repeated write is known.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..core.acts import Entry
from ..core.consent import Consent
from ..core.lifecycle import Phase, Reason
from ..core.turns import Turn
from ..types import Json, SessionId


def _id() -> str:
    return secrets.token_hex(16)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happened to one interview, at ``at`` (with a zone)."""

    interview_id: SessionId
    at: datetime = field(default_factory=_now)
    id: str = field(default_factory=_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Happening):
    """The voice service took the call: an interview that nobody had made is made by this."""

    persona: str | None = None
    consent: Consent | None = None
    """The agreement it was begun with, where one was needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Happening):
    """The first offer came to nothing, answered or not: nobody was connected by it. An invited
    candidate may try again, on another node too."""

    claim: str
    """Which taking is given back; a later one stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered(Happening):
    """Whoever showed this join token is connected: it lets in nobody else."""

    token: str
    """Its ``jti``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Happening):
    """Candidate and interviewer hear each other for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached(Happening):
    """The browser is gone; the model is held for it."""

    reason: str = "browser_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned(Happening):
    """The browser is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(Happening):
    """Legs are closing, files are being finished."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns(Happening):
    """The conversation changed: from ``position`` on it is ``turns`` now.

    May be left out when too much waits: ``Finished`` has them all.
    """

    position: int
    turns: tuple[Turn, ...]
    settled: tuple[tuple[int, Turn], ...]
    """Place and turn of each that was settled by this, in order."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One finished file of the recording."""

    name: str
    bytes: int
    sha256: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingBroke(Happening):
    """The recording of an interview that goes on came to an end."""

    reason: str
    """One word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Happening):
    """The interview is over and its files are closed: everything that its end tells, at once."""

    phase: Phase
    """ENDED or FAILED."""
    reason: Reason
    opened_at: datetime | None = None
    """When its recording began; None if it never came to that."""
    seconds: float | None = None
    """From the first time both heard each other to the end; None if they never did."""
    usage: Json | None = None
    turns: tuple[Turn, ...] | None = None
    """The whole conversation; None leaves what is written as it is."""
    transcript: Json | None = None
    """The finished document; None if there is none."""
    recording_failed: str | None = None
    """One word for why the recording, or a part of it, is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingMade(Happening):
    """The recording of an interview that is over was finished: its files will not change."""

    files: tuple[Recorded, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLost(Happening):
    """The recording of an interview that is over could not be finished."""

    reason: str
    """One word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted(Happening):
    """An operator did something, or what became of it is known by now."""

    interview_id: SessionId = SessionId("")
    """Empty where it was done to no interview."""
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased(Happening):
    """Sound and text were erased for good; the words in the database go with them."""

    reason: str
    """``request`` or ``retention``."""
