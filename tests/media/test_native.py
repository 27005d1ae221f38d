"""Native code forwards just as Python does, and lets go of a stream before it changes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import random
import secrets
import socket
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from interview_peer.core import rtcp
from interview_peer.core.packets import PacketQueue
from interview_peer.media import forwarder as forwarding
from interview_peer.media import native, udp
from interview_peer.media.forwarder import Forwarder
from interview_peer.media.leg import Leg
from interview_peer.media.meters import BOUNDS
from interview_peer.media.udp import UdpPort
from tests.media.legs import connected, packets_of, until
from tests.media.rtp import OPUS, read, rtp
from tests.support.lossy_link import LossyLink


@pytest.fixture(autouse=True)
def built() -> None:
    if not native.BUILT:
        reason = "the native forwarder was not built: there is no C compiler"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass
class Path:
    """One direction through two legs of ours, with what its far end decrypts."""

    speaker: Leg
    entry: Leg
    exit: Leg
    listener: Leg
    forwarder: Forwarder
    heard: list[bytes]
    queue: PacketQueue

    def natively(self) -> bool:
        """Whether the next ordinary packet is forwarded by native code."""
        lane = self.entry.engine.lane
        assert lane is not None
        return lane.armed

    async def say(self, *packets: bytes) -> None:
        """Send packets, each read before the next one comes."""
        for packet in packets:
            before = self.arrived
            assert self.speaker.engine.send_rtp(packet)
            await until(lambda before=before: self.arrived > before, "the packet")  # type: ignore[misc]

    @property
    def arrived(self) -> int:
        return self.entry.reception.packets + self.lost

    @property
    def lost(self) -> int:
        """Packets that came and were not counted as received."""
        counters, dropped = self.forwarder.counters, self.entry.engine.dropped
        return counters.malformed + counters.wrong_payload_type + dropped["unprotect"]

    async def hears(self, count: int) -> list[Any]:
        await until(lambda: len(self.heard) >= count, f"{count} packets")
        return [read(packet) for packet in self.heard]


@contextlib.asynccontextmanager
async def path(
    *, host: str = "127.0.0.1", shared: UdpPort | None = None, limit: int = 3000
) -> AsyncIterator[Path]:
    async with (
        connected(host=host, far_port=shared) as one,
        connected(host=host, dtls_server=False) as other,
    ):
        queue = PacketQueue(limit)
        forwarder = Forwarder(queue)
        forwarder.connect(one.far, other.near)
        heard = packets_of(other.far)
        yield Path(one.near, one.far, other.near, other.far, forwarder, heard, queue)
        forwarder.stop()


def stream(first: int, count: int, *, ssrc: int = 0x0BADCAFE) -> list[bytes]:
    return [rtp(first + n, (first + n) * 960, b"speech %d" % n, ssrc=ssrc) for n in range(count)]


def odd_stream(seed: int) -> list[bytes]:
    """What a far end may send: holes, disorder, headers of every shape, streams that change."""
    chance = random.Random(seed)
    sequence, timestamp = chance.randrange(65_300, 65_536), chance.randrange(1 << 32)
    ssrc, packets = chance.randrange(1, 1 << 32), list[bytes]()
    for _ in range(220):
        sequence, timestamp = sequence + 1, timestamp + 960
        kind = chance.random()
        if kind < 0.05:
            gap = chance.choice([1, 2, 5, 300, 1500])
            sequence, timestamp = sequence + gap, timestamp + 960 * gap
        elif kind < 0.07:
            ssrc = chance.randrange(1, 1 << 32)
            sequence, timestamp = chance.randrange(1 << 16), chance.randrange(1 << 32)
        packets.append(
            rtp(
                sequence,
                timestamp,
                chance.randbytes(chance.choice([1, 3, 80, 160, 1200])),
                ssrc=ssrc,
                payload_type=OPUS if chance.random() < 0.97 else 13,
                marker=chance.random() < 0.1,
                csrcs=tuple(range(chance.choice([0] * 9 + [1, 15]))),
                extension=chance.choice([None] * 4 + [b"", b"\x10\xff\x00\x00", bytes(40)]),
                padding=chance.choice([0] * 19 + [4]),
            )
        )
        if kind > 0.9 and len(packets) > 4:
            # A late one. (Across a large gap libsrtp would not send it.)
            packets[-1], packets[-2] = packets[-2], packets[-1]
    return packets


@dataclass(frozen=True)
class Outcome:
    """All that one run through a path came to, times left out."""

    heard: list[tuple[Any, ...]]
    tapped: list[tuple[Any, ...]]
    received: tuple[int, ...]
    sent: tuple[int, ...]
    counters: dict[str, int]


async def outcome(packets: list[bytes], way: str, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    with monkeypatch.context() as patch:
        patch.setattr(native, "BUILT", way == "native")
        # Where the outgoing stream begins is left to chance otherwise; times go by differently.
        patch.setattr(secrets, "randbits", lambda bits: (1 << bits) - 7)
        patch.setattr(Forwarder, "_elapsed", lambda self, at: forwarding.FRAME)
        async with path() as run:
            assert (run.entry.engine.lane is not None) == (way == "native")
            await run.say(*packets)
            counters = run.forwarder.counters
            found = await run.hears(counters.forwarded)
            reception, sending = run.entry.reception, run.exit.sending
            return Outcome(
                heard=[
                    (p.sequence_number, p.timestamp, p.payload_type, p.marker, p.payload, p.csrc)
                    for p in found
                ],
                tapped=[packet[1:] for packet in run.queue.waiting],
                received=(reception.packets, reception.octets, reception.lost, reception.highest),
                sent=(sending.packets, sending.octets, sending.last_timestamp),
                counters=dataclasses.asdict(counters),
            )


@pytest.mark.parametrize("seed", range(4))
async def test_both_ways_make_the_same_of_odd_packets(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = odd_stream(seed)
    one = await outcome(packets, "native", monkeypatch)
    other = await outcome(packets, "python", monkeypatch)
    assert one == other
    assert one.counters["forwarded"] > 150
    assert one.counters["wrong_payload_type"] > 0


async def test_ordinary_packets_never_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    async with path() as run:
        await run.say(*stream(100, 3))
        assert run.natively()
        seen: list[int] = []
        monkeypatch.setattr(run.forwarder, "packet", lambda size, at: seen.append(size))
        before = run.forwarder.counters.forwarded
        await run.say(*stream(103, 50))
        assert run.forwarder.counters.forwarded == before + 50
        assert seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families(host: str) -> None:
    async with path(host=host) as run:
        await run.say(*stream(1, 20))
        assert len(await run.hears(20)) == 20
        assert run.natively()


async def test_ipv4_far_end_on_a_socket_of_both_families() -> None:
    port = await UdpPort.open("::", announce=["127.0.0.1"])
    async with path(shared=port) as run:
        await run.say(*stream(1, 20))
        assert run.natively()
        assert run.forwarder.counters.forwarded == 20
        backward = Forwarder()
        backward.connect(run.exit, run.entry)
        heard = packets_of(run.speaker)
        for packet in stream(1, 20):
            assert run.listener.engine.send_rtp(packet)
        await until(lambda: len(heard) == 20, "the way back")
        assert run.exit.engine.lane is not None
        assert run.exit.engine.lane.armed
    port.close()


async def test_full_queue_refuses_and_counts() -> None:
    async with path(limit=10) as run:
        await run.say(*stream(1, 25))
        assert len(run.queue.waiting) == 10
        assert run.queue.refused == 15
        assert run.forwarder.counters.forwarded == 25


async def test_tap_that_is_a_function_gets_every_payload() -> None:
    async with path() as run:
        taken: list[tuple[Any, ...]] = []
        run.forwarder.tap = lambda *packet: taken.append(packet)
        await run.say(*stream(1, 20))
        assert [packet[4] for packet in taken] == [b"speech %d" % n for n in range(20)]
        assert {packet[1] for packet in taken} == {0x0BADCAFE}
        assert [packet[2] for packet in taken] == list(range(1, 21))
        run.forwarder.tap = None
        await run.say(*stream(21, 5))
        assert len(taken) == 20


async def test_forged_and_repeated_packets_are_dropped_and_counted() -> None:
    async with path() as run:
        sent: list[bytes] = []
        real = run.speaker.port.send

        def keep(data: Any, addr: Any) -> bool:
            sent.append(bytes(data))
            return real(data, addr)

        run.speaker.engine.port.send = keep  # type: ignore[method-assign]
        await run.say(*stream(1, 10))
        assert run.natively()
        for data in (sent[-1], sent[-1][:-1] + b"\x00"):
            before = run.lost
            assert real(data, run.entry.port.address)
            await until(lambda before=before: run.lost == before + 1, "a drop")  # type: ignore[misc]
        assert run.forwarder.counters.forwarded == 10
        await run.say(*stream(11, 5))
        assert len(await run.hears(15)) == 15


async def test_a_lost_leg_ends_native_forwarding_at_once() -> None:
    async with path() as run:
        await run.say(*stream(1, 5))
        assert run.natively()
        await run.listener.close()
        await until(lambda: run.exit.lost, "the loss")
        assert not run.natively()
        await run.say(*stream(6, 5))
        assert run.forwarder.counters.not_ready == 5


async def test_packet_that_comes_while_its_leg_closes_leaves_no_lane_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with path() as run:
        await run.say(*stream(1, 2))
        pc = run.entry.engine.pc
        real = pc.close

        async def fails() -> None:
            await run.say(*stream(3, 2))
            assert run.natively()
            raise RuntimeError("a section without transport")

        monkeypatch.setattr(pc, "close", fails)
        await run.entry.close()
        assert not run.natively()
        await real()


async def test_leg_lost_in_the_middle_of_a_batch_is_sent_nothing_more() -> None:
    port = await UdpPort.open("127.0.0.1")
    async with path(shared=port) as run:
        taken: list[int] = []

        def tap(at: float, ssrc: int, sequence: int, timestamp: int, payload: bytes) -> None:
            taken.append(sequence)
            if sequence == 4:
                run.exit._far_end_lost("test")

        run.forwarder.tap = tap
        await run.say(*stream(1, 2))
        assert run.natively()
        # All of them wait in the socket when it is read.
        for packet in stream(3, 10):
            assert run.speaker.engine.send_rtp(packet)
        await until(lambda: len(taken) == 12, "all packets")
        counters = run.forwarder.counters
        assert (counters.forwarded, counters.not_ready) == (4, 8)
        assert run.exit.sending.packets == 4
    port.close()


async def test_port_closed_in_the_middle_of_a_batch_is_read_no_more() -> None:
    port = await UdpPort.open("127.0.0.1")
    async with path(shared=port) as run:
        taken: list[int] = []

        def tap(at: float, ssrc: int, sequence: int, timestamp: int, payload: bytes) -> None:
            taken.append(sequence)
            if sequence == 4:
                port.close()

        run.forwarder.tap = tap
        await run.say(*stream(1, 2))
        assert run.natively()
        for packet in stream(3, 10):
            assert run.speaker.engine.send_rtp(packet)
        await until(lambda: len(taken) == 4, "the packets before")
        assert taken == [1, 2, 3, 4]
        assert port.dropped["receive_error"] == 0


async def test_two_streams_in_one_batch_go_each_its_own_way() -> None:
    port = await UdpPort.open("127.0.0.1")
    async with path(shared=port) as one, path(shared=port) as other:
        for run in (one, other):
            await run.say(*stream(1, 2))
        for number in range(3, 13):
            for run, name in ((one, b"one"), (other, b"other")):
                # Both use the same SSRC, sequence numbers and times.
                assert run.speaker.engine.send_rtp(rtp(number, number * 960, name))
        for run, name in ((one, b"one"), (other, b"other")):
            assert {packet.payload for packet in (await run.hears(12))[2:]} == {name}
            assert len(run.heard) == 12
            assert run.natively()
        assert port.dropped == {}
    port.close()


async def test_a_browser_that_moves_is_followed_both_ways_by_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = await UdpPort.open("127.0.0.1")
    link = await LossyLink.open(port.address)
    async with (
        connected(far_port=port, change_answer=link.through) as browser,
        connected(dtls_server=False) as model,
    ):
        up, down = Forwarder(), Forwarder()
        up.connect(browser.far, model.near)
        down.connect(model.near, browser.far)
        at_model, at_browser = packets_of(model.far), packets_of(browser.near)
        number = 0

        async def both_ways() -> None:
            nonlocal number
            number += 1
            for speaker in (browser.near, model.far):
                assert speaker.engine.send_rtp(rtp(number, number * 960, b"%d" % number))
            await until(lambda: len(at_model) == number, f"packet {number} at the model")

        async def browser_has(wanted: int) -> None:
            await until(lambda: len(at_browser) == wanted, f"{wanted} packets at the browser")

        for _ in range(3):
            await both_ways()
        await browser_has(3)
        old, new = link.far_side, await link.rebind()
        while browser.far.engine.remote != new:
            await both_ways()
        # What was sent to where it had been is lost; nothing is from here on.
        await both_ways()
        before = number
        seen: list[int] = []
        for forwarder in (up, down):
            monkeypatch.setattr(forwarder, "packet", lambda size, at: seen.append(size))
        await until(lambda: _last(at_browser) == before, "the newest packet at the browser")
        heard = len(at_browser)
        for _ in range(5):
            await both_ways()
        await browser_has(heard + 5)
        assert seen == [], "Python had to forward"
        assert old not in port._in_use
        assert list(port._lanes.values()) == [browser.far.engine.lane]
        assert [int(read(packet).payload) for packet in at_model] == list(range(1, number + 1))
    link.close()
    port.close()


def _last(packets: list[bytes]) -> int:
    return int(read(packets[-1]).payload)


async def test_full_or_broken_socket_costs_the_packet_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of a UDP socket on loopback the kernel drops what does not fit without a word.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours:
        async with path() as run:
            port = run.exit.port
            monkeypatch.setattr(port, "descriptor", ours.fileno)
            monkeypatch.setattr(port, "destination", lambda addr: None)
            await run.say(*stream(1, 1))
            assert run.natively()
            with theirs:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        ours.send(b"full")
                await run.say(*stream(2, 3))
                assert run.forwarder.counters.not_sent == port.dropped["send_full"] == 3
                theirs.recv(100)
                await run.say(*stream(5, 1))
                assert run.forwarder.counters.forwarded == 2
            await run.say(*stream(6, 1))
            assert run.forwarder.counters.not_sent == 4
            assert port.dropped["send_error"] == 1
            assert run.exit.sending.packets == 2


async def test_leg_that_leaves_takes_its_lane_along() -> None:
    port = await UdpPort.open("127.0.0.1")
    async with path(shared=port) as run:
        async with path(shared=port):
            await until(lambda: len(port._lanes) == 2, "both")
        assert list(port._lanes.values()) == [run.entry.engine.lane]
    assert port._lanes == {}
    port.close()


async def test_closed_legs_are_not_kept_alive() -> None:
    async with path() as run:
        await run.say(*stream(1, 5))
        assert run.natively()
        sessions = weakref.ref(run.entry.engine.pc)
        forwarder = run.forwarder
    assert forwarder.counters.forwarded == 5
    forwarder.connect(None, None)
    del run
    gc.collect()
    assert sessions() is None


async def test_replaced_sink_gets_the_next_packet() -> None:
    async with path() as run, connected(dtls_server=False) as other:
        await run.say(*stream(1, 5))
        heard = packets_of(other.far)
        run.forwarder.connect(run.entry, other.near)
        await run.say(*stream(6, 5))
        await until(lambda: len(heard) == 5, "the new leg")
        assert len(run.heard) == 5
        assert run.natively()
        assert other.near.sending.packets == 5
        assert run.exit.sending.packets == 5


async def test_silence_of_ours_takes_the_stream_back() -> None:
    async with path() as run:
        await run.say(*stream(1, 5))
        run.forwarder.fill(asyncio.get_running_loop().time())
        assert not run.natively()
        # Time went on at the sender while it was not heard.
        packets = [rtp(6 + n, (40 + n) * 960, b"again") for n in range(3)]
        await run.say(*packets)
        assert run.natively()
        numbers = [packet.sequence_number for packet in await run.hears(9)]
        assert numbers == list(range(numbers[0], numbers[0] + 9))


async def test_delay_of_every_packet_is_counted() -> None:
    async with path() as run:
        await run.say(*stream(1, 40))
        run.entry.settle_received()
        meter = run.entry.engine.delay
        assert meter.count == sum(meter.buckets) == 40
        assert 0 < meter.largest < 10
        assert run.entry.port.delay.count >= 40


async def test_report_speaks_of_what_native_code_received() -> None:
    async with path() as run:
        await run.say(*(packet for n, packet in enumerate(stream(1, 40)) if n % 4 != 2))
        block = run.entry.reception.report(asyncio.get_running_loop().time())
        assert block is not None
        assert int.from_bytes(block[5:8], "big") == 10
        assert run.entry.engine.last_heard == run.entry.reception.last_at


async def test_packet_that_is_not_forwarded_still_shows_that_its_sender_lives() -> None:
    async with path() as run:
        await run.say(*stream(1, 3))
        assert run.natively()
        before = time.monotonic()
        await run.say(rtp(4, 4 * 960, b"noise", payload_type=13))
        run.entry.settle_received()
        assert run.entry.engine.last_heard >= before


async def test_times_are_those_of_pythons_clock() -> None:
    async with path() as run:
        await run.say(*stream(1, 3))
        assert run.natively()
        before = time.monotonic()
        await run.say(*stream(4, 1))
        assert run.natively()
        assert before <= run.entry.reception.last_at <= time.monotonic()


def test_numbers_are_pythons() -> None:
    assert native.built.MAX_DATAGRAM == udp.MAX_DATAGRAM
    assert native.built.TRAILER_ROOM == udp.TRAILER_ROOM
    assert native.built.BATCH == udp.BATCH
    assert native.built.FLOOR_DISTANCE == forwarding.FLOOR_DISTANCE
    assert native.built.CLOCK_RATE == rtcp.CLOCK_RATE
    assert len(native.settle(native.built.Lane()).buckets) == len(BOUNDS) + 1


@pytest.mark.parametrize(
    "change",
    [{"rx": 0}, {"tx": 0}, {"to": ("nobody.example", 1)}, {"to": "127.0.0.1"}],
    ids=["no source", "no sink", "name", "no pair"],
)
def test_lane_without_what_it_needs_stays_unarmed(change: dict[str, Any]) -> None:
    lane = native.built.Lane()
    lane.irregular = print
    words: dict[str, Any] = {
        **{"rx": 1, "tx": 1, "keep": None, "fd": 0, "to": ("127.0.0.1", 1)},
        **{"in_ssrc": 1, "in_payload_type": 1, "out_ssrc": 1, "out_payload_type": 1},
        **{"sequence_offset": 0, "timestamp_offset": 0, "floor": 0},
        **{"last_sequence": 0, "last_timestamp": 0, "last_at": 0.0},
        **{"highest": 0, "jitter": 0.0, "transit": 0.0, "heard_at": 0.0},
    }
    with pytest.raises((ValueError, TypeError)):
        lane.arm(**{**words, **change})
    assert not lane.armed


def test_reader_wants_room_for_the_trailer() -> None:
    with pytest.raises(ValueError, match="trailer"):
        native.built.Reader(0, bytearray(udp.MAX_DATAGRAM), {}, _nothing)


def test_error_told_by_the_socket_does_not_stop_reading() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(("127.0.0.1", 0))
            address = far.getsockname()
        sock.connect(address)
        taken: list[int] = []
        reader = native.built.Reader(
            sock.fileno(),
            bytearray(udp.MAX_DATAGRAM + udp.TRAILER_ROOM),
            {},
            lambda size, addr, received: taken.append(size),
        )
        for read in (reader.shared, reader.connected):
            # Nobody has that port: the kernel tells at the next read.
            sock.send(b"is anybody there?")
            read()
            assert taken.pop() == -1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(address)
            far.sendto(b"x" * 20, sock.getsockname())
        reader.connected()
        assert taken == [20]


def test_closed_reader_reads_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"x" * 20, sock.getsockname())
        taken: deque[int] = deque()
        reader = native.built.Reader(
            sock.fileno(),
            bytearray(udp.MAX_DATAGRAM + udp.TRAILER_ROOM),
            {},
            lambda size, addr, received: taken.append(size),
        )
        reader.close()
        reader.shared()
        reader.connected()
        assert not taken


def _nothing(size: int, addr: object, received: float) -> None:
    pass
