"""The beta dialect of the Realtime API, spoken towards browsers only.

Front ends written before the API became generally available (GA) send a flat session and wait for
event names that the service no longer uses. `ClientDialect` sits between one browser and the rest
of this server, which speaks GA: what the browser sends is turned into GA, what it is sent is turned
back, as soon as it has shown that it speaks beta.

The differences are data (the tables below); the code only moves fields. It follows four rules:
a GA field wins over the beta field that means the same; a value it does not know moves unchanged,
so that the service may refuse it; a field it does not know stays where it is; no event is changed
in place, since the journal and the transcript hold the same object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from interview_peer.types import Json

TEMPERATURE: Final = 0.8
"""What a beta client is told; the setting does not exist any more."""

_FORMATS: Final[dict[str, Json]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_FORMAT_NAMES: Final = {form["type"]: name for name, form in _FORMATS.items()}

# Shut down, all of them; which model runs is the server's business.
_BETA_MODEL: Final = re.compile(r"gpt-4o(-[a-z]+)*-realtime-preview")


def _unchanged(value: Any) -> Any:
    return value


def _ga_modalities(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    for modality in ("audio", "text"):
        if modality in value:
            return [modality]
    return value


def _beta_modalities(value: Any) -> Any:
    return ["text", "audio"] if value == ["audio"] else value


def _ga_format(value: Any) -> Any:
    form = _FORMATS.get(value) if isinstance(value, str) else None
    return value if form is None else dict(form)


def _beta_format(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    return _FORMAT_NAMES.get(kind, value) if isinstance(kind, str) else value


class _Field(NamedTuple):
    """One setting: its flat beta name, its place in GA, and how the value changes each way."""

    beta: str
    ga: tuple[str, ...]
    to_ga: Callable[[Any], Any] = _unchanged
    to_beta: Callable[[Any], Any] = _unchanged


_MODALITIES: Final = _Field("modalities", ("output_modalities",), _ga_modalities, _beta_modalities)
_VOICE: Final = _Field("voice", ("audio", "output", "voice"))
_OUTPUT_FORMAT: Final = _Field(
    "output_audio_format", ("audio", "output", "format"), _ga_format, _beta_format
)
_MAX_TOKENS: Final = _Field("max_response_output_tokens", ("max_output_tokens",))

_SESSION_FIELDS: Final = (
    _MODALITIES,
    _VOICE,
    _Field("speed", ("audio", "output", "speed")),
    _Field("input_audio_format", ("audio", "input", "format"), _ga_format, _beta_format),
    _OUTPUT_FORMAT,
    _Field("input_audio_transcription", ("audio", "input", "transcription")),
    _Field("input_audio_noise_reduction", ("audio", "input", "noise_reduction")),
    _Field("turn_detection", ("audio", "input", "turn_detection")),
    _MAX_TOKENS,
)
_RESPONSE_CREATE_FIELDS: Final = (_MODALITIES, _VOICE, _OUTPUT_FORMAT, _MAX_TOKENS)
# A beta response object named its token limit as GA does.
_RESPONSE_FIELDS: Final = (_MODALITIES, _VOICE, _OUTPUT_FORMAT)

_DROPPED_TO_GA: Final = frozenset({"temperature", "client_secret"})

BETA_SESSION_FIELDS: Final = frozenset({entry.beta for entry in _SESSION_FIELDS} | _DROPPED_TO_GA)
"""Fields that only a beta session has at its top level."""

BETA_RESPONSE_FIELDS: Final = frozenset(
    {entry.beta for entry in _RESPONSE_CREATE_FIELDS} | {"temperature"}
)
"""Fields that only a beta ``response.create`` has at the top level of its response."""

_CONTENT_TO_GA: Final = {"text": "output_text", "audio": "output_audio"}
_CONTENT_TO_BETA: Final = {ga: beta for beta, ga in _CONTENT_TO_GA.items()}

_EVENT_NAMES: Final = {
    "conversation.item.added": "conversation.item.created",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}
_TRANSCRIPTION_EVENT_NAMES: Final = {
    "session.created": "transcription_session.created",
    "session.updated": "transcription_session.updated",
}
# Its news was in the item's one beta event already.
_NOT_IN_BETA: Final = frozenset({"conversation.item.done"})


class ClientDialect:
    """Which dialect one browser connection speaks, and its translation.

    A browser counts as GA until it sends something that only makes sense in beta; from then on,
    and for good, it is spoken to in beta. Answers it was sent before that were GA: before its
    first event there is nothing to tell by, unless the caller knows and says so.
    """

    def __init__(self, *, is_beta: bool = False) -> None:
        self.is_beta = is_beta

    def to_model(self, event: Json) -> Json:
        """Return the browser's event in GA shape; the same object if nothing is to change."""
        if not self.is_beta and _is_beta_shaped(event):
            self.is_beta = True
        if not self.is_beta:
            return event
        match event.get("type"):
            case "session.update":
                return _with_object(event, "session", _session_to_ga)
            case "transcription_session.update":
                renamed = event | {"type": "session.update"}
                return _with_object(renamed, "session", _transcription_session_to_ga)
            case "response.create":
                return _with_object(event, "response", _response_to_ga)
            case "conversation.item.create":
                return _with_object(event, "item", _item_to_ga)
            case _:
                return event

    def to_client(self, event: Json) -> list[Json]:
        """Return what to send for the model's event: nothing, or one event.

        Towards a GA browser that is the very same object.
        """
        if not self.is_beta:
            return [event]
        kind = event.get("type")
        if kind in _NOT_IN_BETA:
            return []
        name = _EVENT_NAMES.get(kind) if isinstance(kind, str) else None
        if name is not None:
            event = event | {"type": name}
        match kind:
            case "session.created" | "session.updated":
                return [_session_event_to_beta(event)]
            case "response.created" | "response.done":
                return [_with_object(event, "response", _response_to_beta)]
            case (
                "conversation.item.added"
                | "conversation.item.retrieved"
                | "response.output_item.added"
                | "response.output_item.done"
            ):
                return [_with_object(event, "item", _item_to_beta)]
            case _:
                return [event]


def _is_beta_shaped(event: Json) -> bool:
    match event:
        case {"type": "session.update", "session": dict(session)}:
            return "type" not in session or not BETA_SESSION_FIELDS.isdisjoint(session)
        case {"type": "response.create", "response": dict(response)}:
            return not BETA_RESPONSE_FIELDS.isdisjoint(response) or _has_beta_input(response)
        case {"type": "conversation.item.create", "item": dict(item)}:
            return _item_to_ga(item) is not item
        case {"type": "transcription_session.update"}:
            return True
        case _:
            return False


def _has_beta_input(response: Json) -> bool:
    items = response.get("input")
    return bool(_items(items, _item_to_ga) != items)


def _with_object(event: Json, key: str, change: Callable[[Json], Json]) -> Json:
    """Return the event with one of its objects changed; unchanged if that is no object."""
    value = event.get(key)
    return event | {key: change(value)} if isinstance(value, dict) else event


def _session_to_ga(session: Json) -> Json:
    nested = _nest({"type": "realtime"} | session, _SESSION_FIELDS)
    model = nested.get("model")
    if isinstance(model, str) and _BETA_MODEL.match(model):
        del nested["model"]
    return nested


def _transcription_session_to_ga(session: Json) -> Json:
    return _session_to_ga({"type": "transcription"} | session)


def _response_to_ga(response: Json) -> Json:
    nested = _nest(response, _RESPONSE_CREATE_FIELDS)
    if "input" in nested:
        nested["input"] = _items(nested["input"], _item_to_ga)
    return nested


def _session_event_to_beta(event: Json) -> Json:
    session = event.get("session")
    if not isinstance(session, dict):
        return event
    flat = _flatten(session, _SESSION_FIELDS)
    if flat.pop("type", None) == "transcription":
        return event | {"type": _TRANSCRIPTION_EVENT_NAMES[event["type"]], "session": flat}
    return event | {"session": {"temperature": TEMPERATURE} | flat}


def _response_to_beta(response: Json) -> Json:
    flat = {"temperature": TEMPERATURE} | _flatten(response, _RESPONSE_FIELDS)
    if "output" in flat:
        flat["output"] = _items(flat["output"], _item_to_beta)
    return flat


def _items(items: Any, change: Callable[[Json], Json]) -> Any:
    if not isinstance(items, list):
        return items
    return [change(item) if isinstance(item, dict) else item for item in items]


def _item_to_ga(item: Json) -> Json:
    return _with_content_types(item, _CONTENT_TO_GA)


def _item_to_beta(item: Json) -> Json:
    return _with_content_types(item, _CONTENT_TO_BETA)


def _with_content_types(item: Json, names: dict[str, str]) -> Json:
    """Rename the content types of what the assistant said; other roles kept theirs."""
    content = item.get("content")
    if item.get("role") != "assistant" or not isinstance(content, list):
        return item
    parts = [_renamed(part, names) for part in content]
    return item | {"content": parts} if parts != content else item


def _renamed(part: Any, names: dict[str, str]) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    name = names.get(kind) if isinstance(kind, str) else None
    return part if name is None else part | {"type": name}


def _nest(flat: Json, fields: tuple[_Field, ...]) -> Json:
    """Move each beta field to its place in GA, unless something is there already."""
    nested = {key: value for key, value in flat.items() if key not in _DROPPED_TO_GA}
    for entry in fields:
        if entry.beta in nested:
            value = nested.pop(entry.beta)
            _put(nested, entry.ga, entry.to_ga(value))
    return nested


def _put(owner: Json, path: tuple[str, ...], value: Any) -> None:
    """Set a value deep inside `owner`, which is the caller's own; objects on the way are copied."""
    *way, last = path
    for key in way:
        below = owner.get(key, {})
        if not isinstance(below, dict):
            return
        owner[key] = owner = dict(below)
    owner.setdefault(last, value)


def _flatten(nested: Json, fields: tuple[_Field, ...]) -> Json:
    """Move each GA field to the top under its beta name; leave behind what has none."""
    flat = dict(nested)
    for entry in fields:
        found, value = _take(flat, entry.ga)
        if found:
            flat[entry.beta] = entry.to_beta(value)
    return flat


def _take(owner: Json, path: tuple[str, ...]) -> tuple[bool, Any]:
    """Remove a value deep inside `owner`, the caller's own; also the objects this empties."""
    key, *way = path
    if key not in owner:
        return False, None
    if not way:
        return True, owner.pop(key)
    below = owner[key]
    if not isinstance(below, dict):
        return False, None
    below = dict(below)
    found, value = _take(below, tuple(way))
    if found and not below:
        del owner[key]
    elif found:
        owner[key] = below
    return found, value
