"""Everything the simulator sends is what the official package says that the service sends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interview_peer.core.realtime import UnknownModelEvent, model_event
from interview_peer.types import Json
from tests.support.official import server_problems, server_types

from .items import ITEMS
from .talk import TRANSCRIBED, Talk
from .test_conversation import one_turn

PLANTED = "x_simulator.hint"
"""An invented event, so that clients learn to live with those they do not know."""

TOOL: Json = {"type": "function", "name": "lookup", "description": "x", "parameters": {}}

SHORT: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def session(**fields: object) -> Json:
    return {**TRANSCRIBED, **fields}


def detection(**fields: object) -> Json:
    vad = {"type": "server_vad", **fields}
    heard = {"transcription": {"model": "gpt-transcribe"}, "turn_detection": vad}
    return session(audio={"input": heard})


def talk_of_turns(seed: int) -> Talk:
    talk = Talk(seed=seed, transcription_failure_share=0.4, greet=seed % 2 == 0)
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    talk.take(talk.conversation.heard(talk.now, 20))
    for _ in range(4):
        one_turn(talk)
    return talk


def sounding(talk: Talk, *, generated: bool) -> None:
    """Bring a talk to where a reply sounds."""
    talk.client("response.create")
    talk.pass_until("output_audio_buffer.started")
    if generated:
        talk.pass_until("response.done")
    talk.pass_time(0.3)


def interrupted(generated: bool) -> Callable[[int], Talk]:
    def make(seed: int) -> Talk:
        talk = Talk(seed=seed).opened()
        sounding(talk, generated=generated)
        talk.speech_starts()
        talk.pass_time(0.5)
        talk.speech_stops()
        talk.pass_time(12.0)
        return talk

    return make


def stopped_by_the_client(seed: int) -> Talk:
    talk = Talk(seed=seed).opened()
    sounding(talk, generated=seed % 2 == 0)
    talk.client("response.cancel", event_id="mine")
    talk.client("output_audio_buffer.clear")
    talk.pass_time(3.0)
    return talk


def written(seed: int) -> Talk:
    talk = Talk(seed=seed).opened()
    talk.client("response.create", response={"output_modalities": ["text"]})
    talk.pass_time(8.0)
    return talk


def tool_called(seed: int) -> Talk:
    talk = Talk(session(tools=[TOOL], tool_choice="required"), seed).opened()
    talk.client("response.create")
    talk.pass_time(8.0)
    call = talk.only("response.function_call_arguments.done")["call_id"]
    output = {"type": "function_call_output", "call_id": call, "output": "{}"}
    talk.client("conversation.item.create", item=output)
    talk.pass_time(1.0)
    return talk


def outside(seed: int) -> Talk:
    talk = Talk(seed=seed).opened()
    asked = {"conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "score"}}
    talk.client("response.create", response=asked)
    talk.pass_time(8.0)
    return talk


def edited(seed: int) -> Talk:
    talk = Talk(seed=seed, retrieve_audio=True).opened()
    one_turn(talk)
    said = talk.only("response.output_item.added")["item"]["id"]
    heard = talk.only("input_audio_buffer.committed")["item_id"]
    for item_id in (said, heard):
        talk.client("conversation.item.retrieve", item_id=item_id)
    talk.client("conversation.item.truncate", item_id=said, content_index=0, audio_end_ms=300)
    talk.client("conversation.item.retrieve", item_id=said)
    talk.client("conversation.item.create", item={"id": "own", **SHORT}, previous_item_id="root")
    talk.client("conversation.item.delete", item_id="own")
    talk.client("session.update", session={"type": "realtime", "instructions": "Be brief."})
    talk.pass_time(1.0)
    return talk


def by_hand(seed: int) -> Talk:
    talk = Talk(session(audio={"input": {"turn_detection": None}}), seed).opened()
    talk.take(talk.conversation.heard(talk.now, 1_500))
    talk.client("input_audio_buffer.commit")
    talk.client("input_audio_buffer.clear")
    talk.pass_time(3.0)
    return talk


def idle(seed: int) -> Talk:
    talk = Talk(detection(idle_timeout_ms=5_000), seed).opened()
    one_turn(talk)
    talk.pass_time(20.0)
    return talk


def mistaken(seed: int) -> Talk:
    talk = Talk(seed=seed, planted_error="Something failed.", session_seconds=30.0)
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    for message in ("{", "[]", "{}", b"\x00", '{"type": "nonsense"}'):
        talk.raw(message)
    talk.client("response.cancel", event_id="mine")
    talk.client("response.create", voice="ash")
    talk.client("session.update", event_id="mine", session={"type": "realtime", "voice": "ash"})
    talk.client("conversation.item.retrieve", item_id="nobody")
    talk.client("conversation.item.delete", item_id="nobody")
    talk.client("conversation.item.truncate", item_id="x", content_index=0, audio_end_ms=1)
    talk.client("input_audio_buffer.commit")
    talk.client("input_audio_buffer.append", audio="AAAA")
    talk.pass_time(60.0)
    return talk


def failing(seed: int) -> Talk:
    talk = Talk(seed=seed, reply_failure_share=0.5, reply_incomplete_share=0.5).opened()
    for _ in range(4):
        one_turn(talk)
    return talk


def transcribed_anyhow(seed: int) -> Talk:
    talk = Talk(
        seed=seed,
        transcription_swap_share=0.5,
        transcription_missing_share=0.2,
        transcription_failure_share=0.3,
        transcription_delay=0.0 if seed % 2 else None,
        rate_limits_share=1.0,
    ).opened()
    for _ in range(5):
        one_turn(talk)
    return talk


def ended_by_the_tool(speaks: bool) -> Callable[[int], Talk]:
    def make(seed: int) -> Talk:
        end = TOOL | {"name": "end_interview"}
        settings = {"tool_after": 1, "tool_speaks": speaks, "tool_arguments": '{"why": "finished"}'}
        talk = Talk(session(tools=[end]), seed, **settings).opened()
        if not speaks:
            talk.client("response.create")
            talk.pass_time(8.0)
        talk.client("response.create")
        if seed % 2:
            talk.pass_until("response.function_call_arguments.delta")
            talk.speech_starts()
            talk.speech_stops()
        talk.pass_time(10.0)
        return talk

    return make


def cut(barge_in: str) -> Callable[[int], Talk]:
    def make(seed: int) -> Talk:
        talk = Talk(seed=seed, barge_in=barge_in, generation_speed=1.0).opened()
        sounding(talk, generated=False)
        talk.speech_starts()
        talk.speech_stops()
        talk.pass_time(8.0)
        return talk

    return make


def large(seed: int) -> Talk:
    talk = Talk(seed=seed, instructions_padding=200 * 1024, retrieved_audio_ms=30_000).opened()
    one_turn(talk)
    talk.client("session.update", session={"type": "realtime"})
    heard = talk.only("input_audio_buffer.committed")["item_id"]
    talk.client("conversation.item.retrieve", item_id=heard)
    return talk


def odd_beginning(seed: int) -> Talk:
    talk = Talk(
        seed=seed,
        session_delay=1.0,
        malformed_events=True,
        binary_events=True,
        session_seconds=20.0,
        expiry="event" if seed % 2 else "silent",
    )
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    talk.client("session.update", session={"type": "realtime", "tracing": "auto"})
    talk.client("session.update", session={"type": "realtime", "tracing": None})
    talk.pass_time(2.0)
    talk.take(talk.conversation.fault("server_error", "Something failed."))
    talk.pass_time(30.0)
    return talk


def every_item(seed: int) -> Talk:
    talk = Talk(seed=seed).opened()
    for item in ITEMS:
        talk.client("conversation.item.create", item={"type": "message"} | item)
        talk.client("conversation.item.retrieve", item_id=talk.events[-1]["item"]["id"])
    return talk


def every_setting(seed: int) -> Talk:
    """Sessions with all there is in them, and the other kinds of what comes in several."""
    full = {
        "model": "gpt-realtime-1.5" if seed % 2 else "gpt-realtime-2.1-mini",
        "instructions": "x",
        "output_modalities": ["text"] if seed % 2 else ["audio"],
        "tools": [TOOL, {"type": "mcp", "server_label": "s", "server_url": "https://mcp.example"}],
        "tool_choice": {"type": "function", "name": "lookup"},
        "max_output_tokens": 100,
        "tracing": {"workflow_name": "w", "group_id": "g"} if seed % 2 else "auto",
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
        "include": ["item.input_audio_transcription.logprobs"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-transcribe", "language": "en", "keywords": ["x"]},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            },
            "output": {"voice": {"id": "voice_1"} if seed > 1 else "marin", "speed": 1.2},
        },
    }
    talk = Talk({"type": "realtime", **full}, seed)
    talk.take(talk.conversation.opened(talk.now, 1_800_000_000.0))
    talk.client("session.update", session={"type": "realtime"})
    talk.client("response.create")
    talk.pass_time(8.0)
    return talk


TALKS = [
    talk_of_turns,
    interrupted(generated=True),
    interrupted(generated=False),
    stopped_by_the_client,
    written,
    tool_called,
    outside,
    edited,
    by_hand,
    idle,
    mistaken,
    failing,
    transcribed_anyhow,
    ended_by_the_tool(speaks=True),
    ended_by_the_tool(speaks=False),
    cut("before"),
    cut("between"),
    cut("after"),
    large,
    odd_beginning,
]
"""Talks whose events are read in other tests, too."""

WHOLE: list[Callable[[int], Talk]] = [every_item, every_setting]
"""What there is beyond what a client of the beta can be told of."""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [*TALKS, *WHOLE], ids=lambda make: make.__name__)
def test_what_is_sent_fits_the_official_types_and_nothing_is_left_over(
    make: Callable[[int], Talk], seed: int
) -> None:
    events = make(seed).events
    assert len(events) > 2
    found = [
        problem
        for event in events
        if event["type"] != PLANTED
        for problem in server_problems(event)
    ]
    assert found == []


def test_these_talks_hold_every_event_that_the_simulator_knows_and_we_read_them_all() -> None:
    events = [
        event for make in [*TALKS, *WHOLE] for seed in range(4) for event in make(seed).events
    ]
    sent = {event["type"] for event in events} - {PLANTED}
    # What a call like ours never has: sound in events, other transports, tools of other servers.
    absent = {kind for kind in server_types() if "mcp" in kind} | {
        "conversation.created",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.dtmf_event_received",
        "response.output_audio.delta",
    }
    assert sent == set(server_types()) - absent
    unread = {
        event["type"] for event in events if isinstance(model_event(event), UnknownModelEvent)
    }
    assert unread == {
        PLANTED,
        "conversation.item.retrieved",
        "input_audio_buffer.cleared",
        "rate_limits.updated",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_audio.done",
        "response.output_item.done",
    }
