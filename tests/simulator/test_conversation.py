"""The order of events: beginning, turns, interruptions, calls of functions, time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interview_peer.simulator.commands import Play, Stop
from interview_peer.simulator.library import scripts
from interview_peer.types import Json

from .talk import TRANSCRIBED, Talk

TRANSCRIPTION = "conversation.item.input_audio_transcription"
COMMITTED = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
GENERATED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
CLOSED = GENERATED[5:]
TOOLS = [{"type": "function", "name": "look_up"}]


def aside(kind: str) -> bool:
    """Events that may come anywhere."""
    return kind.startswith((TRANSCRIPTION, "output_audio_buffer.", "rate_limits."))


def main_order(talk: Talk) -> list[str]:
    """Types without those that may come anywhere, runs as one."""
    kinds: list[str] = []
    for kind in (event["type"] for event in talk.events):
        if not aside(kind) and (not kinds or kinds[-1] != kind or not kind.endswith(".delta")):
            kinds.append(kind)
    return kinds


def one_turn(talk: Talk) -> None:
    talk.speech_starts()
    talk.speech_stops()
    talk.pass_until("output_audio_buffer.stopped")
    talk.pass_time(5.0)


def playing(talk: Talk, *, generated: bool) -> Json:
    """Bring a talk to where a reply sounds; returns the event that its sound began."""
    talk.client("response.create")
    started = talk.pass_until("output_audio_buffer.started")
    if generated:
        talk.pass_until("response.done")
        talk.pass_time(0.1)
    else:
        talk.pass_time(0.3)
    talk.events.clear()
    return started


def test_the_session_is_told_whole_and_first() -> None:
    talk = Talk()
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    created = talk.events[0]
    assert created["type"] == "session.created"
    assert created["session"]["object"] == "realtime.session"
    assert created["session"]["id"].startswith("sess_")
    assert created["session"]["expires_at"] == 1_800_003_600
    assert created["session"]["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}
    talk.pass_time(1.0)
    assert talk.types() == ["session.created", "x_simulator.hint"]


@pytest.mark.parametrize("audio_first", [True, False])
def test_it_greets_once_channel_and_audio_are_there(audio_first: bool) -> None:
    talk = Talk(greet=True)
    steps: list[Callable[[], None]] = [
        lambda: talk.take(talk.conversation.opened(talk.now, 0.0)),
        lambda: talk.take(talk.conversation.heard(talk.now, 20)),
    ]
    for step in reversed(steps) if audio_first else steps:
        assert "response.created" not in talk.types()
        step()
        talk.pass_time(1.0)
    assert talk.types().count("response.created") == 1
    talk.pass_until("output_audio_buffer.stopped")
    assert talk.only("response.output_audio_transcript.done")["transcript"] == (
        scripts()[0].lines[0].text
    )


def test_it_does_not_greet_a_candidate_who_speaks_already() -> None:
    talk = Talk(greet=True)
    talk.take(talk.conversation.opened(talk.now, 0.0))
    talk.take(talk.conversation.heard(talk.now, 20))
    talk.speech_starts()
    talk.pass_time(5.0)
    assert "response.created" not in talk.types()


def test_a_turn_and_its_reply_come_in_the_service_s_order() -> None:
    talk = Talk().opened()
    one_turn(talk)
    assert main_order(talk) == COMMITTED + GENERATED
    kinds = [event["type"] for event in talk.events]
    deltas = [n for n, kind in enumerate(kinds) if kind == GENERATED[4]]
    started = kinds.index("output_audio_buffer.started")
    assert deltas[2] < started < deltas[5]
    assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")


def test_a_turn_s_events_belong_together() -> None:
    talk = Talk().opened()
    one_turn(talk)
    heard = talk.only("input_audio_buffer.speech_started")["item_id"]
    committed = talk.only("input_audio_buffer.committed")
    assert (committed["item_id"], committed["previous_item_id"]) == (heard, None)
    said = talk.only("response.output_item.added")["item"]["id"]
    added = [event for event in talk.events if event["type"] == "conversation.item.added"]
    assert [(event["item"]["id"], event["previous_item_id"]) for event in added] == [
        (heard, None),
        (said, heard),
    ]
    response = talk.only("response.done")["response"]
    assert response["status"] == "completed"
    assert [item["id"] for item in response["output"]] == [said]
    assert response["usage"]["total_tokens"] > 0
    text = "".join(event["delta"] for event in talk.events if event["type"] == GENERATED[4])
    assert text == response["output"][0]["content"][0]["transcript"] == scripts()[0].lines[0].text


def test_sound_lasts_as_long_as_the_line_and_generation_does_not() -> None:
    talk = Talk().opened()
    one_turn(talk)
    when = {event["type"]: at for event, at in zip(talk.events, talk.at, strict=True)}
    sound = when["output_audio_buffer.stopped"] - when["output_audio_buffer.started"]
    assert sound == pytest.approx(scripts()[0].lines[0].duration_ms / 1000)
    assert when["response.done"] - when["output_audio_buffer.started"] < sound / 2


def test_each_turn_gets_the_next_line() -> None:
    talk = Talk().opened()
    for _ in range(3):
        one_turn(talk)
    said = [
        event["transcript"]
        for event in talk.events
        if event["type"] == "response.output_audio_transcript.done"
    ]
    assert said == [line.text for line in scripts()[0].lines[:3]]


def test_the_transcription_says_that_it_is_simulated() -> None:
    talk = Talk().opened()
    one_turn(talk)
    done = talk.only(f"{TRANSCRIPTION}.completed")
    assert done["item_id"] == talk.only("input_audio_buffer.committed")["item_id"]
    assert done["transcript"] == "[simulated transcript: 2.4 seconds of candidate speech]"
    deltas = [event for event in talk.events if event["type"] == f"{TRANSCRIPTION}.delta"]
    assert "".join(event["delta"] for event in deltas) == done["transcript"]
    assert all(event["obfuscation"] for event in deltas)


def test_the_transcription_comes_before_the_reply_is_done_or_after_it() -> None:
    after = set()
    for seed in range(20):
        talk = Talk(seed=seed).opened()
        one_turn(talk)
        kinds = talk.types()
        place = kinds.index(f"{TRANSCRIPTION}.completed")
        assert place > kinds.index("conversation.item.done")
        after.add(place > kinds.index("response.done"))
    assert after == {True, False}


def test_the_same_seed_gives_the_same_talk() -> None:
    talks = [Talk(seed=seed).opened() for seed in (3, 3, 4)]
    for talk in talks:
        one_turn(talk)
    assert talks[0].events == talks[1].events
    assert talks[0].at != talks[2].at


def test_no_transcription_unless_the_session_asks_for_it() -> None:
    talk = Talk({"type": "realtime"}).opened()
    one_turn(talk)
    assert not any(kind.startswith(TRANSCRIPTION) for kind in talk.types())


def test_a_transcription_may_fail() -> None:
    talk = Talk(transcription_failure_share=1.0).opened()
    one_turn(talk)
    assert talk.only(f"{TRANSCRIPTION}.failed")["error"]["code"] == "audio_unintelligible"
    assert f"{TRANSCRIPTION}.completed" not in talk.types()


def test_without_create_response_a_turn_is_only_committed() -> None:
    detection = {"type": "server_vad", "create_response": False}
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": detection}}}).opened()
    talk.speech_starts()
    talk.speech_stops()
    talk.pass_time(10.0)
    assert talk.types() == COMMITTED


def test_without_turn_detection_speech_says_nothing() -> None:
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": None}}}).opened()
    talk.speech_starts()
    talk.speech_stops()
    assert talk.events == []


def test_items_have_no_object_and_events_all_have_an_id() -> None:
    talk = Talk().opened()
    one_turn(talk)
    assert all(event["event_id"] for event in talk.events)
    items = [event["item"] for event in talk.events if "item" in event]
    assert items
    assert not any("object" in item for item in items)
    assert not any(event["type"] == "response.output_audio.delta" for event in talk.events)


def test_the_limits_come_after_the_response_and_sometimes_not_at_all() -> None:
    counts = []
    for seed in range(40):
        talk = Talk(seed=seed).opened()
        one_turn(talk)
        kinds = talk.types()
        counts.append(kinds.count("rate_limits.updated"))
        if counts[-1]:
            assert kinds.index("rate_limits.updated") > kinds.index("response.done")
    assert set(counts) == {0, 1}


def test_speech_over_a_generated_reply_cuts_its_sound() -> None:
    talk = Talk().opened()
    started = playing(talk, generated=True)
    talk.speech_starts()
    assert talk.types() == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    assert talk.events[1]["response_id"] == started["response_id"]
    line = scripts()[0].lines[0]
    assert 0 < talk.events[2]["audio_end_ms"] < line.duration_ms
    assert Stop() in talk.commands
    talk.pass_time(10.0)
    assert "output_audio_buffer.stopped" not in talk.types()


def test_what_was_cut_off_has_no_words_afterwards() -> None:
    talk = Talk(retrieve_audio=False).opened()
    playing(talk, generated=True)
    talk.speech_starts()
    talk.client("conversation.item.retrieve", item_id=talk.events[2]["item_id"])
    assert talk.events[-1]["item"]["content"] == [{"type": "output_audio"}]


def test_speech_over_a_reply_under_way_cancels_it() -> None:
    places = set()
    for seed in range(30):
        talk = Talk(seed=seed, retrieve_audio=False).opened()
        started = playing(talk, generated=False)
        talk.speech_starts()
        kinds = [event["type"] for event in talk.events]
        assert kinds[0] == "input_audio_buffer.speech_started"
        place = kinds.index("output_audio_buffer.cleared")
        assert kinds[place + 1] == "conversation.item.truncated"
        assert kinds[1:place] + kinds[place + 2 :] == CLOSED
        places.add(place)
        response = talk.only("response.done")["response"]
        assert response["id"] == started["response_id"]
        assert response["status"] == "cancelled"
        assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert response["output"][0]["status"] == "incomplete"
        said = talk.only("response.output_audio_transcript.done")["transcript"]
        assert scripts()[0].lines[0].text.startswith(said)
        assert 0 < len(said) < len(scripts()[0].lines[0].text)
        talk.client("conversation.item.retrieve", item_id=response["output"][0]["id"])
        assert talk.events[-1]["item"]["content"] == [{"type": "output_audio"}]
    assert len(places) > 3


def test_speech_before_a_reply_has_an_item_cancels_it_without_one() -> None:
    talk = Talk().opened()
    talk.client("response.create")
    talk.events.clear()
    talk.speech_starts()
    assert talk.types() == ["input_audio_buffer.speech_started", "response.done"]
    assert talk.events[1]["response"]["output"] == []


def test_without_interrupt_response_speech_cuts_nothing() -> None:
    detection = {"type": "server_vad", "interrupt_response": False}
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": detection}}}).opened()
    playing(talk, generated=False)
    talk.speech_starts()
    talk.speech_stops()
    assert talk.types() == COMMITTED
    talk.pass_until("output_audio_buffer.stopped")


def test_after_an_interruption_the_next_question_is_asked() -> None:
    talk = Talk().opened()
    playing(talk, generated=True)
    talk.speech_starts()
    talk.speech_stops()
    talk.pass_until("output_audio_buffer.stopped")
    said = talk.only("response.output_audio_transcript.done")["transcript"]
    assert said == scripts()[0].lines[1].text


def test_a_client_s_cancel_and_clear_stop_a_reply_under_way() -> None:
    talk = Talk().opened()
    playing(talk, generated=False)
    talk.client("response.cancel")
    talk.client("output_audio_buffer.clear")
    assert talk.types() == [
        *CLOSED,
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    details = talk.only("response.done")["response"]["status_details"]
    assert details["reason"] == "client_cancelled"


def test_a_cancel_alone_lets_what_was_generated_sound_to_its_end() -> None:
    talk = Talk().opened()
    playing(talk, generated=False)
    at = talk.now
    talk.client("response.cancel")
    talk.pass_until("output_audio_buffer.stopped")
    assert 0 < talk.now - at < scripts()[0].lines[0].duration_ms / 1000 - 1


def test_a_bare_clear_cuts_the_sound_of_a_generated_reply() -> None:
    talk = Talk().opened()
    playing(talk, generated=True)
    talk.client("output_audio_buffer.clear")
    assert talk.types() == ["output_audio_buffer.cleared", "conversation.item.truncated"]


def test_a_clear_with_nothing_playing_is_not_answered() -> None:
    talk = Talk().opened()
    talk.client("output_audio_buffer.clear")
    assert talk.events == []


def test_a_second_reply_sounds_after_the_first() -> None:
    talk = Talk().opened()
    playing(talk, generated=True)
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.stopped")
    talk.pass_until("output_audio_buffer.stopped")
    sound = [
        (event["type"].rpartition(".")[2], event["response_id"])
        for event in talk.events
        if event["type"].startswith("output_audio_buffer.")
    ]
    first, second = sound[0][1], sound[1][1]
    assert first != second
    assert sound == [("stopped", first), ("started", second), ("stopped", second)]
    plays = [command for command in talk.commands if isinstance(command, Play)]
    assert [play.response_id for play in plays] == [first, second]


def test_speech_drops_a_reply_that_waits_for_its_turn_to_sound() -> None:
    talk = Talk().opened()
    playing(talk, generated=True)
    talk.client("response.create")
    waiting = talk.pass_until("response.done")["response"]["output"][0]["id"]
    talk.events.clear()
    talk.speech_starts()
    cut = [event for event in talk.events if event["type"] == "conversation.item.truncated"]
    assert [event["item_id"] for event in cut][1:] == [waiting]
    assert cut[1]["audio_end_ms"] == 0 < cut[0]["audio_end_ms"]
    talk.pass_time(20.0)
    assert "output_audio_buffer.started" not in talk.types()


def test_a_text_reply_has_no_sound() -> None:
    talk = Talk().opened()
    talk.client("response.create", response={"output_modalities": ["text"]})
    talk.pass_until("response.done")
    assert main_order(talk) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert not any(isinstance(command, Play) for command in talk.commands)


def test_a_function_call_comes_in_the_service_s_order() -> None:
    talk = Talk().opened()
    talk.client("response.create", response={"tools": TOOLS, "tool_choice": "required"})
    done = talk.pass_until("response.done")
    assert main_order(talk) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert talk.only("response.output_item.added")["item"]["arguments"] == ""
    (call,) = done["response"]["output"]
    assert (call["name"], call["arguments"], call["status"]) == ("look_up", "{}", "completed")
    talk.events.clear()
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    talk.client("conversation.item.create", item=output)
    assert talk.types() == ["conversation.item.added", "conversation.item.done"]
    assert talk.events[0]["previous_item_id"] == call["id"]


def test_a_response_outside_the_conversation_may_run_beside_another() -> None:
    talk = Talk().opened()
    talk.client("response.create")
    outside = {"conversation": "none", "output_modalities": ["text"], "metadata": {"a": "b"}}
    talk.client("response.create", response=outside)
    assert talk.types() == ["response.created"]
    inside, beside = (event["response"] for event in talk.events)
    assert (beside["conversation_id"], beside["metadata"]) == (None, {"a": "b"})
    talk.pass_time(10.0)
    items = [event for event in talk.events if event["type"] == "conversation.item.added"]
    assert len(items) == 1
    finished = {e["response"]["id"] for e in talk.events if e["type"] == "response.done"}
    assert finished == {inside["id"], beside["id"]}


def test_a_silent_candidate_is_asked_again_after_the_idle_timeout() -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": detection}}}).opened()
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.stopped")
    at = talk.now
    talk.events.clear()
    talk.pass_until("input_audio_buffer.timeout_triggered")
    assert talk.now - at == pytest.approx(5.0, abs=0.05)
    assert talk.types() == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]


def test_speech_stops_the_idle_timeout() -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    talk = Talk({"type": "realtime", "audio": {"input": {"turn_detection": detection}}}).opened()
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.stopped")
    talk.pass_time(4.0)
    talk.speech_starts()
    talk.pass_time(4.0)
    assert "input_audio_buffer.timeout_triggered" not in talk.types()


def test_a_session_ends_at_its_hour() -> None:
    talk = Talk(session_seconds=60.0).opened()
    talk.pass_time(59.0)
    assert not talk.hung_up
    talk.pass_time(1.0)
    assert talk.error()["code"] == "session_expired"
    assert talk.hung_up


def test_a_planted_fault_follows_the_session() -> None:
    talk = Talk(TRANSCRIBED, planted_error="the key is K")
    talk.take(talk.conversation.opened(talk.now, 0.0))
    assert [event["type"] for event in talk.events] == ["session.created", "error"]
    assert talk.error()["message"] == "the key is K"
