"""Reading the event channel: what is understood, and that nothing odd does harm."""

from __future__ import annotations

import random
from typing import Any

import pytest

from interview_peer.core.realtime import (
    UNPLACED,
    IdleTimedOut,
    InputCommitted,
    InputTextDelta,
    InputTextDone,
    InputTextFailed,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    ModelError,
    ModelEvent,
    PlayoutCleared,
    PlayoutStarted,
    PlayoutStopped,
    ReplyDone,
    ReplyItemAdded,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTextDone,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    ToolCalled,
    UnknownModelEvent,
    model_event,
    parse,
)
from interview_peer.errors import InvalidJson, InvalidMessage
from interview_peer.types import ItemId, Json, ResponseId

U, A, R = ItemId("item_U"), ItemId("item_A"), ResponseId("resp_R")

SESSION: Json = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_1",
    "model": "gpt-realtime-2.1",
    "expires_at": 1795132800,
    "audio": {"input": {"transcription": None}, "output": {"voice": "marin", "speed": 1.0}},
}
USER_SPEECH: Json = {
    "id": U,
    "type": "message",
    "status": "completed",
    "role": "user",
    "content": [{"type": "input_audio", "transcript": None}],
}
USAGE: Json = {"total_tokens": 275, "input_tokens": 127, "output_tokens": 148}

READ: list[tuple[Json, ModelEvent]] = [
    (
        {"type": "session.created", "session": SESSION},
        SessionCreated("sess_1", "gpt-realtime-2.1", "marin", 1795132800),
    ),
    (
        {"type": "session.updated", "session": {"audio": {"output": {"voice": {"id": "voice_7"}}}}},
        SessionUpdated(None, None, "voice_7", None),
    ),
    (
        {"type": "session.updated", "session": {"audio": None}},
        SessionUpdated(None, None, None, None),
    ),
    (
        {
            "type": "error",
            "error": {"code": "invalid_value", "message": "No.", "param": "type", "event_id": "e1"},
        },
        ModelError("invalid_value", "No.", "type", "e1"),
    ),
    ({"type": "error", "error": {}}, ModelError(None, "", None, None)),
    (
        {"type": "input_audio_buffer.speech_started", "item_id": U, "audio_start_ms": 1280},
        SpeechStarted(U, 1280),
    ),
    (
        {"type": "input_audio_buffer.speech_stopped", "item_id": U, "audio_end_ms": 2100.4},
        SpeechStopped(U, 2100),
    ),
    (
        {"type": "input_audio_buffer.speech_started", "item_id": U, "audio_start_ms": True},
        SpeechStarted(U, None),
    ),
    (
        {"type": "input_audio_buffer.speech_stopped", "item_id": U, "audio_end_ms": float("inf")},
        SpeechStopped(U, None),
    ),
    (
        {"type": "input_audio_buffer.committed", "item_id": U, "previous_item_id": A},
        InputCommitted(U, A),
    ),
    (
        {"type": "input_audio_buffer.committed", "item_id": U, "previous_item_id": None},
        InputCommitted(U, None),
    ),
    ({"type": "input_audio_buffer.committed", "item_id": U}, InputCommitted(U, UNPLACED)),
    (
        {"type": "input_audio_buffer.committed", "item_id": U, "previous_item_id": 7},
        InputCommitted(U, UNPLACED),
    ),
    (
        {"type": "conversation.item.added", "previous_item_id": A, "item": USER_SPEECH},
        ItemAdded(U, A, "user", ""),
    ),
    (
        {"type": "conversation.item.created", "previous_item_id": A, "item": USER_SPEECH},
        ItemAdded(U, A, "user", ""),
    ),
    (
        {
            "type": "conversation.item.added",
            "item": {
                "id": U,
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "One."},
                    {"type": "input_image", "image_url": "data:"},
                    "odd",
                    {"type": "input_audio", "transcript": "Two."},
                ],
            },
        },
        ItemAdded(U, UNPLACED, "user", "One. Two."),
    ),
    (
        {
            "type": "conversation.item.done",
            "previous_item_id": U,
            "item": {
                "id": A,
                "type": "message",
                "status": "incomplete",
                "role": "assistant",
                "content": [{"type": "output_audio", "transcript": "Hello there."}],
            },
        },
        ItemDone(A, U, "assistant", "Hello there.", "incomplete"),
    ),
    (
        {
            "type": "conversation.item.done",
            "item": {"id": A, "type": "function_call", "role": "odd", "arguments": "{}"},
        },
        ItemDone(A, UNPLACED, None, "", None, "function_call"),
    ),
    (
        {
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": U,
            "content_index": 0,
            "delta": "I am",
            "obfuscation": "aX9",
        },
        InputTextDelta(U, "I am"),
    ),
    (
        {"type": "conversation.item.input_audio_transcription.delta", "item_id": U},
        InputTextDelta(U, ""),
    ),
    (
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": U,
            "transcript": "I am here.",
            "usage": {"type": "duration", "seconds": 2},
        },
        InputTextDone(U, "I am here."),
    ),
    (
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "item_id": U,
            "error": {"code": "audio_unintelligible", "message": "..."},
        },
        InputTextFailed(U, "audio_unintelligible"),
    ),
    (
        {"type": "conversation.item.input_audio_transcription.failed", "item_id": U},
        InputTextFailed(U, None),
    ),
    (
        {"type": "response.created", "response": {"id": R, "conversation_id": "conv_1"}},
        ReplyStarted(R),
    ),
    ({"type": "response.created", "response": {"id": R}}, ReplyStarted(R)),
    (
        {"type": "response.created", "response": {"id": R, "conversation_id": None}},
        ReplyStarted(R, out_of_band=True),
    ),
    (
        {
            "type": "response.done",
            "response": {
                "id": R,
                "status": "cancelled",
                "status_details": {"type": "cancelled", "reason": "turn_detected"},
                "usage": USAGE,
            },
        },
        ReplyDone(R, "cancelled", "turn_detected", USAGE),
    ),
    (
        {
            "type": "response.done",
            "response": {
                "id": R,
                "status": "failed",
                "status_details": {"type": "failed", "error": {"code": "rate_limit_exceeded"}},
            },
        },
        ReplyDone(R, "failed", "rate_limit_exceeded", {}),
    ),
    (
        {"type": "response.done", "response": {"id": R, "status_details": None, "usage": None}},
        ReplyDone(R, None, None, {}),
    ),
    (
        {"type": "response.output_item.added", "response_id": R, "item": {"id": A, "content": []}},
        ReplyItemAdded(R, A),
    ),
    (
        {"type": "response.created", "response": {"id": R, "metadata": {"interview_peer": "t"}}},
        ReplyStarted(R, tag="t"),
    ),
    (
        {
            "type": "response.output_item.done",
            "response_id": R,
            "output_index": 1,
            "item": {
                "id": A,
                "type": "function_call",
                "status": "completed",
                "call_id": "call_1",
                "name": "lookup",
                "arguments": '{"q": "x"}',
            },
        },
        ToolCalled(R, A, "call_1", "lookup", '{"q": "x"}'),
    ),
    (
        {
            "type": "response.output_audio_transcript.delta",
            "response_id": R,
            "item_id": A,
            "delta": "Hel",
            "obfuscation": "k",
        },
        ReplyTextDelta(R, A, "Hel"),
    ),
    (
        {
            "type": "response.output_audio_transcript.done",
            "response_id": R,
            "item_id": A,
            "transcript": "Hello.",
        },
        ReplyTextDone(R, A, "Hello."),
    ),
    (
        {"type": "input_audio_buffer.timeout_triggered", "item_id": U, "audio_start_ms": 1},
        IdleTimedOut(U),
    ),
    (
        {"type": "response.output_text.delta", "response_id": R, "item_id": A, "delta": "Hel"},
        ReplyTextDelta(R, A, "Hel", True),
    ),
    (
        {"type": "response.output_text.done", "response_id": R, "item_id": A, "text": "Hello."},
        ReplyTextDone(R, A, "Hello.", True),
    ),
    ({"type": "output_audio_buffer.started", "response_id": R}, PlayoutStarted(R)),
    ({"type": "output_audio_buffer.stopped", "response_id": R}, PlayoutStopped(R)),
    ({"type": "output_audio_buffer.cleared", "response_id": R}, PlayoutCleared(R)),
    (
        {
            "type": "conversation.item.truncated",
            "item_id": A,
            "content_index": 0,
            "audio_end_ms": 900,
        },
        ItemTruncated(A, 900),
    ),
    ({"type": "conversation.item.truncated", "item_id": A}, ItemTruncated(A, None)),
    ({"type": "conversation.item.deleted", "item_id": A}, ItemDeleted(A)),
]

UNKNOWN = [
    "conversation.item.retrieved",
    "rate_limits.updated",
    "response.content_part.added",
    "response.function_call_arguments.delta",
    "something.new.tomorrow",
]


@pytest.mark.parametrize(("raw", "event"), READ, ids=[raw["type"] for raw, _ in READ])
def test_each_event_we_use_becomes_its_type(raw: Json, event: ModelEvent) -> None:
    assert model_event({"event_id": "event_1", "new_field": [1]} | raw) == event


@pytest.mark.parametrize("kind", UNKNOWN)
def test_events_without_use_are_unknown_and_named(kind: str) -> None:
    assert model_event({"type": kind, "item_id": U}) == UnknownModelEvent(kind)


@pytest.mark.parametrize(
    "item",
    [
        {"id": A, "type": "message", "status": "completed", "content": []},
        {"id": A, "type": "function_call", "status": "incomplete", "call_id": "c", "name": "n"},
        {"id": A, "type": "function_call", "status": "completed", "name": "n"},
        {"id": A, "type": "mcp_call", "name": "n", "arguments": "{}"},
    ],
)
def test_an_item_that_is_no_finished_call_calls_nothing(item: Json) -> None:
    event = {"type": "response.output_item.done", "response_id": R, "item": item}
    assert model_event(event) == UnknownModelEvent("response.output_item.done")


@pytest.mark.parametrize("kind", sorted({raw["type"] for raw, _ in READ}))
def test_an_event_without_what_it_needs_is_unknown(kind: str) -> None:
    assert model_event({"type": kind}) == UnknownModelEvent(kind)


@pytest.mark.parametrize("item_id", [None, 5, "", ["x"], {}])
def test_an_id_that_is_no_name_makes_an_event_unknown(item_id: Any) -> None:
    raw = {"type": "conversation.item.deleted", "item_id": item_id}
    assert model_event(raw) == UnknownModelEvent("conversation.item.deleted")


@pytest.mark.parametrize("raw", [{}, {"type": None}, {"type": ["session.created"]}])
def test_an_event_without_a_type_is_unknown(raw: Json) -> None:
    assert model_event(raw) == UnknownModelEvent("")


def test_reading_never_raises_whatever_the_shape() -> None:
    chance = random.Random(20)
    scraps: list[Any] = [None, True, 0, -1.5, float("nan"), "", "x", [], [None], {}, {"id": 3}]

    def broken(value: Any) -> Any:
        if chance.random() < 0.2:
            return chance.choice(scraps)
        if isinstance(value, dict):
            return {key: broken(v) for key, v in value.items() if chance.random() > 0.1}
        if isinstance(value, list):
            return [broken(v) for v in value]
        return value

    understood = 0
    for _ in range(5000):
        raw, _event = chance.choice(READ)
        damaged = {key: broken(value) for key, value in raw.items() if key != "type"}
        read = model_event({"type": raw["type"]} | damaged)
        understood += not isinstance(read, UnknownModelEvent)
    # Both ways are taken, or this has shown nothing.
    assert 500 < understood < 4500


def test_events_cannot_be_changed() -> None:
    event = model_event({"type": "conversation.item.deleted", "item_id": A})
    with pytest.raises(AttributeError):
        event.item_id = U  # type: ignore[union-attr, misc]


def test_parse_returns_the_object_with_unknown_fields() -> None:
    assert parse('{"type": "a.b", "more": {"x": [1, 2.5, null]}}') == {
        "type": "a.b",
        "more": {"x": [1, 2.5, None]},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=0",
        "{",
        '{"type": "a"} x',
        "[]",
        '"type"',
        "null",
        '{"type": "a", "x": NaN}',
        '{"type": "a", "x": -Infinity}',
        '{"type": "a", "x": ' + "[" * 100_000,
        '{"type": "a", "x": ' + "9" * 10_000 + "}",
    ],
    ids=range(11),
)
def test_parse_refuses_what_is_not_a_json_object(text: str) -> None:
    with pytest.raises(InvalidJson) as refused:
        parse(text)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("text", ["{}", '{"type": null}', '{"type": 5}', '{"Type": "a"}'])
def test_parse_refuses_an_object_without_a_type(text: str) -> None:
    with pytest.raises(InvalidMessage):
        parse(text)


def test_parse_errors_do_not_repeat_the_text() -> None:
    with pytest.raises(InvalidJson) as refused:
        parse('{"type": "conversation.item.create", "text": "my secret", ')
    assert "secret" not in repr(refused.value)
    assert refused.value.__suppress_context__
