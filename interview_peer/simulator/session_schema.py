"""Which fields a session and a response have when a client sends them, and their values.

Strict on purpose. The real service refuses what it does not know, above all the beta's fields, so
a client that passes here must not be leaning on leniency. Plain code.
"""

from __future__ import annotations

from typing import Any

from .checks import (
    Check,
    Fault,
    fields,
    invalid_value,
    is_anything,
    is_boolean,
    is_object,
    is_text,
    list_of,
    missing,
    number,
    one_of,
    or_null,
    whole,
)

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")

TRANSCRIPTION_MODELS = (
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
    "whisper-1",
)


def check_session(value: Any) -> None:
    """Raise Fault unless the value is a session object as a client may send it."""
    is_object(value, "session")
    if "type" not in value:
        raise missing("session.type")
    if value["type"] == "transcription":
        message = (
            "Passing a transcription session update event to a realtime session is not allowed."
        )
        raise Fault("invalid_parameter", message, "session.type")
    fields(_SESSION_FIELDS)(value, "session")


def check_response(value: Any) -> None:
    """Raise Fault unless the value is the ``response`` object of a ``response.create``."""
    fields(_RESPONSE_FIELDS)(value, "response")


def _modalities(value: Any, path: str) -> None:
    if value not in (["audio"], ["text"]):
        raise invalid_value(value, path, ["['audio']", "['text']"])


def _max_tokens(value: Any, path: str) -> None:
    if value != "inf":
        whole(1, 4096)(value, path)


def _voice(value: Any, path: str) -> None:
    if isinstance(value, dict):
        fields({"id": is_text}, required=("id",))(value, path)
    else:
        one_of(*VOICES)(value, path)


def _turn_detection(value: Any, path: str) -> None:
    is_object(value, path)
    common: dict[str, Check] = {"create_response": is_boolean, "interrupt_response": is_boolean}
    kind = value.get("type")
    if kind == "semantic_vad":
        known = {"type": is_text, "eagerness": one_of("low", "medium", "high", "auto")}
    else:
        known = {
            "type": one_of("server_vad", "semantic_vad"),
            "threshold": number(0, 1),
            "prefix_padding_ms": whole(0, 10_000),
            "silence_duration_ms": whole(0, 10_000),
            "idle_timeout_ms": or_null(whole(5_000, 30_000)),
        }
    fields(known | common, required=("type",))(value, path)


def _tool(value: Any, path: str) -> None:
    is_object(value, path)
    if value.get("type") == "mcp":
        fields(_MCP_TOOL, required=("type", "server_label"))(value, path)
        if not _MCP_PLACES & set(value):
            raise missing(f"{path}.server_url")
        return
    known: dict[str, Check] = {
        "type": one_of("function", "mcp"),
        "name": is_text,
        "description": is_text,
        "parameters": is_object,
    }
    fields(known, required=("type", "name"))(value, path)


def _tool_choice(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        one_of("none", "auto", "required")(value, path)
    elif value.get("type") == "mcp":
        known = {"type": is_text, "server_label": is_text, "name": or_null(is_text)}
        fields(known, required=("server_label",))(value, path)
    else:
        known = {"type": one_of("function", "mcp"), "name": is_text}
        fields(known, required=("type", "name"))(value, path)


def _truncation(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        one_of("auto", "disabled")(value, path)
        return
    known: dict[str, Check] = {
        "type": one_of("retention_ratio"),
        "retention_ratio": number(0, 1),
        "token_limits": fields({"post_instructions": whole(0, 1_000_000)}),
    }
    fields(known, required=("type", "retention_ratio"))(value, path)


def _tracing(value: Any, path: str) -> None:
    if isinstance(value, dict):
        known: dict[str, Check] = {
            "workflow_name": is_text,
            "group_id": is_text,
            "metadata": is_object,
        }
        fields(known)(value, path)
    elif value is not None:
        one_of("auto")(value, path)


_MCP_PLACES = {"server_url", "connector_id", "tunnel_id"}
_MCP_TOOL: dict[str, Check] = {
    "type": is_text,
    "server_label": is_text,
    "server_url": is_text,
    "connector_id": is_text,
    "tunnel_id": is_text,
    "server_description": is_text,
    "authorization": is_text,
    "headers": or_null(is_object),
    "allowed_tools": is_anything,
    "allowed_callers": or_null(list_of(one_of("direct", "programmatic"))),
    "require_approval": is_anything,
    "defer_loading": is_boolean,
}
_PROMPT = fields(
    {"id": is_text, "version": or_null(is_text), "variables": or_null(is_object)}, required=("id",)
)
_FORMAT = fields(
    {"type": one_of("audio/pcm", "audio/pcmu", "audio/pcma"), "rate": whole(24000, 24000)},
    required=("type",),
)
_TRANSCRIPTION = fields(
    {
        "model": one_of(*TRANSCRIPTION_MODELS),
        "language": is_text,
        "languages": list_of(is_text),
        "prompt": is_text,
        "keywords": list_of(is_text),
        "delay": one_of("minimal", "low", "medium", "high", "xhigh"),
    }
)
_NOISE_REDUCTION = fields(
    {"type": one_of("near_field", "far_field"), "strength": number(0, 10)}, required=("type",)
)
_REASONING = fields({"effort": one_of("minimal", "low", "medium", "high", "xhigh")})
_OUTPUT: dict[str, Check] = {"format": _FORMAT, "voice": _voice, "speed": number(0.25, 1.5)}

_RESPONSE_FIELDS: dict[str, Check] = {
    "instructions": is_text,
    "output_modalities": _modalities,
    "audio": fields({"output": fields({"format": _FORMAT, "voice": _voice})}),
    "tools": list_of(_tool),
    "tool_choice": _tool_choice,
    "max_output_tokens": _max_tokens,
    "metadata": or_null(is_object),
    "parallel_tool_calls": is_boolean,
    "reasoning": or_null(_REASONING),
    "prompt": or_null(_PROMPT),
    "conversation": one_of("auto", "none"),
    "input": list_of(is_object),
}

_SESSION_FIELDS: dict[str, Check] = {
    "type": one_of("realtime"),
    "model": is_text,
    "instructions": is_text,
    "output_modalities": _modalities,
    "audio": fields(
        {
            "input": fields(
                {
                    "format": _FORMAT,
                    "transcription": or_null(_TRANSCRIPTION),
                    "noise_reduction": or_null(_NOISE_REDUCTION),
                    "turn_detection": or_null(_turn_detection),
                }
            ),
            "output": fields(_OUTPUT),
        }
    ),
    "tools": list_of(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": is_boolean,
    "reasoning": or_null(_REASONING),
    "max_output_tokens": _max_tokens,
    "truncation": _truncation,
    "tracing": _tracing,
    "include": or_null(list_of(one_of("item.input_audio_transcription.logprobs"))),
    "prompt": or_null(_PROMPT),
}
