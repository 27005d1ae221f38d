"""What a client's message must be before the conversation looks at its meaning. Plain code."""

from __future__ import annotations

import json

from ..types import Json
from .checks import Fault

CLIENT_FIELDS: dict[str, tuple[str, ...]] = {
    "session.update": ("session",),
    "input_audio_buffer.append": ("audio",),
    "input_audio_buffer.commit": (),
    "input_audio_buffer.clear": (),
    "output_audio_buffer.clear": (),
    "conversation.item.create": ("item", "previous_item_id"),
    "conversation.item.retrieve": ("item_id",),
    "conversation.item.truncate": ("item_id", "content_index", "audio_end_ms"),
    "conversation.item.delete": ("item_id",),
    "response.create": ("response",),
    "response.cancel": ("response_id",),
}


class Unreadable(Fault):
    """A message that is no JSON text: a strict simulator ends the call over it."""


def decoded(message: str | bytes) -> Json:
    """Parse a message into an object. Raises Fault."""
    if isinstance(message, bytes):
        raise Unreadable("invalid_event", "Events are sent as text.")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise Unreadable("invalid_event", "The message is not valid JSON.") from None
    if not isinstance(event, dict):
        raise Fault("invalid_event", "The event is not a JSON object.")
    return event


def check_fields(event: Json) -> None:
    """Raise Fault if the event's type or one of its fields is missing or not known."""
    kind = event.get("type")
    if not isinstance(kind, str):
        raise Fault("invalid_event", "The 'type' field is missing.", "type")
    if kind not in CLIENT_FIELDS:
        names = ", ".join(f"'{name}'" for name in CLIENT_FIELDS)
        text = f"Invalid value: '{kind}'. Supported values are: {names}."
        raise Fault("invalid_value", text, "type")
    for name in event:
        if name not in ("type", "event_id", *CLIENT_FIELDS[kind]):
            raise Fault("unknown_parameter", f"Unknown parameter: '{name}'.", name)
