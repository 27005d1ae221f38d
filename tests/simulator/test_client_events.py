"""What a client may send within a call and what each of its mistakes is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from interview_peer.simulator.client_events import CLIENT_FIELDS
from interview_peer.simulator.commands import Listen
from interview_peer.types import Json

from .talk import Talk


def text_item(text: str, **more: Any) -> Json:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content} | more


def test_an_update_is_answered_with_the_whole_session_and_no_event_id_of_the_client() -> None:
    talk = Talk().opened()
    talk.client("session.update", session={"type": "realtime", "instructions": "x"}, event_id="me")
    (event,) = talk.events
    assert event["type"] == "session.updated"
    assert event["session"]["instructions"] == "x"
    assert event["session"]["audio"]["input"]["transcription"]
    assert event["session"]["expires_at"]
    assert event["event_id"] != "me"


def test_one_bad_field_rejects_the_whole_update() -> None:
    talk = Talk().opened()
    session = {"type": "realtime", "instructions": "x", "voice": "marin"}
    talk.client("session.update", session=session, event_id="mine")
    assert talk.types() == ["error"]
    assert talk.error() == {
        "type": "invalid_request_error",
        "code": "unknown_parameter",
        "message": "Unknown parameter: 'session.voice'.",
        "param": "session.voice",
        "event_id": "mine",
    }
    talk.client("session.update", session={"type": "realtime"})
    assert talk.events[-1]["session"]["instructions"] != "x"


def test_other_turn_detection_reaches_the_ear() -> None:
    talk = Talk().opened()
    detection = {"type": "server_vad", "silence_duration_ms": 900}
    update = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    talk.client("session.update", session=update)
    (listen,) = (command for command in talk.commands if isinstance(command, Listen))
    assert listen.turn_detection is not None
    assert listen.turn_detection["silence_duration_ms"] == 900


def test_the_voice_is_locked_after_the_first_sound() -> None:
    talk = Talk().opened()
    update = {"type": "realtime", "audio": {"output": {"voice": "marin"}}}
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.started")
    talk.client("session.update", session=update)
    assert talk.error()["code"] == "cannot_update_voice"


MISTAKES: list[tuple[str | bytes, str, str | None]] = [
    ("not json", "invalid_event", None),
    (b"\x00\x01", "invalid_event", None),
    ("[1]", "invalid_event", None),
    ("{}", "invalid_event", "type"),
    ('{"type": 4}', "invalid_event", "type"),
    ('{"type": "made.up"}', "invalid_value", "type"),
    ('{"type": "__init__"}', "invalid_value", "type"),
    ('{"type": "response.cancel"}', "response_cancel_not_active", None),
    ('{"type": "response.create", "foo": 1}', "unknown_parameter", "foo"),
    (
        '{"type": "response.create", "response": {"modalities": ["text"]}}',
        "unknown_parameter",
        "response.modalities",
    ),
    ('{"type": "session.update"}', "missing_required_parameter", "session"),
    ('{"type": "input_audio_buffer.append", "audio": ""}', "invalid_event_for_transport", None),
    ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty", None),
    ('{"type": "conversation.item.create"}', "missing_required_parameter", "item"),
    ('{"type": "conversation.item.create", "item": {"type": "x"}}', "invalid_value", None),
    (
        '{"type": "conversation.item.delete", "item_id": "x"}',
        "item_delete_invalid_item_id",
        None,
    ),
    (
        '{"type": "conversation.item.delete", "item_id": []}',
        "item_delete_invalid_item_id",
        None,
    ),
    (
        '{"type": "conversation.item.truncate", "item_id": "x"}',
        "item_truncate_invalid_item_id",
        None,
    ),
    ('{"type": "conversation.item.retrieve"}', "item_retrieve_invalid_item_id", None),
]


@pytest.mark.parametrize(("message", "code", "param"), MISTAKES)
def test_a_mistake_is_named_and_ends_nothing(
    message: str | bytes, code: str, param: str | None
) -> None:
    talk = Talk().opened()
    talk.raw(message)
    error = talk.error()
    assert error["code"] == code
    assert param is None or error["param"] == param
    talk.client("response.create")
    talk.pass_until("response.done")
    assert not talk.hung_up


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (message, code)
        for message, code, _ in MISTAKES
        if isinstance(message, str) and message.startswith("{")
    ],
)
def test_a_mistake_is_told_with_the_client_s_own_event_id(message: str, code: str) -> None:
    talk = Talk().opened()
    talk.raw(json.dumps(json.loads(message) | {"event_id": "mine"}))
    assert (talk.error()["code"], talk.error()["event_id"]) == (code, "mine")


FIELDS = [(kind, field) for kind, fields in CLIENT_FIELDS.items() for field in fields]
INNER = ["type", "id", "role", "content", "tools", "tool_choice", "audio", "conversation", "input"]
ODD: list[Any] = [
    None,
    [],
    {},
    [[]],
    [{}],
    [{"type": []}],
    {"type": []},
    {"output": {"voice": []}},
    1.5,
    "x",
]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_odd_values_are_answered_and_never_raise(kind: str, field: str) -> None:
    for odd in ODD:
        for inner in INNER:
            wholes: list[Any] = [odd, {"type": "realtime", inner: odd}]
            wholes.append({"type": "message", "role": "user", "content": [], inner: odd})
            wholes.append({inner: odd})
            for whole in wholes:
                talk = Talk().opened()
                talk.client(kind, **{field: whole})
                talk.pass_time(0.5)
                assert talk.events, (kind, field, whole)


def test_json_nested_beyond_reason_is_no_event() -> None:
    talk = Talk().opened()
    talk.raw("[" * 100_000)
    assert talk.error()["code"] == "invalid_event"


def test_a_second_response_at_a_time_is_refused() -> None:
    talk = Talk().opened()
    talk.client("response.create")
    talk.client("response.create", event_id="second")
    error = talk.error()
    assert (error["code"], error["event_id"]) == (
        "conversation_already_has_active_response",
        "second",
    )
    assert talk.events[0]["response"]["id"] in error["message"]


def test_items_are_put_where_the_client_says() -> None:
    talk = Talk().opened()
    talk.client("conversation.item.create", item=text_item("one", id="a"))
    talk.client("conversation.item.create", item=text_item("three", id="c"))
    talk.client("conversation.item.create", item=text_item("two", id="b"), previous_item_id="a")
    talk.client("conversation.item.create", item=text_item("zero", id="z"), previous_item_id="root")
    added = [event for event in talk.events if event["type"] == "conversation.item.added"]
    assert [(event["item"]["id"], event["previous_item_id"]) for event in added] == [
        ("a", None),
        ("c", "a"),
        ("b", "a"),
        ("z", None),
    ]
    talk.client("conversation.item.create", item=text_item("x"), previous_item_id="nowhere")
    assert talk.error()["param"] == "previous_item_id"
    talk.client("conversation.item.create", item=text_item("x", id="a"))
    assert talk.error()["param"] == "item.id"


def test_assistant_audio_cannot_be_created() -> None:
    talk = Talk().opened()
    content = [{"type": "output_audio", "transcript": "x"}]
    item = {"type": "message", "role": "assistant", "content": content}
    talk.client("conversation.item.create", item=item)
    assert talk.error()["param"] == "item.content[0].type"


def test_an_item_can_be_retrieved_until_it_is_deleted() -> None:
    talk = Talk().opened()
    talk.client("conversation.item.create", item=text_item("one", id="a"))
    talk.client("conversation.item.retrieve", item_id="a")
    assert talk.events[-1]["item"]["content"][0]["text"] == "one"
    talk.client("conversation.item.delete", item_id="a")
    assert talk.events[-1]["type"] == "conversation.item.deleted"
    talk.client("conversation.item.retrieve", item_id="a")
    assert talk.error()["code"] == "item_retrieve_invalid_item_id"


def test_retrieved_audio_can_be_asked_for_to_try_large_events() -> None:
    talk = Talk(retrieve_audio=True).opened()
    talk.speech_starts()
    talk.speech_stops()
    item_id = talk.events[0]["item_id"]
    talk.client("conversation.item.retrieve", item_id=item_id)
    audio = talk.events[-1]["item"]["content"][0]["audio"]
    assert len(base64.b64decode(audio)) == 48 * 2900


def test_a_reply_can_be_truncated_but_not_beyond_its_end() -> None:
    talk = Talk().opened()
    talk.client("response.create")
    done = talk.pass_until("response.done")
    item_id = done["response"]["output"][0]["id"]
    fields: Json = {"item_id": item_id, "content_index": 0}
    talk.client("conversation.item.truncate", audio_end_ms=10**6, **fields)
    assert talk.error()["param"] == "audio_end_ms"
    talk.client("conversation.item.truncate", audio_end_ms=500, **fields)
    assert talk.events[-1]["type"] == "conversation.item.truncated"
    assert talk.events[-1]["audio_end_ms"] == 500


def test_turns_by_hand_are_committed_by_the_client() -> None:
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": None}}}).opened()
    talk.take(talk.conversation.heard(talk.now, 1500))
    talk.client("input_audio_buffer.commit")
    assert talk.types() == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    talk.take(talk.conversation.heard(talk.now, 2500))
    talk.client("input_audio_buffer.clear")
    assert talk.events[-1]["type"] == "input_audio_buffer.cleared"
    talk.client("input_audio_buffer.commit")
    assert talk.error()["code"] == "input_audio_buffer_commit_empty"
