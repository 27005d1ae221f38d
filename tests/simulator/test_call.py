"""Whole calls over the loopback: our own leg calls the simulator, speaks and listens."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate

from interview_peer.simulator.library import Line, scripts
from interview_peer.simulator.mouth import SILENCE
from interview_peer.simulator.server import RunningSimulator, SimulatorSettings, start_simulator
from interview_peer.types import Json
from tests.support.waiting import eventually

from .caller import Caller
from .sound import Samples, decoded, spoken

DETECTION = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 500}
SESSION: Json = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}, "turn_detection": DETECTION}},
}
GREETING = scripts()[0].lines[0]
QUESTION = scripts()[0].lines[1]
Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[RunningSimulator] = []

    async def start(**settings: Any) -> str:
        running.append(await start_simulator(SimulatorSettings(**settings)))
        return running[-1].base_url

    yield start
    for simulator in running:
        await simulator.close()


def likeness(heard: Samples, line: Line) -> float:
    """Highest normalised correlation of the line anywhere in what was heard; 1 is the same."""
    wanted = decoded(line.packets)[::4]
    heard = heard[::4]
    products = correlate(heard, wanted, mode="valid", method="fft")
    total = np.concatenate(([0.0], np.cumsum(np.square(heard, dtype=np.float64))))
    energy = total[len(wanted) :] - total[: -len(wanted)]
    return float(np.max(products / np.sqrt(np.maximum(energy, 1e-6) * np.sum(wanted**2))))


def heard_by(caller: Caller) -> Samples:
    return decoded(payload for _, payload in caller.heard)


async def test_the_greeting_is_heard_as_it_was_shipped(start: Start) -> None:
    async with Caller(await start()) as caller:
        await caller.call(SESSION)
        assert caller.types()[0] == "session.created"
        caller.unmute()
        await caller.event("output_audio_buffer.stopped")
        done = await caller.event("response.output_audio_transcript.done")
        heard = heard_by(caller)
    assert done["transcript"] == GREETING.text
    assert likeness(heard, GREETING) > 0.95
    assert likeness(heard, QUESTION) < 0.5


async def test_nothing_is_said_before_audio_flows(start: Start) -> None:
    async with Caller(await start()) as caller:
        await caller.call(SESSION)
        await caller.until(lambda: len(caller.heard) >= 40)
        assert "response.created" not in caller.types()
        caller.unmute()
        await caller.event("response.created", within=1.0)


async def test_a_spoken_answer_is_noticed_and_followed_by_the_next_question(start: Start) -> None:
    answer = spoken()
    async with Caller(await start()) as caller:
        await caller.call(SESSION)
        caller.unmute()
        await caller.event("output_audio_buffer.stopped")
        before = len(caller.heard)
        caller.say(answer.packets)
        await caller.event("input_audio_buffer.speech_started", within=2.0)
        stopped = await caller.event("input_audio_buffer.speech_stopped")
        completed = await caller.event("conversation.item.input_audio_transcription.completed")
        await caller.event("output_audio_buffer.stopped", count=2)
        heard = decoded(payload for _, payload in caller.heard[before:])
        started = await caller.event("input_audio_buffer.speech_started")
    length_ms = stopped["audio_end_ms"] - started["audio_start_ms"]
    assert length_ms == pytest.approx(answer.duration_ms + 300 + 500, abs=600)
    assert completed["item_id"] == started["item_id"] == stopped["item_id"]
    assert completed["transcript"].startswith("[simulated")
    assert likeness(heard, QUESTION) > 0.95


async def test_speaking_over_the_interviewer_stops_the_sound_within_a_second(start: Start) -> None:
    async with Caller(await start()) as caller:
        await caller.call(SESSION)
        caller.unmute()
        await caller.event("output_audio_buffer.started")
        await caller.until(lambda: caller.heard[-1][1] != SILENCE)
        begin = asyncio.get_running_loop().time()
        caller.say(spoken().packets)
        await caller.event("output_audio_buffer.cleared")
        await caller.until(lambda: caller.heard[-1][1] == SILENCE)
        took = asyncio.get_running_loop().time() - begin
        truncated = await caller.event("conversation.item.truncated")
        begun = len(caller.heard)
        await caller.until(lambda: len(caller.heard) >= begun + 20)
        after = {payload for _, payload in caller.heard[begun:]}
    assert took < 1.0
    assert after == {SILENCE}
    assert 0 < truncated["audio_end_ms"] < GREETING.duration_ms


async def test_client_events_are_answered_over_the_channel(start: Start) -> None:
    async with Caller(await start(greet=False)) as caller:
        await caller.call(SESSION)
        caller.leg.send_text('{"type":"session.update","session":{"type":"realtime"}}')
        await caller.event("session.updated")
        caller.leg.send_text("not json")
        error = await caller.event("error")
        assert error["error"]["code"] == "invalid_event"


async def test_large_events_arrive_whole(start: Start) -> None:
    base_url = await start(greet=False, instructions_padding=200 * 1024, retrieved_audio_ms=30_000)
    async with Caller(base_url) as caller:
        await caller.call(SESSION)
        caller.unmute()
        caller.leg.send_text('{"type":"session.update","session":{"type":"realtime"}}')
        updated = await caller.event("session.updated")
        assert len(json.dumps(updated)) > 200 * 1024
        caller.say(spoken().packets)
        item_id = (await caller.event("input_audio_buffer.committed"))["item_id"]
        caller.leg.send_text(f'{{"type":"conversation.item.retrieve","item_id":"{item_id}"}}')
        retrieved = await caller.event("conversation.item.retrieved")
        assert len(json.dumps(retrieved)) > 1_900_000


async def test_events_beyond_the_client_s_limit_can_be_dropped(start: Start) -> None:
    base_url = await start(greet=False, instructions_padding=300_000, oversized_events="drop")
    async with Caller(base_url) as caller:
        await caller.post_and_accept(SESSION)
        await caller.event("x_simulator.hint")
        assert "session.created" not in caller.types()


async def test_binary_and_malformed_messages_come_between_events(start: Start) -> None:
    base_url = await start(malformed_events=True, binary_events=True)
    async with Caller(base_url) as caller:
        await caller.call(SESSION)
        await caller.event("x_simulator.hint")
        assert [type(message) for message in caller.unreadable] == [str] * 4 + [bytes] * 2


@pytest.mark.parametrize("message", ["not json", b"binary"])
async def test_a_strict_channel_closes_the_connection(start: Start, message: str | bytes) -> None:
    async with Caller(await start(strict_channel=True)) as caller:
        await caller.call(SESSION)
        caller.leg.send_message(message)
        await caller.until(lambda: caller.lost is not None, within=3.0)
        assert "error" not in caller.types()


async def test_a_session_can_end_with_a_close_and_no_event(start: Start) -> None:
    async with Caller(await start(session_seconds=0.3, expiry="silent")) as caller:
        await caller.call(SESSION)
        await caller.until(lambda: caller.lost is not None, within=3.0)
        assert "error" not in caller.types()


async def test_the_planted_fault_holds_the_key(start: Start) -> None:
    base_url = await start(api_key="sk-test", echo_key=True)
    async with Caller(base_url) as caller:
        await caller.call(SESSION)
        error = await caller.event("error")
        assert "sk-test" in error["error"]["message"]


async def test_a_hang_up_ends_the_connection(start: Start) -> None:
    async with Caller(await start()) as caller:
        await caller.call(SESSION)
        assert await caller.hang_up() == 200
        await caller.until(lambda: caller.lost is not None, within=3.0)
        assert await caller.hang_up() == 404


async def test_a_session_s_end_closes_the_call(start: Start) -> None:
    async with Caller(await start(session_seconds=0.3)) as caller:
        await caller.call(SESSION)
        error = await caller.event("error")
        assert error["error"]["code"] == "session_expired"
        await caller.until(lambda: caller.lost is not None, within=3.0)


async def test_calls_that_come_and_go_leave_nothing() -> None:
    # The first call loads what stays for the process's life.
    for round_ in range(4):
        simulator = await start_simulator(SimulatorSettings())
        async with Caller(simulator.base_url) as caller:
            await caller.call(SESSION)
            caller.unmute()
            await caller.event("response.created")
            if round_ % 2:
                await caller.leg.close()
                await eventually(ended(simulator), within=5.0, what="the call ends there too")
            await simulator.close()
        if round_ == 0:
            before = remains()
    assert remains() == before


def ended(simulator: RunningSimulator) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return simulator.calls == 0

    return look


async def test_closing_twice_is_closing_once() -> None:
    simulator = await start_simulator(SimulatorSettings())
    await simulator.close()
    await simulator.close()


def remains() -> tuple[int, int, int]:
    """Tasks, threads and descriptors of this process."""
    descriptors = len(os.listdir("/proc/self/fd"))
    return len(asyncio.all_tasks()), threading.active_count(), descriptors
