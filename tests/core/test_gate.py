"""What an open client may say to the model."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from interview_peer.core.gate import Gate
from interview_peer.core.refusal import (
    MAX_EVENT_BYTES,
    GateRefused,
    check_size,
    error_event,
    refusal_event,
)
from interview_peer.types import Json
from tests.support.official import client_types

PASSED = sorted({*client_types()} - {"session.update", "input_audio_buffer.append"})


def admitted(event: Json) -> Json:
    before = copy.deepcopy(event)
    result = Gate().admit(event, 0.0)
    assert event == before, "the gate changed the event it was given"
    assert result is not None
    return result


def refused(event: Json) -> GateRefused:
    with pytest.raises(GateRefused) as caught:
        Gate().admit(event, 0.0)
    return caught.value


@pytest.mark.parametrize("kind", PASSED)
def test_other_known_events_pass_as_they_are(kind: str) -> None:
    event = {"type": kind, "event_id": "e", "item_id": "item_1", "new": True}
    assert admitted(event) is event


def test_every_event_of_the_service_has_a_rule() -> None:
    for kind in client_types():
        try:
            Gate().admit({"type": kind, "session": {}}, 0.0)
        except GateRefused as refusal:
            assert refusal.code == "invalid_event_for_transport", kind


@pytest.mark.parametrize(
    "kind", ["session.close", "session.created", "transcription_session.update", "", None, 3, []]
)
def test_unknown_types_are_refused_by_name_of_the_field(kind: Any) -> None:
    refusal = refused({"type": kind})
    assert (refusal.code, refusal.param) == ("invalid_value", "type")


def test_audio_in_events_is_refused() -> None:
    refusal = refused({"type": "input_audio_buffer.append", "audio": "AAAA"})
    assert refusal.code == "invalid_event_for_transport"
    assert "AAAA" not in refusal.message


def test_a_session_update_keeps_instructions_and_voice_only() -> None:
    # What a stock client sends as soon as its channel is open.
    event = {
        "type": "session.update",
        "event_id": "mine_1",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime-2.1",
            "instructions": "Be brief.",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": {"type": "semantic_vad"},
                    "noise_reduction": None,
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash"},
            },
            "tool_choice": "auto",
            "tools": [],
        },
        "stray": 1,
    }
    assert admitted(event) == {
        "type": "session.update",
        "event_id": "mine_1",
        "session": {
            "type": "realtime",
            "instructions": "Be brief.",
            "audio": {"output": {"voice": "ash"}},
        },
    }


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"type": "realtime", "tracing": "auto"},
        {"type": "realtime", "audio": {"input": {"transcription": None}}},
        {"type": "realtime", "audio": {"input": None, "output": {"speed": 1.5}}},
        {"type": "realtime", "audio": None, "model": "gpt-realtime-mini"},
    ],
)
def test_an_update_with_nothing_left_still_goes_to_be_answered(session: Json) -> None:
    assert admitted({"type": "session.update", "session": session}) == {
        "type": "session.update",
        "session": {"type": "realtime"},
    }


def test_empty_instructions_and_a_custom_voice_are_kept() -> None:
    session = {"instructions": "", "audio": {"output": {"voice": {"id": "voice_1", "x": 1}}}}
    assert admitted({"type": "session.update", "session": session})["session"] == {
        "type": "realtime",
        "instructions": "",
        "audio": {"output": {"voice": {"id": "voice_1"}}},
    }


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({}, "missing_required_parameter", "session"),
        ({"session": "realtime"}, "invalid_type", "session"),
        ({"session": {"type": "transcription"}}, "invalid_value", "session.type"),
        ({"session": {"instructions": ["x"]}}, "invalid_type", "session.instructions"),
        (
            {"session": {"audio": {"output": {"voice": 7}}}},
            "invalid_type",
            "session.audio.output.voice",
        ),
        (
            {"session": {"audio": {"output": {"voice": "v" * 65}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"session": {"audio": {"output": {"voice": {"id": "v" * 65}}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"session": {"audio": {"output": {"voice": {"id": None}}}}},
            "invalid_type",
            "session.audio.output.voice",
        ),
    ],
)
def test_a_malformed_update_is_refused_with_its_place(event: Json, code: str, param: str) -> None:
    refusal = refused({"type": "session.update"} | event)
    assert (refusal.code, refusal.param) == (code, param)


def test_beta_leftovers_are_taken_out_of_a_reply_request() -> None:
    event = {
        "type": "response.create",
        "event_id": "e",
        "response": {
            "output_modalities": ["text"],
            "modalities": ["text"],
            "voice": "ash",
            "output_audio_format": "pcm16",
            "temperature": 0.7,
            "max_response_output_tokens": 5,
            "instructions": "Ask on.",
            "metadata": {"a": "b"},
        },
    }
    assert admitted(event) == {
        "type": "response.create",
        "event_id": "e",
        "response": {
            "output_modalities": ["text"],
            "instructions": "Ask on.",
            "metadata": {"a": "b"},
        },
    }


@pytest.mark.parametrize("rest", [{}, {"response": None}, {"response": {"conversation": "none"}}])
def test_a_clean_reply_request_passes_as_it_is(rest: Json) -> None:
    event = {"type": "response.create"} | rest
    assert admitted(event) is event


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("x" * MAX_EVENT_BYTES, True),
        ("x" * (MAX_EVENT_BYTES + 1), False),
        ("\u00e9" * (MAX_EVENT_BYTES // 2), True),
        ("\u00e9" * (MAX_EVENT_BYTES // 2) + "x", False),
        ("\U0001f642" * (MAX_EVENT_BYTES // 4), True),
        ("\U0001f642" * (MAX_EVENT_BYTES // 4 + 1), False),
    ],
    ids=range(7),
)
def test_the_size_limit_counts_bytes(text: str, fits: bool) -> None:
    if fits:
        check_size(text)
        return
    with pytest.raises(GateRefused) as caught:
        check_size(text)
    assert caught.value.code == "too_large"


def test_an_error_event_has_the_services_shape() -> None:
    event = error_event("invalid_value", "No.", "mine_7", "type")
    assert event["event_id"].startswith("event_")
    assert event["event_id"] != error_event("invalid_value", "No.")["event_id"]
    del event["event_id"]
    assert event == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "No.",
            "param": "type",
            "event_id": "mine_7",
        },
    }


@pytest.mark.parametrize(
    ("event", "echoed"),
    [
        ({"type": "x", "event_id": "mine_7"}, "mine_7"),
        ({"type": "x"}, None),
        ({"type": "x", "event_id": {"a": 1}}, None),
        ({"type": "x", "event_id": "a" * 513}, None),
        (None, None),
    ],
)
def test_a_refusal_names_the_event_it_answers(event: Json | None, echoed: str | None) -> None:
    answer = refusal_event(GateRefused("invalid_value", "No.", "type"), event)
    assert answer["error"] == {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "No.",
        "param": "type",
        "event_id": echoed,
    }


def test_an_open_client_is_told_instructions_that_it_chose_and_no_others() -> None:
    gate = Gate()
    ours = {"type": "session.created", "session": {"instructions": "Ours.", "voice": "marin"}}
    told = gate.tell(ours)
    assert told == {"type": "session.created", "session": {"instructions": "", "voice": "marin"}}
    gate.admit({"type": "session.update", "session": {"instructions": "Mine."}}, 0.0)
    # What was in force when it was sent.
    assert gate.tell(ours) == told
    mine = {"type": "session.updated", "session": {"instructions": "Mine."}}
    assert gate.tell(mine) is mine
    voice = {"type": "session.update", "session": {"audio": {"output": {"voice": "ash"}}}}
    gate.admit(voice, 0.0)
    assert gate.tell(mine) is mine
