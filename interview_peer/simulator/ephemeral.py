"""Ephemeral keys: sessions prepared with a standard key, to be begun by somebody without one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from ..types import Json
from .checks import Fault, fields, is_anything, one_of, whole
from .session_config import new_session

DEFAULT_SECONDS = 600
MAX_KEYS = 10_000
"""Kept at a time; the oldest is forgotten."""

_BODY = {
    "expires_after": fields(
        {"anchor": one_of("created_at"), "seconds": whole(10, 7200)},
    ),
    "session": is_anything,
}


@dataclass(slots=True)
class _Kept:
    session: Json
    expires_at: int


class EphemeralKeys:
    """Keys and the sessions they stand for. ``now`` is in epoch seconds."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def mint(self, body: Any, now: float, session_id: str) -> Json:
        """Make a key as the body of a request asks for; the reply's body. Raises Fault."""
        for name, value in _object(body).items():
            if name not in _BODY:
                raise Fault("unknown_parameter", f"Unknown parameter: '{name}'.", name)
            _BODY[name](value, name)
        session = new_session(body.get("session"))
        expires_after = body.get("expires_after") or {}
        expires_at = int(now) + int(expires_after.get("seconds", DEFAULT_SECONDS))
        value = f"ek_{secrets.token_hex(16)}"
        self._kept[value] = _Kept(session, expires_at)
        if len(self._kept) > MAX_KEYS:
            del self._kept[next(iter(self._kept))]
        # The key's own end is told; the session has none yet.
        told = session | {"id": session_id, "expires_at": 0}
        # Which the official type of this reply does not have, other than those of events.
        told.pop("parallel_tool_calls", None)
        return {"value": value, "expires_at": expires_at, "session": told}

    def session(self, key: str, now: float) -> Json | None:
        """The session a key stands for; None if it is unknown, used up or too old."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires_at <= now:
            del self._kept[key]
            return None
        return kept.session

    def spend(self, key: str) -> None:
        """Forget a key that is good for one call."""
        self._kept.pop(key, None)


def _object(body: Any) -> Json:
    if not isinstance(body, dict):
        raise Fault("invalid_type", "Invalid type for the body: expected an object.", None)
    return body
