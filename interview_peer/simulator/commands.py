"""What the conversation asks of the call, and the rules it plays by. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Json
from .library import Line


@dataclass(frozen=True, slots=True)
class Rules:
    """How this simulated model behaves. Seconds unless the name says otherwise.

    ``planted_error``: text of an ``error`` event sent right after ``session.created``.
    ``retrieve_audio``: answer ``conversation.item.retrieve`` with base64 audio (silence of the
    item's length), which makes for messages of 64 kB per second of speech.
    """

    greet: bool = True
    greet_after: float = 0.3
    generation_speed: float = 4.0
    session_seconds: float = 3600.0
    planted_error: str | None = None
    transcription_failure_share: float = 0.0
    retrieve_audio: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send this event to the client."""

    event: Json


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
class HangUp:
    """End the call."""

    reason: str


Command = Send | Play | Limit | Stop | Listen | HangUp
