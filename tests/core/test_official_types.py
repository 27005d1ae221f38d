"""What we read, and what we send or let through, is what the official package knows."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from interview_peer.core import realtime
from interview_peer.core.beta import ClientDialect
from interview_peer.core.gate import Gate
from interview_peer.core.gate_rules import OPEN
from interview_peer.core.refusal import GateRefused, error_event, refusal_event
from interview_peer.personas import Personas
from interview_peer.types import Json
from tests.simulator.talk import Talk
from tests.simulator.test_official_types import PLANTED, TALKS
from tests.support.official import (
    client_problems,
    client_types,
    server_problems,
    server_types,
    session_problems,
)


def test_every_event_type_that_we_read_or_let_through_is_an_official_one() -> None:
    assert set(realtime._READERS) <= set(server_types())
    assert set(OPEN) == set(client_types())


def test_what_does_not_fit_is_found() -> None:
    event: Json = {"type": "output_audio_buffer.started", "event_id": "e", "response_id": "r"}
    assert server_problems(event) == []
    assert server_problems(event | {"obfuscation": "x"}) == []
    for odd in ({**event, "more": 1}, {**event, "response_id": 1}, {"type": event["type"]}):
        assert server_problems(odd) != []
    assert server_problems({"type": "nonsense"}) == ["nonsense is no event"]
    nested: Json = {"type": "conversation.item.deleted", "event_id": "e", "item_id": "i"}
    assert server_problems(nested) == []


@pytest.mark.parametrize("persona", Personas.load(None).all(), ids=lambda one: one.name)
def test_the_session_of_a_call_fits(persona: Any) -> None:
    assert session_problems(persona.session(None)) == []
    assert session_problems(persona.with_voice("ash").session("gpt-realtime-2.1")) == []


@pytest.mark.parametrize(
    "event", [{"type": "response.cancel"}, {"type": "output_audio_buffer.clear"}]
)
def test_what_we_say_to_the_model_ourselves_fits(event: Json) -> None:
    assert client_problems(event) == []


@pytest.mark.parametrize("about", [None, {"type": "session.update", "event_id": "mine"}])
@pytest.mark.parametrize("param", [None, "session.voice"])
def test_our_own_errors_fit(about: Json | None, param: str | None) -> None:
    refused = GateRefused("invalid_value", "A sentence.", param)
    for event in (refusal_event(refused, about), error_event("event_too_large", "A sentence.")):
        assert server_problems(event) == []


# What clients of either dialect say, as the model gets it

SAID_IN_BETA: list[Json] = [
    {
        "type": "session.update",
        "event_id": "e1",
        "session": {
            "modalities": ["text", "audio"],
            "instructions": "Ask.",
            "voice": "alloy",
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 800},
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
        },
    },
    {
        "type": "response.create",
        "response": {
            "modalities": ["text"],
            "voice": "ash",
            "output_audio_format": "pcm16",
            "temperature": 0.7,
            "max_response_output_tokens": 100,
            "instructions": "Be brief.",
        },
    },
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "Hello."}],
        },
    },
]

SAID_IN_GA: list[Json] = [
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.retrieve", "item_id": "i"},
    {"type": "conversation.item.delete", "item_id": "i"},
    {
        "type": "conversation.item.truncate",
        "item_id": "i",
        "content_index": 0,
        "audio_end_ms": 10,
    },
    {"type": "response.cancel", "response_id": "r"},
    {"type": "response.create"},
    {
        "type": "session.update",
        "session": {"type": "realtime", "model": "x", "audio": {"output": {"voice": "ash"}}},
    },
]


@pytest.mark.parametrize(
    ("event", "beta"),
    [(event, True) for event in SAID_IN_BETA] + [(event, False) for event in SAID_IN_GA],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_what_a_client_says_reaches_the_model_in_official_form(event: Json, beta: bool) -> None:
    dialect = ClientDialect()
    spoken = dialect.to_model(event)
    assert dialect.is_beta is beta
    assert client_problems(spoken) == []
    admitted = Gate().admit(spoken, 0.0)
    assert admitted is not None and client_problems(admitted) == []


# What the model says, as clients of the beta get it


@functools.cache
def beta_types() -> Mapping[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    for member in typing.get_args(typing.get_args(BetaServerEvent)[0]):
        for name in typing.get_args(member.model_fields["type"].annotation):
            found[str(name)] = member
    return found


@pytest.mark.parametrize("make", TALKS, ids=lambda make: make.__name__)
def test_what_clients_of_the_beta_are_told_fits_the_types_of_the_beta(make: Any) -> None:
    dialect = ClientDialect(is_beta=True)
    talk: Talk = make(1)
    checked = 0
    for event in talk.events:
        for told in dialect.to_client(event):
            if told["type"] == PLANTED:
                continue
            model = beta_types().get(told["type"])
            if model is None:
                # Newer than the beta; its clients ignored what they did not know.
                assert told["type"] in server_types(), told["type"]
                continue
            if "session" in told:
                # The models of the beta are gone.
                told = {**told, "session": {**told["session"], "model": "gpt-realtime"}}
            try:
                TypeAdapter(model).validate_python(told)
            except ValidationError as error:
                raise AssertionError(f"{told['type']}: {error.errors()}") from None
            checked += 1
    assert checked
