"""What the conversation asks of the call. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Json
from .library import Line


@dataclass(frozen=True, slots=True)
class Send:
    """Send this event to the client."""

    event: Json


@dataclass(frozen=True, slots=True)
class SendRaw:
    """Send this message as it is: text, or a binary frame. No event that a client can read."""

    message: str | bytes


@dataclass(frozen=True, slots=True)
class Play:
    """Begin to send this line's sound; report ``played_out`` with the id when it is through."""

    response_id: str
    line: Line


@dataclass(frozen=True, slots=True)
class Limit:
    """Let the sound end after this many milliseconds of it; the rest was never generated."""

    played_ms: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the sound at once; no ``played_out`` follows."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Detect speech by these settings from now on."""

    turn_detection: Json | None


@dataclass(frozen=True, slots=True)
class Drop:
    """Lose the network: from now on nothing goes out and nothing is taken in."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call."""

    reason: str


Command = Send | SendRaw | Play | Limit | Stop | Listen | Drop | HangUp
