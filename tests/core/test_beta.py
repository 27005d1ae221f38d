"""Beta clients are understood and answered in the shape they speak."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from interview_peer.core.beta import ClientDialect
from interview_peer.types import Json

PCM: Json = {"type": "audio/pcm", "rate": 24000}
VAD: Json = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 800}

# The first event of a front end in use: instructions, voice, transcription and turn detection.
FIRST_UPDATE: Json = {
    "type": "session.update",
    "session": {
        "instructions": "You are a helpful AI assistant conducting an interview.",
        "voice": "alloy",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": VAD,
    },
}

GA_SESSION: Json = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_1",
    "model": "gpt-realtime-2.1",
    "output_modalities": ["audio"],
    "instructions": "Ask.",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "prompt": None,
    "expires_at": 1769000000,
    "include": None,
    "audio": {
        "input": {
            "format": PCM,
            "transcription": {"model": "gpt-transcribe"},
            "noise_reduction": None,
            "turn_detection": VAD,
        },
        "output": {"format": PCM, "voice": "marin", "speed": 1.0},
    },
}


def to_model(event: Json, dialect: ClientDialect | None = None) -> Json:
    before = copy.deepcopy(event)
    result = (dialect or ClientDialect(is_beta=True)).to_model(event)
    assert event == before, "the event was changed in place"
    return result


def to_client(event: Json) -> list[Json]:
    before = copy.deepcopy(event)
    result = ClientDialect(is_beta=True).to_client(event)
    assert event == before, "the event was changed in place"
    return result


def only(events: list[Json]) -> Json:
    (event,) = events
    return event


def update(session: Any) -> Json:
    return {"type": "session.update", "event_id": "e1", "session": session}


# Which dialect it is


@pytest.mark.parametrize(
    "event",
    [
        FIRST_UPDATE,
        update({}),
        update({"instructions": "No type here."}),
        update({"type": "realtime", "modalities": ["text"]}),
        update({"type": "realtime", "voice": "ash"}),
        update({"type": "realtime", "speed": 1.2}),
        update({"type": "realtime", "input_audio_format": "pcm16"}),
        update({"type": "realtime", "output_audio_format": "pcm16"}),
        update({"type": "realtime", "input_audio_transcription": None}),
        update({"type": "realtime", "input_audio_noise_reduction": None}),
        update({"type": "realtime", "turn_detection": None}),
        update({"type": "realtime", "max_response_output_tokens": 9}),
        update({"type": "realtime", "temperature": 0.8}),
        {"type": "transcription_session.update", "session": {}},
        {"type": "response.create", "response": {"modalities": ["text"]}},
        {"type": "response.create", "response": {"voice": "ash"}},
        {"type": "response.create", "response": {"output_audio_format": "pcm16"}},
        {"type": "response.create", "response": {"temperature": 0.7}},
        {"type": "response.create", "response": {"max_response_output_tokens": 100}},
        {
            "type": "response.create",
            "response": {"input": [{"role": "assistant", "content": [{"type": "text"}]}]},
        },
        {
            "type": "conversation.item.create",
            "item": {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]},
        },
    ],
)
def test_a_beta_shaped_event_makes_the_connection_beta_for_good(event: Json) -> None:
    dialect = ClientDialect()
    to_model(event, dialect)
    assert dialect.is_beta
    to_model(update({"type": "realtime"}), dialect)
    assert dialect.is_beta


@pytest.mark.parametrize(
    "event",
    [
        update({"type": "realtime"}),
        update({"type": "realtime", "audio": {"output": {"voice": "ash"}}, "tools": []}),
        update({"type": "realtime", "max_output_tokens": 100}),
        update("odd"),
        {"type": "session.update"},
        {"type": "response.create"},
        {"type": "response.create", "response": {}},
        {"type": "response.create", "response": None},
        {"type": "response.create", "response": {"max_output_tokens": 3, "input": "odd"}},
        {
            "type": "response.create",
            "response": {"input": [{"type": "item_reference", "id": "item_1"}]},
        },
        {
            "type": "conversation.item.create",
            "item": {"role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
        },
        {
            "type": "conversation.item.create",
            "item": {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
        },
        {"type": "conversation.item.create"},
        {"type": "response.cancel", "temperature": 1},
        {},
    ],
)
def test_everything_else_leaves_it_ga_and_untouched(event: Json) -> None:
    dialect = ClientDialect()
    assert to_model(event, dialect) is event
    assert not dialect.is_beta


def test_towards_a_ga_client_events_are_the_same_objects() -> None:
    event = {"type": "conversation.item.done", "item": {"id": "item_1"}}
    assert only(ClientDialect().to_client(event)) is event


# Browser to model


def test_the_first_update_of_a_front_end_in_use_is_understood() -> None:
    assert to_model(FIRST_UPDATE, ClientDialect()) == {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "instructions": "You are a helpful AI assistant conducting an interview.",
            "audio": {
                "input": {"transcription": {"model": "whisper-1"}, "turn_detection": VAD},
                "output": {"voice": "alloy"},
            },
        },
    }


@pytest.mark.parametrize(
    ("beta", "ga"),
    [
        ({"modalities": ["text", "audio"]}, {"output_modalities": ["audio"]}),
        ({"modalities": ["audio", "text"]}, {"output_modalities": ["audio"]}),
        ({"modalities": ["audio"]}, {"output_modalities": ["audio"]}),
        ({"modalities": ["text"]}, {"output_modalities": ["text"]}),
        ({"modalities": ["smell"]}, {"output_modalities": ["smell"]}),
        ({"modalities": "text"}, {"output_modalities": "text"}),
        ({"voice": "ash"}, {"audio": {"output": {"voice": "ash"}}}),
        ({"speed": 1.25}, {"audio": {"output": {"speed": 1.25}}}),
        ({"input_audio_format": "pcm16"}, {"audio": {"input": {"format": PCM}}}),
        (
            {"input_audio_format": "g711_ulaw"},
            {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
        ),
        (
            {"output_audio_format": "g711_alaw"},
            {"audio": {"output": {"format": {"type": "audio/pcma"}}}},
        ),
        ({"output_audio_format": "mp3"}, {"audio": {"output": {"format": "mp3"}}}),
        ({"output_audio_format": None}, {"audio": {"output": {"format": None}}}),
        ({"input_audio_transcription": None}, {"audio": {"input": {"transcription": None}}}),
        (
            {"input_audio_transcription": {"model": "m", "language": "en", "prompt": "p"}},
            {
                "audio": {
                    "input": {"transcription": {"model": "m", "language": "en", "prompt": "p"}}
                }
            },
        ),
        (
            {"input_audio_noise_reduction": {"type": "near_field"}},
            {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}},
        ),
        ({"turn_detection": None}, {"audio": {"input": {"turn_detection": None}}}),
        ({"max_response_output_tokens": "inf"}, {"max_output_tokens": "inf"}),
        ({"temperature": 1.1}, {}),
        ({"client_secret": {"value": "x"}}, {}),
        ({"model": "gpt-4o-realtime-preview-2024-12-17"}, {}),
        ({"model": "gpt-4o-mini-realtime-preview"}, {}),
        ({"model": "gpt-realtime-2.1"}, {"model": "gpt-realtime-2.1"}),
        ({"model": 5}, {"model": 5}),
        (
            {
                "instructions": "",
                "tools": [],
                "tool_choice": "auto",
                "tracing": None,
                "include": None,
                "prompt": None,
                "truncation": "auto",
                "brand_new": {"x": 1},
            },
            {
                "instructions": "",
                "tools": [],
                "tool_choice": "auto",
                "tracing": None,
                "include": None,
                "prompt": None,
                "truncation": "auto",
                "brand_new": {"x": 1},
            },
        ),
    ],
)
def test_each_session_field_goes_to_its_place(beta: Json, ga: Json) -> None:
    assert to_model(update(beta)) == update({"type": "realtime"} | ga)


def test_ga_fields_win_over_beta_fields() -> None:
    session = {
        "type": "realtime",
        "voice": "ash",
        "modalities": ["text"],
        "output_modalities": ["audio"],
        "max_response_output_tokens": 1,
        "max_output_tokens": 2,
        "turn_detection": VAD,
        "audio": {"output": {"voice": "marin", "speed": 1.1}, "input": {"turn_detection": None}},
    }
    assert to_model(update(session)) == update(
        {
            "type": "realtime",
            "output_modalities": ["audio"],
            "max_output_tokens": 2,
            "audio": {
                "output": {"voice": "marin", "speed": 1.1},
                "input": {"turn_detection": None},
            },
        }
    )


def test_beta_fields_join_the_ga_fields_that_are_there() -> None:
    audio = {"output": {"speed": 1.1}, "input": {"turn_detection": None}}
    session = {"type": "realtime", "voice": "ash", "audio": audio}
    assert to_model(update(session)) == update(
        {
            "type": "realtime",
            "audio": {
                "output": {"speed": 1.1, "voice": "ash"},
                "input": {"turn_detection": None},
            },
        }
    )


@pytest.mark.parametrize("audio", [None, "odd", {"output": 5}])
def test_a_malformed_ga_field_is_left_for_the_service_to_refuse(audio: Any) -> None:
    result = to_model(update({"type": "realtime", "voice": "ash", "audio": audio}))
    assert result == update({"type": "realtime", "audio": audio})


def test_a_session_that_is_no_object_passes_as_it_is() -> None:
    event = update("odd")
    assert to_model(event) is event


def test_a_transcription_session_becomes_a_session_of_that_type() -> None:
    event = {
        "type": "transcription_session.update",
        "session": {"input_audio_format": "pcm16", "input_audio_transcription": {"model": "m"}},
    }
    assert to_model(event) == {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {"input": {"format": PCM, "transcription": {"model": "m"}}},
        },
    }


@pytest.mark.parametrize(
    ("beta", "ga"),
    [
        ({"modalities": ["audio", "text"]}, {"output_modalities": ["audio"]}),
        ({"modalities": ["text"]}, {"output_modalities": ["text"]}),
        ({"voice": "ash"}, {"audio": {"output": {"voice": "ash"}}}),
        ({"output_audio_format": "pcm16"}, {"audio": {"output": {"format": PCM}}}),
        ({"temperature": 0.6}, {}),
        ({"max_response_output_tokens": 50}, {"max_output_tokens": 50}),
        ({"max_output_tokens": 50}, {"max_output_tokens": 50}),
        (
            {"max_response_output_tokens": 50, "max_output_tokens": 60},
            {"max_output_tokens": 60},
        ),
        (
            {"instructions": "Go on.", "conversation": "none", "metadata": {"a": "b"}, "new": 1},
            {"instructions": "Go on.", "conversation": "none", "metadata": {"a": "b"}, "new": 1},
        ),
        ({"input": "odd"}, {"input": "odd"}),
        (
            {
                "input": [
                    {"type": "item_reference", "id": "item_1"},
                    "odd",
                    {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]},
                ]
            },
            {
                "input": [
                    {"type": "item_reference", "id": "item_1"},
                    "odd",
                    {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
                ]
            },
        ),
    ],
)
def test_each_field_of_a_reply_request_goes_to_its_place(beta: Json, ga: Json) -> None:
    event = {"type": "response.create", "event_id": "e"}
    assert to_model(event | {"response": beta}) == event | {"response": ga}


@pytest.mark.parametrize(
    ("role", "beta", "ga"),
    [
        ("assistant", "text", "output_text"),
        ("assistant", "audio", "output_audio"),
        ("assistant", "output_text", "output_text"),
        ("user", "input_text", "input_text"),
        ("user", "text", "text"),
        ("system", "input_text", "input_text"),
    ],
)
def test_only_what_the_assistant_said_has_other_content_types(
    role: str, beta: str, ga: str
) -> None:
    def create(kind: str) -> Json:
        part = {"type": kind, "text": "Hi.", "extra": 1}
        item = {"id": "item_1", "type": "message", "role": role, "content": [part, "odd"]}
        return {"type": "conversation.item.create", "previous_item_id": "root", "item": item}

    assert to_model(create(beta)) == create(ga)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear", "event_id": "e"},
        {"type": "output_audio_buffer.clear"},
        {"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": 1},
        {"type": "conversation.item.delete", "item_id": "i"},
        {"type": "conversation.item.retrieve", "item_id": "i"},
        {"type": "response.create"},
        {"type": "response.cancel"},
        {"type": "something.new", "voice": "ash"},
    ],
)
def test_every_other_client_event_is_unchanged(event: Json) -> None:
    assert to_model(event) is event


# Model to browser


def test_a_session_is_told_flat() -> None:
    event = {"type": "session.updated", "event_id": "event_1", "session": GA_SESSION}
    assert only(to_client(event)) == {
        "type": "session.updated",
        "event_id": "event_1",
        "session": {
            "object": "realtime.session",
            "id": "sess_1",
            "model": "gpt-realtime-2.1",
            "modalities": ["text", "audio"],
            "instructions": "Ask.",
            "voice": "marin",
            "speed": 1.0,
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"model": "gpt-transcribe"},
            "input_audio_noise_reduction": None,
            "turn_detection": VAD,
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": 1769000000,
            "include": None,
        },
    }


@pytest.mark.parametrize(
    ("ga", "beta"),
    [
        ({"output_modalities": ["text"]}, {"modalities": ["text"]}),
        (
            {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
            {"input_audio_format": "g711_ulaw"},
        ),
        (
            {"audio": {"output": {"format": {"type": "audio/pcma"}}}},
            {"output_audio_format": "g711_alaw"},
        ),
        (
            {"audio": {"output": {"format": {"type": "audio/new"}}}},
            {"output_audio_format": {"type": "audio/new"}},
        ),
        (
            {"audio": {"output": {"format": {"type": ["odd"]}}}},
            {"output_audio_format": {"type": ["odd"]}},
        ),
        (
            {"audio": {"output": {"voice": "ash", "new": 1}, "newer": 2}},
            {"voice": "ash", "audio": {"output": {"new": 1}, "newer": 2}},
        ),
        ({"audio": "odd"}, {"audio": "odd"}),
        ({"audio": {}}, {"audio": {}}),
        ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
    ],
)
def test_a_session_is_told_flat_whatever_it_holds(ga: Json, beta: Json) -> None:
    event = {"type": "session.created", "session": {"type": "realtime"} | ga}
    assert only(to_client(event)) == {
        "type": "session.created",
        "session": {"temperature": 0.8} | beta,
    }


@pytest.mark.parametrize("name", ["created", "updated"])
def test_a_transcription_session_gets_its_own_event_names(name: str) -> None:
    session = {"type": "transcription", "audio": {"input": {"format": PCM}}}
    assert only(to_client({"type": f"session.{name}", "session": session})) == {
        "type": f"transcription_session.{name}",
        "session": {"input_audio_format": "pcm16"},
    }


def test_a_session_event_without_session_passes() -> None:
    event = {"type": "session.created", "session": None}
    assert only(to_client(event)) is event


@pytest.mark.parametrize(
    ("ga", "beta"),
    [
        ("response.output_text.delta", "response.text.delta"),
        ("response.output_text.done", "response.text.done"),
        ("response.output_audio.delta", "response.audio.delta"),
        ("response.output_audio.done", "response.audio.done"),
        ("response.output_audio_transcript.delta", "response.audio_transcript.delta"),
        ("response.output_audio_transcript.done", "response.audio_transcript.done"),
    ],
)
def test_reply_events_get_their_beta_names(ga: str, beta: str) -> None:
    event = {"type": ga, "event_id": "event_1", "item_id": "item_A", "transcript": "Hello."}
    assert only(to_client(event)) == event | {"type": beta}


def test_a_new_item_is_told_once() -> None:
    item = {
        "id": "item_A",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    added = {"type": "conversation.item.added", "previous_item_id": "item_U", "item": item}
    assert only(to_client(added)) == added | {"type": "conversation.item.created"}
    assert to_client({"type": "conversation.item.done", "item": item}) == []


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("conversation.item.added", "conversation.item.created"),
        ("conversation.item.retrieved", "conversation.item.retrieved"),
        ("response.output_item.added", "response.output_item.added"),
        ("response.output_item.done", "response.output_item.done"),
    ],
)
def test_items_are_told_with_beta_content_types(kind: str, told: str) -> None:
    def event(name: str, text: str, audio: str) -> Json:
        content = [{"type": text, "text": "Hi."}, {"type": audio, "transcript": "Ho."}]
        return {"type": name, "item": {"id": "item_A", "role": "assistant", "content": content}}

    assert only(to_client(event(kind, "output_text", "output_audio"))) == event(
        told, "text", "audio"
    )


def test_candidate_items_and_function_calls_keep_their_content() -> None:
    for item in (
        {"id": "item_U", "role": "user", "content": [{"type": "input_audio", "transcript": None}]},
        {"id": "item_F", "type": "function_call", "arguments": "{}", "call_id": "call_1"},
    ):
        event = {"type": "response.output_item.done", "response_id": "resp_R", "item": item}
        assert only(to_client(event)) == event


def test_a_response_is_told_flat_with_beta_items() -> None:
    event = {
        "type": "response.done",
        "response": {
            "object": "realtime.response",
            "id": "resp_R",
            "status": "completed",
            "status_details": None,
            "output": [
                {
                    "id": "item_A",
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_audio", "transcript": "Hello."}],
                }
            ],
            "conversation_id": "conv_1",
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": PCM, "voice": "marin"}},
            "usage": {"total_tokens": 2},
            "metadata": None,
        },
    }
    assert only(to_client(event)) == {
        "type": "response.done",
        "response": {
            "object": "realtime.response",
            "id": "resp_R",
            "status": "completed",
            "status_details": None,
            "output": [
                {
                    "id": "item_A",
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "audio", "transcript": "Hello."}],
                }
            ],
            "conversation_id": "conv_1",
            "modalities": ["text", "audio"],
            "max_output_tokens": "inf",
            "voice": "marin",
            "output_audio_format": "pcm16",
            "temperature": 0.8,
            "usage": {"total_tokens": 2},
            "metadata": None,
        },
    }


def test_a_response_without_output_is_told_all_the_same() -> None:
    event = {"type": "response.created", "response": {"id": "resp_R", "output": None}}
    assert only(to_client(event))["response"] == {
        "id": "resp_R",
        "output": None,
        "temperature": 0.8,
    }
    bare = {"type": "response.created", "response": {"id": "resp_R"}}
    assert only(to_client(bare))["response"] == {"id": "resp_R", "temperature": 0.8}


@pytest.mark.parametrize(
    "kind",
    [
        "response.content_part.added",
        "response.content_part.done",
        "rate_limits.updated",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.failed",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "output_audio_buffer.cleared",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.truncated",
        "conversation.item.deleted",
        "error",
        "something.new.tomorrow",
    ],
)
def test_every_other_model_event_is_unchanged(kind: str) -> None:
    event = {"type": kind, "part": {"type": "audio"}, "response_id": "resp_R"}
    assert only(to_client(event)) is event


def test_an_event_without_a_type_is_unchanged() -> None:
    event = {"type": None, "x": 1}
    assert only(to_client(event)) is event


# There and back


@pytest.mark.parametrize(
    "field",
    [
        {"modalities": ["text", "audio"]},
        {"modalities": ["text"]},
        {"voice": "ash"},
        {"speed": 1.25},
        {"input_audio_format": "pcm16"},
        {"input_audio_format": "g711_ulaw"},
        {"output_audio_format": "g711_alaw"},
        {"input_audio_transcription": {"model": "gpt-transcribe"}},
        {"input_audio_noise_reduction": {"type": "far_field"}},
        {"turn_detection": VAD},
        {"turn_detection": None},
        {"max_response_output_tokens": 4096},
        {"instructions": "Ask.", "tools": [], "tool_choice": "none", "unheard_of": 1},
    ],
)
def test_what_a_beta_client_sets_comes_back_as_it_was_set(field: Json) -> None:
    dialect = ClientDialect()
    sent = to_model(update(field), dialect)
    told = only(dialect.to_client({"type": "session.updated", "session": sent["session"]}))
    assert told["session"] == field | {"temperature": 0.8}


def test_the_shared_formats_cannot_be_changed_through_an_event() -> None:
    first = to_model(update({"input_audio_format": "pcm16"}))
    first["session"]["audio"]["input"]["format"]["rate"] = 1
    again = to_model(update({"input_audio_format": "pcm16"}))
    assert again["session"]["audio"]["input"]["format"] == PCM
