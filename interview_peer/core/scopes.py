"""What a key of operators opens: its scopes, and those that each operation asks for.

One table over all operations that take such a key. Any one of an operation's scopes is enough.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class Scope(enum.StrEnum):
    """A part of the API that a key may use."""

    ALL = "all"
    """All of it, what later versions add as well."""
    INTERVIEWS = "interviews"
    """Make interviews, with the secrets and links of their candidates; list, steer and end them."""
    RECORDINGS = "recordings"
    """What was said: recordings, transcripts, and the events of an interview that runs."""
    ERASE = "erase"
    """Erase interviews."""
    WEBHOOKS = "webhooks"
    """Endpoints and deliveries. Notices tell what was said, so they do not come with less."""
    OPERATE = "operate"
    """Keys, what was done with them, and emptying a server."""


Scopes = frozenset[Scope]

EVERYTHING: Final[Scopes] = frozenset((Scope.ALL,))

_MAKE: Final[Scopes] = frozenset((Scope.INTERVIEWS,))
_LISTEN: Final[Scopes] = frozenset((Scope.RECORDINGS,))
_ERASE: Final[Scopes] = frozenset((Scope.ERASE,))
_NOTIFY: Final[Scopes] = frozenset((Scope.WEBHOOKS,))
_OPERATE: Final[Scopes] = frozenset((Scope.OPERATE,))
_FIND: Final[Scopes] = _MAKE | _LISTEN | _ERASE
"""Whoever reads or erases what belongs to an interview has to find it first."""

NEEDED: Final[Mapping[str, Scopes]] = MappingProxyType(
    {
        "POST /api/interviews": _MAKE,
        "GET /api/interviews": _FIND,
        "GET /api/interviews/{interview_id}": _FIND,
        "POST /api/interviews/{interview_id}/end": _MAKE,
        "POST /api/interviews/{interview_id}/instruct": _MAKE,
        "POST /api/interviews/{interview_id}/say": _MAKE,
        "POST /v1/realtime/client_secrets": _MAKE,
        "POST /v1/realtime/calls/{call_id}/hangup": _MAKE,
        # Live events hold the turns.
        "GET /api/interviews/{interview_id}/events": _LISTEN,
        "GET /api/interviews/{interview_id}/transcript": _LISTEN,
        "GET /api/interviews/{interview_id}/transcript.json": _LISTEN,
        "GET /api/interviews/{interview_id}/transcript.txt": _LISTEN,
        "GET /api/interviews/{interview_id}/transcript.vtt": _LISTEN,
        "GET /api/interviews/{interview_id}/transcript.srt": _LISTEN,
        "GET /api/interviews/{interview_id}/recording": _LISTEN,
        "GET /api/interviews/{interview_id}/recording/{which}": _LISTEN,
        "GET /api/interviews/{interview_id}/waveform": _LISTEN,
        # It may end an interview first, by `end=true`: to erase is the greater harm.
        "DELETE /api/interviews/{interview_id}": _ERASE,
        "GET /api/interviews/{id}/deliveries": _NOTIFY,
        "GET /api/webhooks": _NOTIFY,
        "POST /api/webhooks": _NOTIFY,
        "GET /api/webhooks/{id}": _NOTIFY,
        "PATCH /api/webhooks/{id}": _NOTIFY,
        "DELETE /api/webhooks/{id}": _NOTIFY,
        "POST /api/webhooks/{id}/rotate": _NOTIFY,
        "POST /api/webhooks/{id}/test": _NOTIFY,
        "GET /api/webhooks/deliveries": _NOTIFY,
        "GET /api/webhooks/deliveries/{id}": _NOTIFY,
        "POST /api/webhooks/deliveries/{id}/retry": _NOTIFY,
        "POST /api/webhooks/replay": _NOTIFY,
        "GET /api/keys": _OPERATE,
        "POST /api/keys": _OPERATE,
        "DELETE /api/keys/{key_id}": _OPERATE,
        "GET /api/audit": _OPERATE,
        "GET /api/drain": _OPERATE,
        "POST /api/drain": _OPERATE,
    }
)
"""Method and path of each operation, as the router has them, and the scopes of which it asks for
one."""


def needed(method: str, path: str) -> Scopes:
    """The scopes of which an operation asks for one; ``HEAD`` is a ``GET`` without a body.

    Raises:
        KeyError: the table does not know it, so that nobody may use it.
    """
    return NEEDED[f"{'GET' if method == 'HEAD' else method} {path}"]


def opens(granted: Scopes, wanted: Scopes) -> bool:
    """Whether a key with these scopes may use what asks for one of ``wanted``."""
    return Scope.ALL in granted or not granted.isdisjoint(wanted)


def beyond(wanted: Scopes, own: Scopes) -> Scopes:
    """Those of ``wanted`` that a key with the scopes ``own`` cannot give to another."""
    return frozenset() if Scope.ALL in own else wanted - own


def listed(scopes: Scopes) -> list[str]:
    """Their names, in the order of the enum; where all are among them, no other is told."""
    told = EVERYTHING if Scope.ALL in scopes else scopes
    return [scope.value for scope in Scope if scope in told]


def written(scopes: Scopes) -> str:
    """As the database keeps them: names with spaces between."""
    return " ".join(listed(scopes))


def read(text: str) -> Scopes:
    """What ``written`` gave. A name that is not known opens nothing."""
    names = text.split(" ")
    return frozenset(scope for scope in Scope if scope.value in names)
