"""The session object: strict checks, merging, what cannot change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from interview_peer.simulator.checks import Fault
from interview_peer.simulator.session_config import new_session, updated_session
from interview_peer.types import Json


def fault_of(session: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        new_session(session)
    return caught.value


def updated(session: Json, *, spoken: bool = False, **update: Any) -> Json:
    return updated_session(session, {"type": "realtime"} | update, assistant_has_spoken=spoken)


def test_a_session_that_asks_for_nothing_has_every_default() -> None:
    session = new_session(None)
    assert session["audio"]["input"]["transcription"] is None
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "alloy",
        "speed": 1.0,
    }
    assert session["reasoning"] == {"effort": "low"}


@pytest.mark.parametrize(
    "field",
    [
        "voice",
        "modalities",
        "input_audio_format",
        "input_audio_transcription",
        "turn_detection",
        "temperature",
        "max_response_output_tokens",
        "id",
        "expires_at",
    ],
)
def test_beta_and_read_only_fields_are_unknown_parameters(field: str) -> None:
    fault = fault_of({"type": "realtime", field: "x"})
    assert (fault.code, fault.param) == ("unknown_parameter", f"session.{field}")


def test_the_type_is_required_before_anything_else() -> None:
    fault = fault_of({"voice": "alloy"})
    assert (fault.code, fault.param) == ("missing_required_parameter", "session.type")


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ([], "invalid_type", "session"),
        ({"type": "other"}, "invalid_value", "session.type"),
        ({"type": "transcription"}, "invalid_parameter", "session.type"),
        ({"instructions": 4}, "invalid_type", "session.instructions"),
        ({"output_modalities": ["text", "audio"]}, "invalid_value", "session.output_modalities"),
        ({"audio": None}, "invalid_type", "session.audio"),
        (
            {"audio": {"output": {"voice": "bob"}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"audio": {"output": {"speed": 2}}},
            "invalid_value",
            "session.audio.output.speed",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "x": 1}}}},
            "unknown_parameter",
            "session.audio.input.turn_detection.x",
        ),
        (
            {"audio": {"input": {"turn_detection": {"threshold": 0.5}}}},
            "missing_required_parameter",
            "session.audio.input.turn_detection.type",
        ),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools[0].name"),
        ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
    ],
)
def test_a_wrong_value_is_named(session: Any, code: str, param: str) -> None:
    if isinstance(session, dict):
        session = {"type": "realtime"} | session
    fault = fault_of(session)
    assert (fault.code, fault.param) == (code, param)


@pytest.mark.parametrize("model", ["gpt-4o-realtime-preview-2024-12-17", "made-up"])
def test_a_model_that_is_gone_is_not_found(model: str) -> None:
    assert fault_of({"type": "realtime", "model": model}).code == "model_not_found"


def test_an_update_changes_the_given_leaf_only() -> None:
    before = new_session({"type": "realtime", "audio": {"input": {"transcription": {}}}})
    unchanged = copy.deepcopy(before)
    after = updated(before, audio={"output": {"voice": "marin"}})
    assert after["audio"]["output"]["voice"] == "marin"
    assert after["audio"]["input"] == before["audio"]["input"]
    assert before == unchanged


def test_a_part_of_turn_detection_keeps_the_rest() -> None:
    change = {"type": "server_vad", "silence_duration_ms": 900}
    after = updated(new_session(None), audio={"input": {"turn_detection": change}})
    detection = after["audio"]["input"]["turn_detection"]
    assert (detection["silence_duration_ms"], detection["prefix_padding_ms"]) == (900, 300)


def test_semantic_detection_replaces_the_other_kind_whole() -> None:
    change = {"type": "semantic_vad"}
    after = updated(new_session(None), audio={"input": {"turn_detection": change}})
    assert after["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_null_switches_turn_detection_off_and_empty_values_clear() -> None:
    before = new_session({"type": "realtime", "tools": [{"type": "function", "name": "f"}]})
    after = updated(before, audio={"input": {"turn_detection": None}}, tools=[], instructions="")
    assert after["audio"]["input"]["turn_detection"] is None
    assert (after["tools"], after["instructions"]) == ([], "")


def test_the_model_is_fixed_but_may_be_repeated() -> None:
    session = new_session(None)
    assert updated(session, model=session["model"])["model"] == session["model"]
    with pytest.raises(Fault) as caught:
        updated(session, model="gpt-realtime-2")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "session.model")


def test_the_voice_is_locked_once_the_assistant_has_spoken() -> None:
    session = new_session(None)
    with pytest.raises(Fault) as caught:
        updated(session, spoken=True, audio={"output": {"voice": "marin"}})
    assert caught.value.code == "cannot_update_voice"
    assert updated(session, spoken=True, audio={"output": {"voice": "alloy"}})
    assert updated(session, audio={"output": {"voice": "marin"}})


def test_tracing_stays_as_it_is_once_it_is_on() -> None:
    session = updated(new_session(None), tracing="auto")
    assert updated(session, tracing="auto")["tracing"] == "auto"
    for other in (None, {"workflow_name": "x"}):
        with pytest.raises(Fault) as caught:
            updated(session, tracing=other)
        assert caught.value.param == "session.tracing"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        (
            {"audio": {"input": {"transcription": {"model": "whisper-9"}}}},
            "invalid_value",
            "session.audio.input.transcription.model",
        ),
        (
            {
                "audio": {
                    "input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 1.5}}
                }
            },
            "invalid_type",
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        ({"tracing": "on"}, "invalid_value", "session.tracing"),
        ({"tracing": {"name": "x"}}, "unknown_parameter", "session.tracing.name"),
        ({"truncation": {"type": "retention_ratio"}}, "missing_required_parameter", None),
        ({"truncation": "sometimes"}, "invalid_value", "session.truncation"),
        ({"tool_choice": {"type": "function"}}, "missing_required_parameter", None),
        ({"tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
        ({"tools": [{"type": "mcp", "server_label": "s"}]}, "missing_required_parameter", None),
        ({"tools": [{"type": "function", "name": "f", "strict": True}]}, "unknown_parameter", None),
        ({"prompt": {"version": "1"}}, "missing_required_parameter", "session.prompt.id"),
        ({"include": ["everything"]}, "invalid_value", "session.include[0]"),
        ({"max_output_tokens": 1.5}, "invalid_type", "session.max_output_tokens"),
    ],
    ids=str,
)
def test_what_is_seldom_set_is_checked_as_well(session: Any, code: str, param: str | None) -> None:
    fault = fault_of({"type": "realtime"} | session)
    assert fault.code == code
    assert param is None or fault.param == param
