"""The session object: which fields exist, which values they take, how an update is merged.

Strict on purpose. The real service refuses what it does not know, above all the beta's fields, so
a client that passes here must not be leaning on leniency. Plain code: values in, values out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..types import Json

DEFAULT_MODEL = "gpt-realtime-2.1"
MODELS = (
    "gpt-realtime-2.1",
    "gpt-realtime-2.1-mini",
    "gpt-realtime-2",
    "gpt-realtime-1.5",
    "gpt-realtime",
    "gpt-realtime-2025-08-28",
    "gpt-realtime-mini",
    "gpt-realtime-mini-2025-12-15",
)
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
DEFAULT_INSTRUCTIONS = "You are a helpful voice assistant. (The simulator's default instructions.)"

_SERVER_VAD: Json = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: Json = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_PCM: Json = {"type": "audio/pcm", "rate": 24000}

Check = Callable[[Any, str], None]


class Fault(Exception):
    """A client's mistake, in the service's words: what an ``error`` event or a 400 body says."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def default_session() -> Json:
    """The effective configuration of a session that asked for nothing."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "model": DEFAULT_MODEL,
        "output_modalities": ["audio"],
        "instructions": DEFAULT_INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "include": None,
        "audio": {
            "input": {
                "format": dict(_PCM),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": dict(_SERVER_VAD),
            },
            "output": {"format": dict(_PCM), "voice": "alloy", "speed": 1.0},
        },
    }


def new_session(requested: Any) -> Json:
    """The effective session of a create call's ``session`` part (None: there was none).

    Raises Fault; its code is ``model_not_found`` for a model that does not exist.
    """
    session = default_session()
    if requested is not None:
        check_session(requested)
        model = requested.get("model", DEFAULT_MODEL)
        if model not in MODELS:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise Fault("model_not_found", message)
        session = _merged(session, requested)
    if session["model"].startswith("gpt-realtime-2"):
        # Reasoning models alone have these two; the dated first generation is not one of them.
        if not session["model"].startswith("gpt-realtime-20"):
            session.setdefault("reasoning", {"effort": "low"})
            session.setdefault("parallel_tool_calls", True)
    return session


def updated_session(session: Json, update: Any, *, assistant_has_spoken: bool) -> Json:
    """A new session with the update applied; the old one is left alone. Raises Fault."""
    check_session(update)
    if update.get("model", session["model"]) != session["model"]:
        raise _invalid_value(update["model"], "session.model", [session["model"]])
    merged = _merged(session, update)
    voice_changes = merged["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]
    if assistant_has_spoken and voice_changes:
        message = "Cannot update a conversation's voice if assistant audio is present."
        raise Fault("cannot_update_voice", message)
    return merged


def check_session(value: Any) -> None:
    """Raise Fault unless the value is a session object as a client may send it."""
    _object(value, "session")
    if "type" not in value:
        raise Fault(
            "missing_required_parameter",
            "Missing required parameter: 'session.type'.",
            "session.type",
        )
    if value["type"] == "transcription":
        message = (
            "Passing a transcription session update event to a realtime session is not allowed."
        )
        raise Fault("invalid_parameter", message, "session.type")
    _fields(_SESSION_FIELDS)(value, "session")


def check_response(value: Any) -> None:
    """Raise Fault unless the value is the ``response`` object of a ``response.create``."""
    _fields(_RESPONSE_FIELDS)(value, "response")


def _merged(session: Json, update: Json) -> Json:
    result = copy.deepcopy(session)
    audio = update.get("audio") or {}
    for side in ("input", "output"):
        for name, value in (audio.get(side) or {}).items():
            result["audio"][side][name] = _merged_leaf(result["audio"][side].get(name), value)
    detection = result["audio"]["input"]["turn_detection"]
    if detection is not None:
        defaults = _SERVER_VAD if detection["type"] == "server_vad" else _SEMANTIC_VAD
        result["audio"]["input"]["turn_detection"] = defaults | detection
    result.update((name, copy.deepcopy(value)) for name, value in update.items() if name != "audio")
    return result


def _merged_leaf(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict) and new.get("type") == old.get("type"):
        return old | new
    return copy.deepcopy(new)


def _invalid_value(value: Any, path: str, supported: list[str]) -> Fault:
    names = ", ".join(f"'{name}'" for name in supported)
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    return Fault("invalid_value", message, path)


def _wrong_type(path: str, expected: str) -> Fault:
    return Fault("invalid_type", f"Invalid type for '{path}': expected {expected}.", path)


def _object(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object")


def _text(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise _wrong_type(path, "a string")


def _boolean(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        raise _wrong_type(path, "a boolean")


def _anything(value: Any, path: str) -> None:
    """Accept: a field whose inside the simulator has no use for."""


def _one_of(*supported: str) -> Check:
    def check(value: Any, path: str) -> None:
        if value not in supported:
            raise _invalid_value(value, path, list(supported))

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(path, "a number")
        if not low <= value <= high:
            message = f"Invalid '{path}': expected a value from {low:g} to {high:g}."
            raise Fault("invalid_value", message, path)

    return check


def _or_null(check: Check) -> Check:
    def check_or_null(value: Any, path: str) -> None:
        if value is not None:
            check(value, path)

    return check_or_null


def _list_of(check: Check) -> Check:
    def check_list(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise _wrong_type(path, "an array")
        for number, element in enumerate(value):
            check(element, f"{path}[{number}]")

    return check_list


def _fields(known: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, path: str) -> None:
        _object(value, path)
        for name in required:
            if name not in value:
                where = f"{path}.{name}"
                message = f"Missing required parameter: '{where}'."
                raise Fault("missing_required_parameter", message, where)
        for name, inner in value.items():
            where = f"{path}.{name}"
            if name not in known:
                raise Fault("unknown_parameter", f"Unknown parameter: '{where}'.", where)
            known[name](inner, where)

    return check


def _modalities(value: Any, path: str) -> None:
    if value not in (["audio"], ["text"]):
        raise _invalid_value(value, path, ["['audio']", "['text']"])


def _max_tokens(value: Any, path: str) -> None:
    if value != "inf":
        _number(1, 4096)(value, path)


def _voice(value: Any, path: str) -> None:
    if isinstance(value, dict):
        _fields({"id": _text}, required=("id",))(value, path)
    else:
        _one_of(*VOICES)(value, path)


def _turn_detection(value: Any, path: str) -> None:
    _object(value, path)
    common: dict[str, Check] = {"create_response": _boolean, "interrupt_response": _boolean}
    kind = value.get("type")
    if kind == "semantic_vad":
        known = {"type": _text, "eagerness": _one_of("low", "medium", "high", "auto")}
    else:
        known = {
            "type": _one_of("server_vad", "semantic_vad"),
            "threshold": _number(0, 1),
            "prefix_padding_ms": _number(0, 10_000),
            "silence_duration_ms": _number(0, 10_000),
            "idle_timeout_ms": _or_null(_number(5_000, 30_000)),
        }
    _fields(known | common, required=("type",))(value, path)


def _tool(value: Any, path: str) -> None:
    _object(value, path)
    if value.get("type") == "mcp":
        return
    known: dict[str, Check] = {
        "type": _one_of("function", "mcp"),
        "name": _text,
        "description": _text,
        "parameters": _object,
    }
    _fields(known, required=("type", "name"))(value, path)


def _tool_choice(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        _one_of("none", "auto", "required")(value, path)


def _truncation(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        _one_of("auto", "disabled")(value, path)


_FORMAT = _fields(
    {"type": _one_of("audio/pcm", "audio/pcmu", "audio/pcma"), "rate": _number(24000, 24000)},
    required=("type",),
)
_TRANSCRIPTION = _fields(
    {
        "model": _text,
        "language": _text,
        "languages": _list_of(_text),
        "prompt": _text,
        "keywords": _list_of(_text),
        "delay": _anything,
    }
)
_NOISE_REDUCTION = _fields(
    {"type": _one_of("near_field", "far_field"), "strength": _anything}, required=("type",)
)
_REASONING = _fields({"effort": _one_of("minimal", "low", "medium", "high", "xhigh")})
_OUTPUT: dict[str, Check] = {"format": _FORMAT, "voice": _voice, "speed": _number(0.25, 1.5)}

_RESPONSE_FIELDS: dict[str, Check] = {
    "instructions": _text,
    "output_modalities": _modalities,
    "audio": _fields({"output": _fields({"format": _FORMAT, "voice": _voice})}),
    "tools": _list_of(_tool),
    "tool_choice": _tool_choice,
    "max_output_tokens": _max_tokens,
    "metadata": _or_null(_object),
    "parallel_tool_calls": _boolean,
    "reasoning": _or_null(_REASONING),
    "prompt": _anything,
    "conversation": _one_of("auto", "none"),
    "input": _list_of(_object),
}

_SESSION_FIELDS: dict[str, Check] = {
    "type": _one_of("realtime"),
    "model": _text,
    "instructions": _text,
    "output_modalities": _modalities,
    "audio": _fields(
        {
            "input": _fields(
                {
                    "format": _FORMAT,
                    "transcription": _or_null(_TRANSCRIPTION),
                    "noise_reduction": _or_null(_NOISE_REDUCTION),
                    "turn_detection": _or_null(_turn_detection),
                }
            ),
            "output": _fields(_OUTPUT),
        }
    ),
    "tools": _list_of(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _boolean,
    "reasoning": _or_null(_REASONING),
    "max_output_tokens": _max_tokens,
    "truncation": _truncation,
    "tracing": _anything,
    "include": _or_null(_list_of(_text)),
    "prompt": _anything,
}
