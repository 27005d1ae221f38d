"""The paced stream: continuous, in order, and what the RTP clock does while nobody speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from interview_peer.simulator.library import Line
from interview_peer.simulator.mouth import SILENCE, Mouth
from interview_peer.simulator.settings import IdleAudio

LINE = Line("none.ogg", "x", tuple(b"\x48" + bytes([number]) for number in range(6)))
Packet = tuple[int, int, bytes, bool]


class Wire:
    """Takes what a mouth sends and lets a test wait for it."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.times: list[float] = []
        self.finished: list[str] = []
        self._changed = asyncio.Event()

    def send(self, sequence: int, timestamp: int, payload: bytes, marker: bool) -> bool:
        self.packets.append((sequence, timestamp, payload, marker))
        self.times.append(asyncio.get_running_loop().time())
        self._changed.set()
        return True

    def played_out(self, response_id: str) -> None:
        self.finished.append(response_id)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def speaking(idle: IdleAudio) -> AsyncIterator[tuple[Mouth, Wire]]:
    wire = Wire()
    mouth = Mouth(wire.send, wire.played_out, idle, "test")
    mouth.start()
    try:
        yield mouth, wire
    finally:
        await mouth.close()


def steps(packets: list[Packet]) -> list[tuple[int, int]]:
    """Differences of sequence number and timestamp between neighbours."""
    return [
        ((b[0] - a[0]) & 0xFFFF, (b[1] - a[1]) & 0xFFFFFFFF)
        for a, b in zip(packets, packets[1:], strict=False)
    ]


async def test_silence_and_speech_are_one_stream() -> None:
    async with speaking("silence") as (mouth, wire):
        await wire.until(lambda: len(wire.packets) >= 3)
        mouth.play("r", LINE)
        await wire.until(lambda: wire.finished == ["r"])
        await wire.until(lambda: wire.packets[-1][2] == SILENCE)
    assert set(steps(wire.packets)) == {(1, 960)}
    spoken = [packet[2] for packet in wire.packets if packet[2] != SILENCE]
    assert spoken == list(LINE.packets)
    assert [packet[3] for packet in wire.packets] == [True] + [False] * (len(wire.packets) - 1)


async def test_lateness_does_not_add_up() -> None:
    async with speaking("silence") as (_, wire):
        await wire.until(lambda: len(wire.packets) >= 100)
    late = [at - wire.times[0] - 0.02 * number for number, at in enumerate(wire.times[:100])]
    # Any packet may be late on a busy machine; the most punctual ones of a second hardly are.
    assert min(late[50:]) - min(late[:50]) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("idle", "moves"), [("stop_jump", True), ("stop_contiguous", False)])
async def test_a_stopped_stream_goes_on_with_or_without_the_time_between(
    idle: IdleAudio, moves: bool
) -> None:
    async with speaking(idle) as (mouth, wire):
        mouth.play("one", LINE)
        await wire.until(lambda: wire.finished == ["one"])
        # The pause itself is what is tested; nothing is sent in it that could be waited for.
        paused = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, paused.set)
        await paused.wait()
        mouth.play("two", LINE)
        await wire.until(lambda: wire.finished == ["one", "two"])
    assert len(wire.packets) == 12
    sequence_step, timestamp_step = steps(wire.packets)[5]
    assert sequence_step == 1
    assert timestamp_step % 960 == 0
    assert (timestamp_step > 4 * 960) is moves
    assert moves or timestamp_step == 960
    assert [packet[3] for packet in wire.packets] == [True, *[False] * 5] * 2


async def test_stopping_is_heard_with_the_next_packet_and_reports_nothing() -> None:
    async with speaking("silence") as (mouth, wire):
        mouth.play("r", LINE)
        await wire.until(lambda: len(wire.packets) >= 2)
        said = sum(packet[2] != SILENCE for packet in wire.packets)
        mouth.stop()
        await wire.until(lambda: len(wire.packets) >= 12)
    assert sum(packet[2] != SILENCE for packet in wire.packets) == said
    assert wire.finished == []


async def test_a_limit_ends_a_line_early_and_reports_it() -> None:
    async with speaking("silence") as (mouth, wire):
        mouth.play("r", LINE)
        mouth.limit(60)
        await wire.until(lambda: wire.finished == ["r"])
    assert sum(packet[2] != SILENCE for packet in wire.packets) == 3
