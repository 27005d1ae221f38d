"""An interview's life: its phases, what may follow what, and why it ended.

One enum, one table, one method. Nothing here knows a leg, a clock or a file; the interview asks
and obeys.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


class Phase(enum.Enum):
    """Where an interview stands. Only ``Lifecycle.handle`` moves it."""

    CREATED = "created"
    """Known by its id, and may begin; nothing has been negotiated."""
    CONSENT = "consent"
    """Waiting for the candidate to agree to being recorded: nothing may be negotiated."""
    CONNECTING = "connecting"
    """An offer came; the legs are being made."""
    LIVE = "live"
    """Both legs carry audio."""
    DETACHED = "detached"
    """The browser is gone, the model's leg is held for it."""
    ENDING = "ending"
    """Legs are closing, files are being finished."""
    ENDED = "ended"
    """Over, as somebody wished or allowed."""
    FAILED = "failed"
    """Over, because something broke."""


class Happening(enum.Enum):
    """What can happen to an interview."""

    CONSENT_ASKED = "consent_asked"
    CONSENT_GIVEN = "consent_given"
    OFFER_TAKEN = "offer_taken"
    NEGOTIATION_FAILED = "negotiation_failed"
    CONNECTED = "connected"
    CONNECT_TIMED_OUT = "connect_timed_out"
    BROWSER_LOST = "browser_lost"
    BROWSER_BACK = "browser_back"
    MODEL_LOST = "model_lost"
    END_REQUESTED = "end_requested"
    FILES_CLOSED = "files_closed"


class Reason(enum.Enum):
    """Why an interview ended. The value goes out on the wire and into files."""

    CLIENT_REQUEST = "client_request"
    BROWSER_GONE = "browser_gone"
    IDLE = "idle"
    OPERATOR_REQUEST = "operator_request"
    """``POST /api/interviews/{id}/end`` or an erasure."""
    INTERVIEWER_ENDED = "interviewer_ended"
    """The interviewer called ``end_interview``."""
    SERVER_SHUTDOWN = "server_shutdown"
    CONNECT_TIMEOUT = "connect_timeout"
    BROWSER_FAILED = "browser_failed"
    """The browser's leg broke before the interview was live."""
    MODEL_UNREACHABLE = "model_unreachable"
    """The browser stood, the model's leg never did."""
    MODEL_LOST = "model_lost"
    """The voice service fell silent, or its connection broke."""
    MODEL_CLOSED = "model_closed"
    """The voice service closed the call in order, before its time was over."""
    MODEL_EXPIRED = "model_expired"
    """The voice service's session came to the longest length that it has."""
    TIME_LIMIT = "time_limit"
    """As long as this server's operator, or whoever made it, allowed."""
    USAGE_LIMIT = "usage_limit"
    """As many tokens as this server's operator allows."""
    CONSENT_REFUSED = "consent_refused"
    """The candidate did not agree to being recorded."""
    EXPIRED = "expired"
    """Nobody came while it could be joined."""
    RECOVERED = "recovered"
    """The server went down within it; closed afterwards, from what was on disk."""
    INTERNAL = "internal"


FAILURES = frozenset(
    {
        Reason.CONNECT_TIMEOUT,
        Reason.BROWSER_FAILED,
        Reason.MODEL_UNREACHABLE,
        Reason.MODEL_LOST,
        Reason.MODEL_CLOSED,
        Reason.INTERNAL,
    }
)

_H, _P = Happening, Phase

TRANSITIONS: Mapping[Phase, Mapping[Happening, Phase]] = MappingProxyType(
    {
        _P.CREATED: {
            _H.CONSENT_ASKED: _P.CONSENT,
            _H.OFFER_TAKEN: _P.CONNECTING,
            _H.END_REQUESTED: _P.ENDING,
        },
        _P.CONSENT: {_H.CONSENT_GIVEN: _P.CREATED, _H.END_REQUESTED: _P.ENDING},
        _P.CONNECTING: {
            _H.NEGOTIATION_FAILED: _P.CREATED,
            _H.CONNECTED: _P.LIVE,
            _H.CONNECT_TIMED_OUT: _P.ENDING,
            _H.BROWSER_LOST: _P.ENDING,
            _H.MODEL_LOST: _P.ENDING,
            _H.END_REQUESTED: _P.ENDING,
        },
        _P.LIVE: {
            _H.BROWSER_LOST: _P.DETACHED,
            _H.MODEL_LOST: _P.ENDING,
            _H.END_REQUESTED: _P.ENDING,
        },
        _P.DETACHED: {
            _H.BROWSER_BACK: _P.LIVE,
            _H.MODEL_LOST: _P.ENDING,
            _H.END_REQUESTED: _P.ENDING,
        },
        _P.ENDING: {_H.FILES_CLOSED: _P.ENDED},
        _P.ENDED: {},
        _P.FAILED: {},
    }
)
"""``FILES_CLOSED`` leads to ``FAILED`` instead where the reason is one of ``FAILURES``."""

WAITING = frozenset({Phase.CREATED, Phase.CONSENT})
"""Nothing has begun: no leg, no file, no call."""

OVER = frozenset({Phase.ENDING, Phase.ENDED, Phase.FAILED})

IGNORED_WHEN_OVER = frozenset(
    {
        Happening.BROWSER_LOST,
        Happening.MODEL_LOST,
        Happening.CONNECT_TIMED_OUT,
        Happening.END_REQUESTED,
        Happening.CONNECTED,
        Happening.NEGOTIATION_FAILED,
    }
)
"""Legs report their end while we are ending; a second request to end asks for nothing new."""


class UnexpectedHappening(Exception):
    """A happening that the table does not allow in this phase: a mistake of ours."""

    def __init__(self, phase: Phase, happening: Happening) -> None:
        super().__init__(f"{happening.value} cannot happen while {phase.value}")


@dataclass(slots=True)
class Lifecycle:
    """The phase of one interview and why it ended."""

    phase: Phase = Phase.CREATED
    reason: Reason | None = field(default=None)

    @property
    def over(self) -> bool:
        """Whether the interview is ending or has ended."""
        return self.phase in OVER

    def handle(self, happening: Happening, reason: Reason | None = None) -> bool:
        """Apply what happened; true if the phase changed.

        The first reason to end stays.

        Raises:
            UnexpectedHappening: the table has no such step.
        """
        if self.over and happening in IGNORED_WHEN_OVER:
            return False
        after = TRANSITIONS[self.phase].get(happening)
        if after is None:
            raise UnexpectedHappening(self.phase, happening)
        if after is Phase.ENDING:
            self.reason = reason or Reason.INTERNAL
        elif after is Phase.ENDED and self.reason in FAILURES:
            after = Phase.FAILED
        self.phase = after
        return True
