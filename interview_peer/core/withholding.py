"""What an invited candidate's browser is told of the model's events.

An open client is told all but instructions that it did not choose: `without_ours`.

The interview's settings are the integrator's: instructions, tools and what they return, prompts,
counts of tokens and limits of the account stay on this side. The policy is `_RULES`, one row for
each event type of the service, and it names what may pass, never what may not: a field that it
does not know is left out, so whatever the service adds tomorrow is withheld until somebody has
looked at it. What is left fits the service's own types, and those of its browser SDK.

An event of an unknown type is told by its type and by what it refers to: ids, places, times.

No state and no I/O: large events are reduced by another process with this very function. What
depends on the conversation so far is the ``Gate``'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..types import Json

NO_USAGE: Final[Json] = {"type": "duration", "seconds": 0}
"""Stands for what a transcription cost: the service's types ask for some."""

UNSAID: Final = "The voice service reported an error."
"""Stands for the message of an error, which may quote what is withheld."""

MOST_REFERENCE: Final = 128
"""Longest id, in characters, that an unknown event may pass on."""

_REFERENCES: Final = ("_id", "_index", "_ms")


class _WithheldError(Exception):
    """This value, or the event that holds it, is not for the browser."""


Shape = Callable[[Any], Any]
"""Makes of a value what may be told of it. Raises `_WithheldError` for nothing at all."""


class _Rule(NamedTuple):
    """What may be told of one event type."""

    names: frozenset[str]
    """Fields that pass as they are."""
    shapes: Mapping[str, Shape]
    """Fields of which only something passes."""


def withhold(event: Json) -> Json | None:
    """Return the event as an invited candidate's browser may see it; None if it may not.

    The very same object where nothing is to be left out, which is so for all that come often.
    Never changes the event, never raises.
    """
    kind = event["type"]
    rule = _RULES.get(kind, _UNKNOWN)
    if rule is None:
        return None
    if rule is _UNKNOWN:
        return _references(event)
    if event.keys() <= rule.names:
        return event
    try:
        reduced = _reduced(event, rule)
    except _WithheldError:
        return None
    return event if reduced == event else reduced


OF_SESSION: Final = frozenset({"session.created", "session.updated"})


def without_ours(event: Json, chosen: bytes | None) -> Json:
    """Return the event as an open client may see it: the interviewer's own instructions are blank.

    The very same object where there are none, or where they are those that the client chose itself:
    ``chosen`` is their `digest_of`.
    """
    session = event.get("session") if event["type"] in OF_SESSION else None
    if not isinstance(session, dict):
        return event
    instructions = session.get("instructions")
    if instructions is None:
        return event
    if chosen is not None and isinstance(instructions, str) and digest_of(instructions) == chosen:
        return event
    return {**event, "session": {**session, "instructions": ""}}


def digest_of(instructions: str) -> bytes:
    """What instructions are known by: 32 bytes, which travel lighter than they do."""
    return hashlib.sha256(instructions.encode("utf-8", "surrogatepass")).digest()


def session_told(session: Any) -> Json | None:
    """What may be told of the model's session; None if it is no session."""
    told = _SESSION(session)
    return told if isinstance(told, dict) else None


def is_shown(kind: Any, role: Any) -> bool:
    """Whether items of this type and role are for the browser: what was said or typed."""
    return kind == "message" and role in ("user", "assistant")


def _references(event: Json) -> Json:
    return {
        key: value
        for key, value in event.items()
        if key == "type"
        or (
            key.endswith(_REFERENCES)
            and (
                (isinstance(value, str) and len(value) <= MOST_REFERENCE)
                or isinstance(value, int | float)
            )
        )
    }


def _reduced(owner: Json, rule: _Rule) -> Json:
    told: Json = {}
    for key, value in owner.items():
        if key in rule.names:
            told[key] = value
        elif (shape := rule.shapes.get(key)) is not None:
            told[key] = shape(value)
    return told


def _fields(names: str = "", **shapes: Shape) -> Shape:
    """An object with these fields: plain values by name, the others by shape."""
    rule = _Rule(frozenset(names.split()), shapes)

    def shape(value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        kept = {key: one for key, one in value.items() if key in shapes or _is_plain(one)}
        return _reduced(kept, rule)

    return shape


def _each(shape: Shape) -> Shape:
    """A list of which each entry is shaped, or left out."""

    def shaped(value: Any) -> Any:
        if not isinstance(value, list):
            return None
        told = []
        for one in value:
            try:
                told.append(shape(one))
            except _WithheldError:
                continue
        return told

    return shaped


def _instead(value: Any) -> Shape:
    return lambda _: value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _plain(value: Any) -> Any:
    if not _is_plain(value):
        raise _WithheldError
    return value


def _voice(value: Any) -> Any:
    if isinstance(value, dict):
        return {"id": _plain(value.get("id"))}
    return value if isinstance(value, str) else None


def _part(value: Any) -> Any:
    """Of what an item holds, the words: sound and pictures are nothing a page asks back for."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS:
        raise _WithheldError
    return _words(value)


def _item(value: Any) -> Any:
    if not isinstance(value, dict) or not is_shown(value.get("type", "message"), value.get("role")):
        raise _WithheldError
    return _said(value)


_PARTS: Final = frozenset(
    {"input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio"}
)
_words: Final = _fields("type text transcript")
_said: Final = _fields("id object type status role", content=_each(_part))
_format: Final = _fields("type rate")
_texts: Final = _each(_plain)
_logprobs: Final = _each(_fields("token logprob", bytes=_each(_plain)))

_SESSION: Final = _fields(
    "type object id model expires_at max_output_tokens",
    output_modalities=_texts,
    audio=_fields(
        input=_fields(
            format=_format,
            # Its prompt and keywords say what the integrator listens for.
            transcription=_fields("model language"),
            noise_reduction=_fields("type"),
            turn_detection=_fields(
                "type threshold prefix_padding_ms silence_duration_ms idle_timeout_ms eagerness"
                " create_response interrupt_response"
            ),
        ),
        output=_fields("speed", format=_format, voice=_voice),
    ),
    tools=_instead([]),
    tool_choice=_instead("auto"),
    tracing=_instead(None),
)

_RESPONSE: Final = _fields(
    "id object status conversation_id max_output_tokens",
    status_details=_fields("type reason", error=_fields("type code")),
    output=_each(_item),
    output_modalities=_texts,
    audio=_fields(output=_fields(format=_format, voice=_voice)),
    metadata=_instead(None),
    usage=_instead(None),
)


def _rule(names: str = "", **shapes: Shape) -> _Rule:
    return _Rule(frozenset(["type", "event_id", "obfuscation", *names.split()]), shapes)


_OF_REPLY: Final = "response_id item_id output_index content_index"
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"

_UNKNOWN: Final = _Rule(frozenset(), {})

_WITHHELD: Final = (
    # What the account may still use.
    "rate_limits.updated",
    # Tools, what they are asked and what they answer.
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "mcp_list_tools.in_progress",
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
)

_RULES: Final[Mapping[str, _Rule | None]] = {
    **dict.fromkeys(_WITHHELD, None),
    "session.created": _rule(session=_SESSION),
    "session.updated": _rule(session=_SESSION),
    "error": _rule(
        # The gate knows which are about the browser's own events; the others may quote anything.
        error=_fields("type code", message=_instead(UNSAID))
    ),
    "conversation.created": _rule(conversation=_fields("id object")),
    **dict.fromkeys(
        ("conversation.item.added", "conversation.item.done", "conversation.item.created"),
        _rule("previous_item_id", item=_item),
    ),
    "conversation.item.retrieved": _rule(item=_item),
    "conversation.item.truncated": _rule("item_id content_index audio_end_ms"),
    "conversation.item.deleted": _rule("item_id"),
    f"{_TRANSCRIPTION}.delta": _rule("item_id content_index delta", logprobs=_logprobs),
    f"{_TRANSCRIPTION}.completed": _rule(
        "item_id content_index transcript",
        logprobs=_logprobs,
        languages=_each(_fields("code")),
        usage=_instead(NO_USAGE),
    ),
    f"{_TRANSCRIPTION}.segment": _rule("item_id content_index id text speaker start end"),
    f"{_TRANSCRIPTION}.failed": _rule("item_id content_index", error=_fields("type code")),
    "input_audio_buffer.speech_started": _rule("item_id audio_start_ms"),
    "input_audio_buffer.speech_stopped": _rule("item_id audio_end_ms"),
    "input_audio_buffer.committed": _rule("item_id previous_item_id"),
    "input_audio_buffer.cleared": _rule(),
    "input_audio_buffer.timeout_triggered": _rule("item_id audio_start_ms audio_end_ms"),
    "input_audio_buffer.dtmf_event_received": _rule("event received_at"),
    **dict.fromkeys(("response.created", "response.done"), _rule(response=_RESPONSE)),
    **dict.fromkeys(
        ("response.output_item.added", "response.output_item.done"),
        _rule("response_id output_index", item=_item),
    ),
    **dict.fromkeys(
        ("response.content_part.added", "response.content_part.done"),
        _rule(_OF_REPLY, part=_words),
    ),
    "response.output_text.delta": _rule(f"{_OF_REPLY} delta"),
    "response.output_text.done": _rule(f"{_OF_REPLY} text"),
    "response.output_audio_transcript.delta": _rule(f"{_OF_REPLY} delta"),
    "response.output_audio_transcript.done": _rule(f"{_OF_REPLY} transcript"),
    "response.output_audio.delta": _rule(f"{_OF_REPLY} delta"),
    "response.output_audio.done": _rule(_OF_REPLY),
    **dict.fromkeys(
        (
            "output_audio_buffer.started",
            "output_audio_buffer.stopped",
            "output_audio_buffer.cleared",
        ),
        _rule("response_id"),
    ),
}
