"""When the voice service's session ends by itself, and what it means when the service is gone.

A session of the service lasts an hour at most. Its end may be told by an error, or be nothing but
a closed connection; since the service names the moment beforehand, both are known for what they
are. Plain code: time is an argument.
"""

from __future__ import annotations

from typing import Final

from . import realtime
from .lifecycle import Reason

EXPIRED: Final = "session_expired"
"""The code of the service's error that says so."""

MARGIN_SECONDS: Final = 5.0
"""How much earlier than it was told to a session may end, and still have ended by that: the
moment is told in whole seconds, by another clock than ours."""


class ModelSession:
    """What is known of one session of the service's."""

    def __init__(self) -> None:
        self.ends_at: float | None = None
        """When (monotonic, as all ``now`` here) it ends by itself; None before that is known."""
        self.expired = False
        """Whether the service said that it has."""

    def heard(self, event: realtime.ModelEvent, now: float, wall: float) -> None:
        """Take in an event; ``wall`` is ``now`` in Unix seconds."""
        match event:
            case (
                realtime.SessionCreated(expires_at=int() as expires_at)
                | realtime.SessionUpdated(expires_at=int() as expires_at)
            ) if expires_at > wall:
                # Where our own clock is wrong by an hour, nothing is known.
                self.ends_at = now + (expires_at - wall)
            case realtime.ModelError(code=code) if code == EXPIRED:
                self.expired = True
            case _:
                pass

    def over(self, now: float) -> bool:
        """Whether it has come to its own end."""
        near = self.ends_at is not None and now >= self.ends_at - MARGIN_SECONDS
        return self.expired or near

    def reason(self, now: float, *, in_order: bool) -> Reason:
        """Why an interview ends whose service is gone, closing in order or without a word."""
        if self.over(now):
            return Reason.MODEL_EXPIRED
        return Reason.MODEL_CLOSED if in_order else Reason.MODEL_LOST
