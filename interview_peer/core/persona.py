"""Who the interviewer is: voice, instructions and how it listens.

A persona is a small TOML file. Here it becomes a value and the session configuration that the
model's service is given. Reading files is ``interview_peer.personas``' job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..types import Json
from . import consent as consents
from .gate_rules import ALLOWABLE, DENIABLE
from .tools import BUILT_IN, END_INTERVIEW, definitions

DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_TRANSCRIPTION_MODEL = "gpt-transcribe"
VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "marin",
    "sage",
    "shimmer",
    "verse",
)
"""The service's built-in voices (Realtime API, November 2026)."""

MAX_CONSENT_TEXT = 20_000
MAX_CONSENT_VERSION = 100
NOBODY = consents.Operator()
"""An operator of whom nothing is known."""

_TEXTS = ("title", "description", "instructions")
_OPTIONAL_TEXTS = ("voice", "model", "transcription_model", "language")
FIELDS = frozenset((*_TEXTS, *_OPTIONAL_TEXTS, "turn_detection", "tools", "gate", "consent"))
"""What a persona file may hold."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_GA_MODEL = re.compile(r"gpt-realtime[a-z0-9.-]{0,48}")

_TURN_DETECTION: Json = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    # The service's default was 500 in its documents and 200 on the wire: always say it.
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}


class InvalidPersona(ValueError):
    """A persona file says something we cannot use; the text names the field."""


@dataclass(frozen=True, slots=True)
class Persona:
    """One interviewer."""

    name: str
    title: str
    description: str
    instructions: str
    voice: str | Mapping[str, str] = "marin"
    """One of `VOICES`, or ``{"id": …}`` of one that the service made for the operator."""
    model: str | None = None
    transcription_model: str = DEFAULT_TRANSCRIPTION_MODEL
    language: str | None = None
    turn_detection: Mapping[str, Any] | None = None
    tools: Sequence[str] = (END_INTERVIEW,)
    """Names of the tools that it may call; the server runs them."""
    gate_allow: Sequence[str] = ()
    """Event types that an invited candidate's browser may send besides those that all may."""
    gate_deny: Sequence[str] = ()
    """Event types that no browser may send, unless it is trusted."""
    gate_trusted: bool = False
    """Whether the gate stands open for whoever is invited."""
    consent_text: str = NOBODY.fill(consents.DEFAULT_TEXT)
    """What a candidate must agree to before anything is recorded; plain text."""
    consent_version: str = consents.DEFAULT_VERSION

    def with_voice(self, voice: str) -> Persona:
        """The same interviewer speaking with another voice."""
        return replace(self, voice=voice)

    def session(self, model: str | None = None, *, with_tools: bool = True) -> Json:
        """The complete session configuration for the service's create call (GA shape).

        Complete, because the model may begin as soon as the connection stands: what only a
        later ``session.update`` says is not in force until then.

        Args:
            model: takes the place of the persona's own.
            with_tools: whether the model is told of the persona's tools.
        """
        transcription: Json = {"model": self.transcription_model}
        if self.language:
            transcription["language"] = self.language
        tools = definitions(self.tools) if with_tools else []
        return {
            "type": "realtime",
            "model": model or self.model or DEFAULT_MODEL,
            "output_modalities": ["audio"],
            "instructions": self.instructions,
            "audio": {
                "input": {
                    "transcription": transcription,
                    "turn_detection": dict(self.turn_detection or _TURN_DETECTION),
                },
                "output": {
                    "voice": self.voice if isinstance(self.voice, str) else dict(self.voice)
                },
            },
            **({"tools": tools, "tool_choice": "auto"} if tools else {}),
        }


def from_table(
    name: str, table: Mapping[str, Any], operator: consents.Operator = NOBODY
) -> Persona:
    """Make a persona of a parsed file; ``operator`` is what its consent text tells of.

    Raises:
        InvalidPersona: a field is missing, unknown or of the wrong type.
    """
    if not _NAME.fullmatch(name):
        raise InvalidPersona(f"persona name {name!r} must be lower-case letters, digits, - or _")
    unknown = set(table) - FIELDS
    if unknown:
        raise InvalidPersona(f"persona {name}: unknown field {sorted(unknown)[0]!r}")
    values: Json = {}
    for key in (*_TEXTS, *_OPTIONAL_TEXTS):
        value = table.get(key)
        if value is None and key in _OPTIONAL_TEXTS:
            continue
        if not isinstance(value, str) or not value.strip():
            raise InvalidPersona(f"persona {name}: {key} must be a text that is not empty")
        values[key] = value.strip()
    detection = table.get("turn_detection")
    if detection is not None:
        if not isinstance(detection, Mapping) or detection.get("type") not in (
            "server_vad",
            "semantic_vad",
        ):
            raise InvalidPersona(
                f"persona {name}: turn_detection.type must be server_vad or semantic_vad"
            )
        values["turn_detection"] = dict(detection)
    if "tools" in table:
        values["tools"] = _tools(name, table["tools"])
    if "gate" in table:
        values |= _gate(name, table["gate"])
    text, version = _consent(name, table.get("consent"))
    return Persona(name=name, consent_text=operator.fill(text), consent_version=version, **values)


def _consent(name: str, table: Any) -> tuple[str, str]:
    """Text, with its place holders, and version."""
    if table is None:
        return consents.DEFAULT_TEXT, consents.DEFAULT_VERSION
    if not isinstance(table, Mapping) or set(table) != {"text", "version"}:
        raise InvalidPersona(f"persona {name}: consent must have text and version")
    for key, value in table.items():
        if not isinstance(value, str) or not value.strip():
            raise InvalidPersona(f"persona {name}: consent.{key} must be a text that is not empty")
    text, version = table["text"].strip(), table["version"].strip()
    if len(text) > MAX_CONSENT_TEXT or len(version) > MAX_CONSENT_VERSION:
        raise InvalidPersona(
            f"persona {name}: consent.text may have {MAX_CONSENT_TEXT} characters, "
            f"consent.version {MAX_CONSENT_VERSION}"
        )
    return text, version


def _gate(name: str, gate: Any) -> Json:
    """The fields of a ``[gate]`` table. Raises as `from_table`."""
    if not isinstance(gate, Mapping):
        raise InvalidPersona(f"persona {name}: gate must be a table")
    unknown = set(gate) - {"allow", "deny", "trusted"}
    if unknown:
        raise InvalidPersona(f"persona {name}: unknown field {f'gate.{sorted(unknown)[0]}'!r}")
    values: Json = {}
    for key, known in (("allow", ALLOWABLE), ("deny", DENIABLE)):
        kinds = gate.get(key, [])
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise InvalidPersona(f"persona {name}: gate.{key} must be a list of event types")
        for kind in kinds:
            if kind not in known:
                raise InvalidPersona(
                    f"persona {name}: gate.{key} may not name {kind!r}; it may name "
                    f"{', '.join(sorted(known))}"
                )
        values[f"gate_{key}"] = tuple(kinds)
    both = sorted({*values["gate_allow"]} & {*values["gate_deny"]})
    if both:
        raise InvalidPersona(f"persona {name}: gate.allow and gate.deny both name {both[0]!r}")
    trusted = gate.get("trusted", False)
    if not isinstance(trusted, bool):
        raise InvalidPersona(f"persona {name}: gate.trusted must be true or false")
    return values | {"gate_trusted": trusted}


def _tools(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidPersona(f"persona {name}: tools must be a list of names")
    for one in value:
        if one not in BUILT_IN or value.count(one) > 1:
            known = ", ".join(BUILT_IN)
            raise InvalidPersona(f"persona {name}: tools may have each of {known} once")
    return tuple(value)


def ga_model(name: str | None) -> str | None:
    """A model name a client asked for, if the service still runs such models; else nothing.

    The names that clients of the beta send (``gpt-4o-realtime-preview…``) are gone.
    """
    return name if name and _GA_MODEL.fullmatch(name) else None
