"""The conversation's knobs and faults, one by one, on a clock of the test's own."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from interview_peer.simulator.commands import Limit
from interview_peer.simulator.library import scripts
from interview_peer.types import Json

from .items import ITEMS
from .talk import TRANSCRIBED, Talk
from .test_conversation import (
    CLOSED,
    COMMITTED,
    GENERATED,
    TRANSCRIPTION,
    main_order,
    one_turn,
    playing,
)

END: Json = {"type": "function", "name": "end_interview", "parameters": {"type": "object"}}


def beginning(**settings: Any) -> Talk:
    """A talk whose channel has just opened."""
    talk = Talk(**settings)
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    return talk


def completed(talk: Talk) -> list[str]:
    """Items whose transcription was told, in that order."""
    return [
        event["item_id"] for event in talk.events if event["type"] == f"{TRANSCRIPTION}.completed"
    ]


def committed(talk: Talk) -> list[str]:
    return [
        event["item_id"] for event in talk.events if event["type"] == "input_audio_buffer.committed"
    ]


# The session


def test_a_session_may_end_without_a_word() -> None:
    talk = beginning(session_seconds=60.0, expiry="silent", unknown_events=False)
    talk.pass_time(60.0)
    assert talk.types() == ["session.created"]
    assert talk.hung_up


@pytest.mark.parametrize(("silently", "errors"), [(True, 0), (False, 1)])
def test_a_session_can_be_ended_before_its_time(silently: bool, errors: int) -> None:
    talk = Talk().opened()
    talk.take(talk.conversation.expire(silently=silently))
    assert talk.types().count("error") == errors
    assert talk.hung_up


def test_a_late_session_answers_what_came_before_it_in_order() -> None:
    talk = beginning(session_delay=2.0, unknown_events=False)
    talk.client("session.update", session={"type": "realtime", "instructions": "early"})
    talk.raw("not json")
    talk.take(talk.conversation.heard(talk.now, 20))
    talk.speech_starts()
    talk.speech_stops()
    talk.pass_time(1.9)
    assert talk.events == []
    talk.pass_time(0.2)
    assert talk.types() == ["session.created", "session.updated", "error"]
    assert talk.events[0]["session"]["instructions"] != "early"
    assert talk.events[1]["session"]["instructions"] == "early"
    assert talk.events[0]["session"]["expires_at"] == 1_800_003_602


def test_of_early_events_so_many_are_kept_and_no_more() -> None:
    talk = beginning(session_delay=2.0, unknown_events=False)
    for _ in range(150):
        talk.client("input_audio_buffer.clear")
    talk.pass_time(3.0)
    kinds = [event["type"] for event in talk.events]
    assert kinds.count("input_audio_buffer.cleared") == 100


def test_instructions_are_padded_in_what_is_told_and_nowhere_else() -> None:
    talk = beginning(instructions_padding=200 * 1024)
    talk.client("session.update", session={"type": "realtime", "instructions": "short"})
    updated = talk.events[-1]["session"]["instructions"]
    assert (len(updated), updated[:6]) == (5 + 200 * 1024, "shortx")
    assert len(talk.events[0]["session"]["instructions"]) > 200 * 1024


def test_the_invented_event_can_be_left_out() -> None:
    for wanted in (True, False):
        talk = beginning(unknown_events=wanted)
        talk.pass_time(1.0)
        assert ("x_simulator.hint" in talk.types()) is wanted


def test_malformed_and_binary_messages_follow_the_session() -> None:
    talk = beginning(malformed_events=True, binary_events=True)
    assert talk.types() == ["session.created"]
    texts = [message for message in talk.raw_messages if isinstance(message, str)]
    frames = [message for message in talk.raw_messages if isinstance(message, bytes)]
    assert len(texts) == 4 and len(frames) == 2
    readable = 0
    for text in texts:
        try:
            readable += "type" in dict(json.loads(text))
        except (ValueError, TypeError):
            continue
    assert readable == 0
    assert json.loads(frames[1])["type"]


@pytest.mark.parametrize("message", [b"\x00", b'{"type":"response.create"}', "{", "", "nope"])
def test_a_strict_channel_ends_the_call_over_what_is_no_json_text(message: str | bytes) -> None:
    talk = Talk(strict_channel=True).opened()
    talk.raw(message)
    assert talk.hung_up
    assert talk.events == []


@pytest.mark.parametrize("message", ["[]", "{}", '{"type":"x"}', '{"type":"response.cancel"}'])
def test_a_strict_channel_only_names_other_mistakes(message: str) -> None:
    talk = Talk(strict_channel=True).opened()
    talk.raw(message)
    assert talk.types() == ["error"]
    assert not talk.hung_up


# Transcriptions


def test_a_transcription_comes_when_it_is_set_to() -> None:
    talk = Talk(transcription_delay=7.0).opened()
    talk.speech_starts()
    talk.speech_stops()
    at = talk.now
    talk.pass_until(f"{TRANSCRIPTION}.delta")
    assert talk.now - at == pytest.approx(7.0, abs=0.02)


@pytest.mark.parametrize(("share", "is_late"), [(0.0, False), (1.0, True)])
def test_transcriptions_come_before_or_after_the_reply(share: float, is_late: bool) -> None:
    for seed in range(5):
        talk = Talk(seed=seed, transcription_late_share=share, generation_speed=8.0).opened()
        one_turn(talk)
        kinds = talk.types()
        after = kinds.index(f"{TRANSCRIPTION}.completed") > kinds.index("response.done")
        assert after is is_late


def test_a_transcription_may_never_come() -> None:
    talk = Talk(transcription_missing_share=1.0).opened()
    one_turn(talk)
    talk.pass_time(60.0)
    assert not any(kind.startswith(TRANSCRIPTION) for kind in talk.types())


def test_transcriptions_may_come_in_another_order_than_the_turns() -> None:
    talk = Talk(transcription_swap_share=1.0, transcription_delay=0.5, generation_speed=100.0)
    talk.opened()
    for _ in range(2):
        talk.speech_starts()
        talk.speech_stops()
        # Sooner than what is held back would come by itself.
        talk.pass_time(4.0)
    first, second = committed(talk)
    assert completed(talk) == [second, first]


def test_a_transcription_held_back_comes_in_the_end_without_another_turn() -> None:
    talk = Talk(transcription_swap_share=1.0).opened()
    one_turn(talk)
    talk.pass_time(12.0)
    assert completed(talk) == committed(talk)


# Replies


def test_a_reply_may_fail_with_its_error_and_sound_to_where_it_came() -> None:
    for seed in range(10):
        talk = Talk(seed=seed, reply_failure_share=1.0, reply_failure_code="insufficient_quota")
        talk.opened()
        talk.client("response.create")
        response = talk.pass_until("response.done")["response"]
        assert response["status"] == "failed"
        assert response["status_details"]["error"]["code"] == "insufficient_quota"
        assert response["output"][0]["status"] == "incomplete"
        sounded = "output_audio_buffer.started" in talk.types()
        assert any(isinstance(command, Limit) for command in talk.commands) is sounded
        talk.pass_time(20.0)
        assert ("output_audio_buffer.stopped" in talk.types()) is sounded
        talk.client("response.create")
        assert talk.events[-1]["type"] == "response.created"


def test_a_reply_may_stay_incomplete() -> None:
    talk = Talk(reply_incomplete_share=1.0).opened()
    talk.client("response.create")
    response = talk.pass_until("response.done")["response"]
    assert (response["status"], response["status_details"]["reason"]) == (
        "incomplete",
        "max_output_tokens",
    )


@pytest.mark.parametrize(
    ("barge_in", "places"),
    [("before", {1}), ("after", {len(CLOSED) + 1}), ("between", set(range(2, len(CLOSED) + 1)))],
)
def test_the_place_of_the_cut_among_the_closing_events_can_be_chosen(
    barge_in: str, places: set[int]
) -> None:
    seen = set()
    for seed in range(60):
        talk = Talk(seed=seed, barge_in=barge_in).opened()
        playing(talk, generated=False)
        talk.speech_starts()
        kinds = [event["type"] for event in talk.events]
        seen.add(kinds.index("output_audio_buffer.cleared"))
    assert seen == places


@pytest.mark.parametrize(("speed", "status"), [(1.0, "cancelled"), (100.0, "completed")])
def test_the_speed_of_generation_chooses_what_a_barge_in_meets(speed: float, status: str) -> None:
    talk = Talk(generation_speed=speed).opened()
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.started")
    talk.pass_time(1.0)
    talk.speech_starts()
    assert talk.only("response.done")["response"]["status"] == status
    assert "conversation.item.truncated" in talk.types()


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 1)])
def test_the_limits_can_be_left_out(share: float, count: int) -> None:
    for seed in range(5):
        talk = Talk(seed=seed, rate_limits_share=share).opened()
        one_turn(talk)
        assert talk.types().count("rate_limits.updated") == count


@pytest.mark.parametrize("number", [1, 2])
def test_the_network_is_lost_in_the_middle_of_the_reply(number: int) -> None:
    talk = Talk(drop_in_reply=number).opened()
    for _ in range(number - 1):
        one_turn(talk)
    talk.speech_starts()
    talk.speech_stops()
    talk.pass_until("output_audio_buffer.started")
    assert not talk.dropped
    half = scripts()[0].lines[number - 1].duration_ms / 2000
    talk.pass_time(half - 0.1)
    assert not talk.dropped
    talk.pass_time(0.2)
    assert talk.dropped


def test_a_reply_that_was_cut_off_loses_no_network() -> None:
    talk = Talk(drop_in_reply=1).opened()
    playing(talk, generated=True)
    talk.speech_starts()
    talk.pass_time(20.0)
    assert not talk.dropped


# Items and tools


def test_retrieved_audio_has_at_least_the_length_that_is_set() -> None:
    talk = Talk(retrieved_audio_ms=30_000).opened()
    talk.speech_starts()
    talk.speech_stops()
    talk.client("conversation.item.retrieve", item_id=committed(talk)[0])
    event = talk.events[-1]
    assert len(base64.b64decode(event["item"]["content"][0]["audio"])) == 48 * 30_000
    assert len(json.dumps(event)) > 1_900_000


def with_end(**settings: Any) -> Talk:
    return Talk(TRANSCRIBED | {"tools": [END]}, **settings).opened()


def kinds_of_replies(talk: Talk) -> list[str]:
    return [
        event["item"]["type"]
        for event in talk.events
        if event["type"] == "response.output_item.done"
    ]


def arguments_told(talk: Talk) -> str:
    return "".join(
        event["delta"]
        for event in talk.events
        if event["type"] == "response.function_call_arguments.delta"
    )


def test_the_model_says_the_closing_and_ends_the_interview_in_the_same_reply() -> None:
    talk = with_end(tool_arguments='{"why": "finished"}', rate_limits_share=0.0)
    lines = len(scripts()[0].lines)
    for _ in range(lines - 1):
        one_turn(talk)
    assert set(kinds_of_replies(talk)) == {"message"}
    talk.events.clear()
    one_turn(talk)
    assert main_order(talk) == [
        *COMMITTED,
        *GENERATED[:-1],
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    said, called = talk.only("response.done")["response"]["output"]
    assert said["content"][0]["transcript"] == scripts()[0].lines[-1].text
    assert (called["name"], called["status"]) == ("end_interview", "completed")
    assert json.loads(called["arguments"]) == {"why": "finished"}
    assert arguments_told(talk) == called["arguments"]
    done = talk.only("response.function_call_arguments.done")
    assert (done["output_index"], done["item_id"]) == (1, called["id"])
    added = [event for event in talk.events if event["type"] == "conversation.item.added"]
    assert added[-1]["previous_item_id"] == said["id"]


def test_a_barge_in_over_a_call_under_way_leaves_it_incomplete() -> None:
    talk = with_end(tool_after=1, tool_arguments=json.dumps({"why": "x" * 400}))
    talk.client("response.create")
    talk.pass_until("response.function_call_arguments.delta")
    talk.speech_starts()
    response = talk.only("response.done")["response"]
    assert (response["status"], [item["status"] for item in response["output"]]) == (
        "cancelled",
        ["completed", "incomplete"],
    )
    assert "conversation.item.truncated" in talk.types()


@pytest.mark.parametrize(
    ("after", "speaks", "kinds"),
    [
        (0, True, ["function_call", "message", "message"]),
        (0, False, ["function_call", "message", "message"]),
        (1, True, ["message", "function_call", "message", "message"]),
        (1, False, ["message", "function_call", "message"]),
        (2, True, ["message", "message", "function_call", "message"]),
    ],
)
def test_the_model_calls_its_tool_once_and_when_it_is_set_to(
    after: int, speaks: bool, kinds: list[str]
) -> None:
    talk = with_end(tool_after=after, tool_speaks=speaks)
    for _ in range(3):
        talk.client("response.create")
        talk.pass_until("response.done")
        talk.pass_time(15.0)
    assert kinds_of_replies(talk) == kinds


@pytest.mark.parametrize(
    "session",
    [
        {"tools": []},
        {"tools": [END | {"name": "other"}]},
        {"tools": [END], "tool_choice": "none"},
    ],
    ids=["no tools", "another tool", "tools switched off"],
)
def test_the_model_calls_no_tool_that_the_session_does_not_offer(session: Json) -> None:
    talk = Talk(TRANSCRIBED | session, tool_after=0).opened()
    talk.client("response.create")
    talk.pass_until("response.done")
    assert kinds_of_replies(talk) == ["message"]


@pytest.mark.parametrize("item", ITEMS, ids=str)
def test_items_of_every_type_can_be_created(item: Json) -> None:
    talk = Talk().opened()
    talk.client("conversation.item.create", item={"type": "message"} | item)
    assert talk.types() == ["conversation.item.added", "conversation.item.done"]
    told = talk.events[0]["item"]
    assert told["id"].startswith("item_")
    assert told | item == told


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"role": "user"}, "missing_required_parameter", "item.content"),
        ({"content": []}, "missing_required_parameter", "item.role"),
        ({"role": "tool", "content": []}, "invalid_value", "item.role"),
        ({"role": "user", "content": "x"}, "invalid_type", "item.content"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            "invalid_value",
            "item.content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "x", "y": 1}]},
            "unknown_parameter",
            "item.content[0].y",
        ),
        ({"role": "user", "content": [], "name": "x"}, "unknown_parameter", "item.name"),
        ({"type": "function_call_output", "output": "x"}, "missing_required_parameter", None),
        ({"type": "function_call", "name": "f", "arguments": {}}, "invalid_type", "item.arguments"),
        ({"type": "mcp_approval_response", "approve": "yes"}, "missing_required_parameter", None),
    ],
    ids=str,
)
def test_a_mistake_in_an_item_is_named(item: Json, code: str, param: str | None) -> None:
    talk = Talk().opened()
    talk.client("conversation.item.create", item={"type": "message"} | item, event_id="mine")
    error = talk.error()
    assert (error["code"], error["event_id"]) == (code, "mine")
    assert param is None or error["param"] == param
