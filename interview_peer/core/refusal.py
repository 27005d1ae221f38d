"""Events of a browser that are refused: why, and the ``error`` event that answers them.

A refusal is answered as the service itself would answer it, and ends nothing.
"""

from __future__ import annotations

import secrets
from typing import Final

from ..types import Json

MAX_EVENT_BYTES: Final = 64 * 1024
"""Longest event taken from a browser, in bytes of UTF-8. A longer one holds up the event loop."""

MAX_EVENT_ID: Final = 512
"""Longest id of a browser's own that is repeated to it."""


class GateRefused(Exception):
    """A browser's event does not go to the model.

    `code`, `message` and `param` are what an `error_event` says; no HTTP status belongs to them,
    for this never leaves the event channel.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def check_size(text: str) -> None:
    """Raise `GateRefused` for a message longer than `MAX_EVENT_BYTES`, before it is parsed."""
    # A character takes one to four bytes, so most messages need no encoding to be measured.
    if len(text) * 4 <= MAX_EVENT_BYTES:
        return
    if len(text) > MAX_EVENT_BYTES or len(text.encode(errors="replace")) > MAX_EVENT_BYTES:
        raise GateRefused("too_large", f"An event may have {MAX_EVENT_BYTES} bytes at most.")


def event_id_of(event: Json | None) -> str | None:
    """The id that a client gave an event, if it is one that can be repeated."""
    event_id = event.get("event_id") if event else None
    return event_id if isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID else None


def refusal_event(refused: GateRefused, event: Json | None = None) -> Json:
    """Return the ``error`` event that answers a refused event, naming its id if it has one."""
    return error_event(refused.code, refused.message, event_id_of(event), refused.param)


def error_event(
    code: str, message: str, event_id: str | None = None, param: str | None = None
) -> Json:
    """Return an ``error`` event of our own in the service's shape.

    `event_id` is the client's, of the event at fault; the error event gets a fresh one itself.
    """
    return {
        "type": "error",
        "event_id": new_event_id(),
        "error": {
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
            "event_id": event_id,
        },
    }


def new_event_id() -> str:
    """An id for an event of our own."""
    return f"event_{secrets.token_hex(8)}"
