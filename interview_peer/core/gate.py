"""The gate: what a browser may say to the model.

The policy is `_RULES`, one row for each event type that the service knows; what has no row is
refused. The interview's settings stay the server's: an *open client* may choose instructions and
voice, an *invited* one nothing. The gate judges events in GA shape, so it stands behind
the dialect.

A refusal is answered to the browser as the service itself would answer it, by an ``error`` event,
and ends nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from interview_peer.core.beta import BETA_RESPONSE_FIELDS
from interview_peer.types import Json

MAX_EVENT_BYTES: Final = 64 * 1024
"""Longest event taken from a browser, in bytes of UTF-8. A longer one holds up the event loop."""

_MAX_ECHOED_ID: Final = 512


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


class Gate:
    """Decides about the events of one browser connection."""

    invited = False
    """Whether the candidate was invited to an interview that somebody else has planned."""

    def admit(self, event: Json) -> Json | None:
        """Return the event as the model may see it; None if it is to go no further, unanswered.

        No rule swallows events today. Raises `GateRefused` for an event to be answered with an
        error. The event itself is never changed.
        """
        kind = event.get("type")
        rule = _RULES.get(kind) if isinstance(kind, str) else None
        if rule is None:
            raise GateRefused("invalid_value", "A client may not send this event type.", "type")
        admitted = rule(event)
        if self.invited and kind == "session.update" and admitted is not None:
            # Answered like any other, but it changes nothing.
            return admitted | {"session": {"type": "realtime"}}
        return admitted


def check_size(text: str) -> None:
    """Raise `GateRefused` for a message longer than `MAX_EVENT_BYTES`, before it is parsed."""
    # A character takes one to four bytes, so most messages need no encoding to be measured.
    if len(text) * 4 <= MAX_EVENT_BYTES:
        return
    if len(text) > MAX_EVENT_BYTES or len(text.encode(errors="replace")) > MAX_EVENT_BYTES:
        raise GateRefused("too_large", f"An event may have {MAX_EVENT_BYTES} bytes at most.")


def refusal_event(refused: GateRefused, event: Json | None = None) -> Json:
    """Return the ``error`` event that answers a refused event, naming its id if it has one."""
    event_id = event.get("event_id") if event else None
    if not isinstance(event_id, str) or len(event_id) > _MAX_ECHOED_ID:
        event_id = None
    return error_event(refused.code, refused.message, event_id, refused.param)


def error_event(
    code: str, message: str, event_id: str | None = None, param: str | None = None
) -> Json:
    """Return an ``error`` event of our own in the service's shape.

    `event_id` is the client's, of the event at fault; the error event gets a fresh one itself.
    """
    return {
        "type": "error",
        "event_id": f"event_{secrets.token_hex(8)}",
        "error": {
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
            "event_id": event_id,
        },
    }


def _pass(event: Json) -> Json:
    return event


def _refuse_audio(_event: Json) -> Json:
    raise GateRefused(
        "invalid_event_for_transport",
        "Audio travels on the audio track, not in events.",
        "type",
    )


def _reduce_session(event: Json) -> Json:
    """Keep instructions and voice of a session update, and drop everything else unsaid.

    Stock clients send their whole configuration, model included, and wait for an answer: so what
    is dropped is no error, and an update that has nothing left still goes to the model.
    """
    session = event.get("session")
    if session is None:
        raise GateRefused("missing_required_parameter", "There is no session.", "session")
    if not isinstance(session, dict):
        raise GateRefused("invalid_type", "The session is not an object.", "session")
    if session.get("type", "realtime") != "realtime":
        raise GateRefused("invalid_value", "Only 'realtime' is possible here.", "session.type")
    reduced: Json = {"type": "realtime"}
    if "instructions" in session:
        if not isinstance(session["instructions"], str):
            raise GateRefused(
                "invalid_type", "The instructions are not a string.", "session.instructions"
            )
        reduced["instructions"] = session["instructions"]
    voice = _voice(session)
    if voice is not None:
        reduced["audio"] = {"output": {"voice": voice}}
    kept = {key: event[key] for key in ("type", "event_id") if key in event}
    return kept | {"session": reduced}


def _voice(session: Json) -> Any:
    audio = session.get("audio")
    output = audio.get("output") if isinstance(audio, dict) else None
    voice = output.get("voice") if isinstance(output, dict) else None
    match voice:
        case None | str():
            return voice
        case {"id": str(name)}:
            return {"id": name}
        case _:
            raise GateRefused("invalid_type", "The voice is no name.", "session.audio.output.voice")


def _clean_response(event: Json) -> Json:
    """Let a reply be asked for; without fields of the beta, which would make the model refuse."""
    response = event.get("response")
    if not isinstance(response, dict) or BETA_RESPONSE_FIELDS.isdisjoint(response):
        return event
    kept = {key: value for key, value in response.items() if key not in BETA_RESPONSE_FIELDS}
    return event | {"response": kept}


_RULES: Final[dict[str, Callable[[Json], Json | None]]] = {
    # The session is the server's. Its model, tools, turn detection and, above all, transcription
    # stay as they were set when the call was made.
    "session.update": _reduce_session,
    # Would by-pass the recorder, and the service takes no audio here on a call anyway.
    "input_audio_buffer.append": _refuse_audio,
    # Push-to-talk, and silencing the interviewer.
    "input_audio_buffer.commit": _pass,
    "input_audio_buffer.clear": _pass,
    "output_audio_buffer.clear": _pass,
    "response.cancel": _pass,
    # The conversation: typed messages, results of functions, edits of history. All of it is in
    # the journal.
    "conversation.item.create": _pass,
    "conversation.item.retrieve": _pass,
    "conversation.item.truncate": _pass,
    "conversation.item.delete": _pass,
    "response.create": _clean_response,
}
