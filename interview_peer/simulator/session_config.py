"""The session object: its defaults, how an update is merged, what cannot be changed.

Plain code: values in, values out. Which fields and values a client may send: ``session_schema``.
"""

from __future__ import annotations

import copy
from typing import Any

from ..types import Json
from .checks import Fault, invalid_value
from .session_schema import TRANSCRIPTION_MODELS, check_session

DEFAULT_MODEL = "gpt-realtime-2.1"
MODELS: dict[str, str | None] = {
    "gpt-realtime-2.1": None,
    "gpt-realtime-2.1-mini": None,
    "gpt-realtime-2": None,
    "gpt-realtime-1.5": None,
    "gpt-realtime": "2027-01-20",
    "gpt-realtime-2025-08-28": "2027-01-20",
    "gpt-realtime-mini": "2027-01-20",
    "gpt-realtime-mini-2025-12-15": "2027-01-20",
}
"""What there is to talk to, each with the day it is shut down, if one is announced."""

TRANSCRIBERS: dict[str, str | None] = {
    name: "2027-02-26" if name.startswith(("gpt-4o", "whisper")) else None
    for name in TRANSCRIPTION_MODELS
}
"""The same of those that transcribe."""

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
        raise invalid_value(update["model"], "session.model", [session["model"]])
    if (
        session["tracing"] is not None
        and update.get("tracing", session["tracing"]) != (session["tracing"])
    ):
        raise Fault("invalid_value", "Tracing cannot be changed once it is on.", "session.tracing")
    merged = _merged(session, update)
    voice_changes = merged["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]
    if assistant_has_spoken and voice_changes:
        message = "Cannot update a conversation's voice if assistant audio is present."
        raise Fault("cannot_update_voice", message)
    return merged


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
