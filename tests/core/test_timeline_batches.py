"""Placing many packets at once is placing one after the other."""

from __future__ import annotations

import random
from typing import Any

import pytest

from interview_peer.core.packets import Packet
from interview_peer.core.timeline import Timeline


def arrivals(seed: int) -> list[Packet]:
    """A minute of everything that happens to a stream, in order of arrival."""
    chance = random.Random(seed)
    sequence, timestamp, source = chance.randrange(1 << 16), chance.randrange(1 << 32), 1
    sent, delay, packets = 0.0, 0.02, list[Packet]()
    for _ in range(3000):
        sent += 0.02
        sequence, timestamp = sequence + 1, timestamp + 960
        kind = chance.random()
        if kind < 0.003:
            # A pause, in which the sender's clock goes on, or stands.
            pause = chance.choice([0.1, 0.5, 3.0, 30.0])
            sent += pause
            timestamp += int(pause * 48_000) if chance.random() < 0.5 else 0
        elif kind < 0.006:
            delay = chance.choice([0.001, 0.02, 0.05, 0.3])
        elif kind < 0.007:
            sequence, timestamp, source = chance.randrange(1 << 16), chance.randrange(1 << 32), 7
        elif kind < 0.03:
            continue
        payload = bytes([chance.choice([0x78] * 20 + [0xF8, 0x08, 0x79, 0x7B])]) + b"speech"
        if chance.random() < 0.003:
            payload = b""
        jitter = chance.random() * 0.03 if chance.random() < 0.2 else 0.0
        packet = (sent + delay + jitter, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, payload, source)
        packets.append(packet)
        if chance.random() < 0.01:
            packets.append((packet[0] + 0.001, *packet[1:]))
    return sorted(packets, key=lambda packet: packet[0])


@pytest.mark.parametrize("seed", range(20))
def test_batches_are_placed_as_single_packets_are(seed: int) -> None:
    one, many, packets = Timeline(0.0), Timeline(0.0), arrivals(seed)
    taken = 0
    while taken < len(packets):
        now = packets[taken][0] + 0.5
        batch = [packet for packet in packets[taken : taken + 200] if packet[0] < now]
        taken += len(batch)
        single = [written for packet in batch for written in one.place(*packet)]
        assert many.place_all(batch) == single
        assert many.fill_to(now) == one.fill_to(now)
        # Everything that later packets are judged by.
        assert vars(many) == vars(one)
    assert many.drain() == one.drain()
    assert vars(many) == vars(one)
    assert one.counters.packets > 2000
    assert one.counters.lost > 20


def test_plain_packets_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Timeline(0.0)
    packets = [(n / 50, n, n * 960, b"\x78speech", 1) for n in range(500)]
    line.place_all(packets[:100])
    line.fill_to(2.0)
    long_way: list[float] = []
    real = Timeline.place

    def place(line: Timeline, *packet: Any) -> list[bytes]:
        long_way.append(packet[0])
        return real(line, *packet)

    monkeypatch.setattr(Timeline, "place", place)
    assert line.place_all(packets[100:]) == [b"\x78speech"] * 400
    # One packet ends each period of five seconds.
    assert len(long_way) == 1
