"""Audio from leg to leg: what the far end of the other leg gets to decrypt."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from interview_peer.core import rtcp
from interview_peer.media.forwarder import (
    FILL_AFTER_SECONDS,
    FLOOR_DISTANCE,
    FRAME,
    FRAME_SECONDS,
    SILENCE,
    Forwarder,
)
from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from tests.media.legs import Ends, Heard, connected, packets_of, until
from tests.media.rtp import OPUS, read, rtp


@dataclass(frozen=True)
class Path:
    """Browser to model through two legs of ours, and what the model decrypts."""

    browser: Leg
    entry: Leg
    exit: Leg
    model: Leg
    forwarder: Forwarder
    heard: list[bytes]

    def say(self, packet: bytes) -> None:
        """The browser sends one packet."""
        assert self.browser.engine.send_rtp(packet)

    async def hears(self, count: int) -> list[Any]:
        """Wait for that many packets at the model; all there are by then."""
        await until(lambda: len(self.heard) >= count, f"{count} packets")
        return [read(packet) for packet in self.heard]

    def feed(self, packet: bytes, at: float) -> None:
        """Put a packet before the forwarder as if it had arrived at ``at``."""
        feed(self.forwarder, self.entry, packet, at)


def feed(forwarder: Forwarder, source: Leg, packet: bytes, at: float) -> None:
    source.port.buffer[: len(packet)] = packet
    forwarder.packet(len(packet), at)


@contextlib.asynccontextmanager
async def model_side() -> AsyncIterator[Ends]:
    """A model's leg: ours offers, the far end answers."""
    async with connected(dtls_server=False) as ends:
        yield ends


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    async with connected() as browser_side, model_side() as ends:
        forwarder = Forwarder()
        forwarder.connect(browser_side.far, ends.near)
        heard = packets_of(ends.far)
        yield Path(browser_side.near, browser_side.far, ends.near, ends.far, forwarder, heard)
        forwarder.stop()


def steps(values: list[int], bits: int) -> list[int]:
    return [(b - a) % (1 << bits) for a, b in zip(values, values[1:], strict=False)]


# -- one stream ---------------------------------------------------------------------------------


async def test_stream_arrives_as_it_was_under_our_own_name(path: Path) -> None:
    chance = random.Random(1)
    payloads = [chance.randbytes(chance.randrange(1, 400)) for _ in range(60)]
    for number, payload in enumerate(payloads):
        path.say(rtp(4000 + number, 123_456 + number * FRAME, payload, marker=number in (0, 30)))
    packets = await path.hears(60)
    assert [packet.payload for packet in packets] == payloads
    assert steps([packet.sequence_number for packet in packets], 16) == [1] * 59
    assert steps([packet.timestamp for packet in packets], 32) == [FRAME] * 59
    assert {packet.ssrc for packet in packets} == {path.exit.engine.ssrc}
    assert [n for n, packet in enumerate(packets) if packet.marker] == [0, 30]
    assert path.forwarder.counters.forwarded == 60
    assert (path.exit.sending.packets, path.exit.sending.octets) == (60, sum(map(len, payloads)))
    assert path.entry.reception.packets == 60


async def test_payload_type_becomes_the_other_legs(path: Path) -> None:
    path.entry.payload_type, path.exit.payload_type = 111, 109
    path.say(rtp(1, 0, b"one", payload_type=111))
    path.say(rtp(2, 960, b"two", payload_type=111, marker=True))
    packets = await path.hears(2)
    assert [(packet.payload_type, packet.marker) for packet in packets] == [(109, 0), (109, 1)]


async def test_lost_packet_costs_exactly_that_packet(path: Path) -> None:
    sent = [n for n in range(100) if n not in (10, 11, 50, 98)]
    for number in sent:
        path.say(rtp(number, number * FRAME, b"%d" % number))
    packets = await path.hears(len(sent))
    first = packets[0].sequence_number
    assert [(packet.sequence_number - first) % 65536 for packet in packets] == sent
    assert [packet.payload for packet in packets] == [b"%d" % number for number in sent]
    assert path.entry.reception.lost == 4


async def test_packets_that_overtake_each_other_keep_their_numbers(path: Path) -> None:
    order = [0, 2, 1, 5, 4, 3, 6]
    for number in order:
        path.say(rtp(7 + number, number * FRAME, b"%d" % number))
    packets = await path.hears(len(order))
    first = packets[0].sequence_number
    assert [(packet.sequence_number - first) % 65536 for packet in packets] == order
    assert [(p.timestamp - packets[0].timestamp) % (1 << 32) for p in packets] == [
        number * FRAME for number in order
    ]


async def test_duplicate_is_never_heard_twice(path: Path) -> None:
    for number in (1, 2, 2, 2, 3):
        path.feed(rtp(number, number * FRAME, b"%d" % number), 1.0)
    path.feed(rtp(4, 4 * FRAME, b"4"), 1.0)
    packets = await path.hears(4)
    assert [packet.payload for packet in packets] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("no extras", {}),
        ("one-byte extensions", {"extension": b"\x10\x85\x41\x30\x00\x00\x00\x00"}),
        ("empty extension", {"extension": b""}),
        ("contributing sources", {"csrcs": (1, 2, 3)}),
        ("fifteen sources", {"csrcs": tuple(range(15))}),
        ("both", {"csrcs": (9,), "extension": b"\x10\x85\x00\x00"}),
        ("padding", {"padding": 40}),
        ("padding of one byte", {"padding": 1}),
        ("all of it", {"csrcs": (9, 8), "extension": b"\x10\x85\x00\x00", "padding": 4}),
    ],
)
async def test_extras_of_the_header_stay_behind_and_the_payload_is_whole(
    name: str, extra: dict[str, Any], path: Path
) -> None:
    for number in range(3):
        path.say(rtp(10 + number, number * FRAME, b"payload %d" % number, **extra))
    packets = await path.hears(3)
    assert [packet.payload for packet in packets] == [b"payload %d" % n for n in range(3)]
    for packet, raw in zip(packets, path.heard, strict=True):
        assert packet.csrc == []
        assert raw[0] & 0x1F == 0, "neither extension bit nor sources"
        assert packet.padding_size == extra.get("padding", 0)
    assert steps([packet.sequence_number for packet in packets], 16) == [1, 1]
    assert path.exit.sending.octets == 3 * len(b"payload 0")


MALFORMED = {
    "header only": rtp(2, 0, b""),
    "sources beyond the end": bytes([0x8F]) + rtp(2, 0, b"abcd")[1:],
    "extension header beyond the end": rtp(2, 0, b"", extension=b"")[:14],
    "extension beyond the end": rtp(2, 0, b"", extension=b"\0\0\0\0")[:-1],
    "extension longer than any packet": bytes([0x90])
    + rtp(2, 0, b"")[1:]
    + b"\xbe\xde\xff\xff"
    + b"rest",
    "extension and no payload": rtp(2, 0, b"", extension=b"\0\0\0\0"),
    "padding and no payload": rtp(2, 0, b"", padding=4),
    "padding longer than the packet": bytes([0xA0]) + rtp(2, 0, b"abc\xff")[1:],
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_malformed_packet_is_dropped_and_counted(kind: str, path: Path) -> None:
    path.feed(rtp(1, 0, b"before"), 1.0)
    path.feed(MALFORMED[kind], 1.0)
    path.feed(rtp(3, 2 * FRAME, b"after"), 1.04)
    packets = await path.hears(2)
    assert [packet.payload for packet in packets] == [b"before", b"after"]
    assert path.forwarder.counters.malformed == 1


@pytest.mark.parametrize("payload_type", [0, 13, 63, 95, 97, 111, 127])
async def test_other_payload_type_is_dropped_and_counted(payload_type: int, path: Path) -> None:
    path.say(rtp(1, 0, b"before"))
    path.say(rtp(2, FRAME, b"not Opus", payload_type=payload_type))
    path.say(rtp(3, 2 * FRAME, b"after"))
    packets = await path.hears(2)
    assert [packet.payload for packet in packets] == [b"before", b"after"]
    assert path.forwarder.counters.wrong_payload_type == 1
    assert path.entry.reception.packets == 2


async def test_packet_as_large_as_a_datagram_may_be_goes_through(path: Path) -> None:
    path.say(rtp(1, 0, b"x" * 1400))
    (packet,) = await path.hears(1)
    assert packet.payload == b"x" * 1400


# -- wraps --------------------------------------------------------------------------------------


async def test_input_numbers_and_times_wrap_without_a_seam(path: Path) -> None:
    for number in range(40):
        path.say(rtp(65_516 + number, 0xFFFFFFFF - 20 * FRAME + number * FRAME, b"%d" % number))
    packets = await path.hears(40)
    assert [packet.payload for packet in packets] == [b"%d" % number for number in range(40)]
    assert steps([packet.sequence_number for packet in packets], 16) == [1] * 39
    assert steps([packet.timestamp for packet in packets], 32) == [FRAME] * 39
    assert path.entry.reception.lost == 0


async def test_output_numbers_pass_the_wrap_and_the_far_end_still_decrypts(path: Path) -> None:
    # Holes of 900 packets: 80 of them lead round the 16-bit circle, whatever the start.
    for number in range(80):
        path.say(rtp(number * 901, number * 901 * FRAME, b"%d" % number))
    packets = await path.hears(80)
    assert [packet.payload for packet in packets] == [b"%d" % number for number in range(80)]
    numbers = [packet.sequence_number for packet in packets]
    assert any(b < a for a, b in zip(numbers, numbers[1:], strict=False))
    assert path.model.engine.dropped == {}


async def test_first_number_leaves_room_for_lost_packets_before_the_wrap() -> None:
    starts = [Forwarder()._last_sequence for _ in range(200)]
    assert max(starts) < 1 << 15
    assert len(set(starts)) > 150


# -- a new stream -------------------------------------------------------------------------------


async def test_new_ssrc_continues_the_stream_with_the_time_gone_by(path: Path) -> None:
    path.feed(rtp(100, 5000, b"old", ssrc=1), 10.0)
    path.feed(rtp(101, 5960, b"old", ssrc=1), 10.02)
    path.feed(rtp(60_000, 777, b"new", ssrc=2), 12.52)
    path.feed(rtp(60_001, 777 + FRAME, b"new", ssrc=2), 12.54)
    packets = await path.hears(4)
    assert steps([packet.sequence_number for packet in packets], 16) == [1, 1, 1]
    assert steps([packet.timestamp for packet in packets], 32) == [
        FRAME,
        pytest.approx(2.5 * 48_000, abs=2),
        FRAME,
    ]
    assert {packet.ssrc for packet in packets} == {path.exit.engine.ssrc}
    assert path.forwarder.counters.rebased == 2


async def test_a_place_in_what_the_far_end_heard_is_when_it_came_in(path: Path) -> None:
    assert path.forwarder.sent_at(0) is None
    for number in range(100):
        path.feed(rtp(number, 4_294_900_000 + number * FRAME, b"x"), 50.0 + number * FRAME_SECONDS)
    assert path.forwarder.sent_at(0) == pytest.approx(50.0)
    assert path.forwarder.sent_at(1500) == pytest.approx(51.5)
    # A browser that comes back is heard after the time gone by, by the same far end.
    path.feed(rtp(7, 123, b"x", ssrc=99), 60.0)
    assert path.forwarder.sent_at(0) == pytest.approx(50.0)
    assert path.forwarder.sent_at(10_000) == pytest.approx(60.0)
    # A sender whose clock is slow: the latest packet says where its own sound lies.
    path.feed(rtp(8, 123 + 48_000, b"x", ssrc=99), 61.2)
    assert path.forwarder.sent_at(11_000) == pytest.approx(61.2)


async def test_a_new_far_end_counts_what_it_hears_anew(path: Path) -> None:
    path.feed(rtp(1, 0, b"x"), 50.0)
    async with model_side() as ends:
        path.forwarder.connect(path.entry, ends.near)
        assert path.forwarder.sent_at(0) is None
        path.feed(rtp(2, FRAME, b"x"), 70.0)
        assert path.forwarder.sent_at(0) == pytest.approx(70.0)
        path.forwarder.fill(70.4)
        assert path.forwarder.sent_at(0) == pytest.approx(70.0, abs=0.02)
        path.forwarder.connect(None, None)


async def test_new_ssrc_at_once_still_takes_the_next_number_and_frame(path: Path) -> None:
    for number, ssrc in enumerate((1, 2, 1, 2)):
        path.feed(rtp(1000 * ssrc, 0, b"%d" % number, ssrc=ssrc), 10.0)
    packets = await path.hears(4)
    assert steps([packet.sequence_number for packet in packets], 16) == [1, 1, 1]
    assert steps([packet.timestamp for packet in packets], 32) == [FRAME] * 3


async def test_real_time_between_two_streams_is_kept_within_a_few_milliseconds(path: Path) -> None:
    times: list[float] = []
    path.forwarder.tap = lambda at, *_: times.append(at)
    path.browser.sending.ssrc = 1
    path.say(rtp(5, 0, b"old", ssrc=1))
    await path.hears(1)
    # The browser hears of it within a second: long enough to tell times apart.
    await until(lambda: path.browser.sending.heard, "a report")
    path.say(rtp(900, 0, b"new", ssrc=2))
    first, second = await path.hears(2)
    elapsed = (second.timestamp - first.timestamp) / 48_000
    assert elapsed == pytest.approx(times[1] - times[0], abs=0.001)
    assert elapsed > 0.1


async def test_packet_from_before_a_new_stream_is_refused(path: Path) -> None:
    path.feed(rtp(500, 0, b"first", ssrc=1), 1.0)
    path.feed(rtp(499, -FRAME, b"late", ssrc=1), 1.0)
    path.feed(rtp(501, FRAME, b"second", ssrc=1), 1.02)
    packets = await path.hears(2)
    assert [packet.payload for packet in packets] == [b"first", b"second"]
    assert path.forwarder.counters.refused == 1


async def test_packet_too_late_for_the_replay_window_is_refused(path: Path) -> None:
    newest = 3 * FLOOR_DISTANCE
    path.feed(rtp(0, 0, b"first"), 1.0)
    path.feed(rtp(newest, newest * FRAME, b"newest"), 2.0)
    path.feed(rtp(newest - FLOOR_DISTANCE - 1, 0, b"too late"), 2.0)
    path.feed(rtp(newest - FLOOR_DISTANCE // 2, 0, b"just late"), 2.0)
    packets = await path.hears(3)
    assert [packet.payload for packet in packets] == [b"first", b"newest", b"just late"]
    assert path.forwarder.counters.refused == 1


# -- legs that come and go ----------------------------------------------------------------------


async def test_nothing_is_sent_before_the_other_leg_can_send() -> None:
    heard: list[tuple[Any, ...]] = []
    async with connected() as browser_side:
        port = await UdpPort.open("127.0.0.1")
        sink = Leg("model", port, Heard(), own_port=True)
        forwarder = Forwarder(lambda *packet: heard.append(packet))
        for number, place in enumerate((None, sink), start=1):
            forwarder.connect(browser_side.far, place)
            browser_side.near.send_audio(number, number * FRAME, b"early")
            await until(lambda: len(heard) == number, "the packet")  # noqa: B023 - awaited at once
        assert forwarder.counters.not_ready == 2
        assert forwarder.counters.forwarded == 0
        assert sink.sending.packets == 0
        # What the candidate says while the model is not there yet is recorded all the same.
        assert [packet[2:] for packet in heard] == [
            (1, FRAME, b"early"),
            (2, 2 * FRAME, b"early"),
        ]
        await sink.close()


async def test_model_leg_is_replaced_without_the_browser_noticing(path: Path) -> None:
    path.say(rtp(1, 0, b"to the first"))
    await path.hears(1)
    async with model_side() as other:
        heard = packets_of(other.far)
        path.forwarder.connect(path.entry, other.near)
        for number in range(2, 6):
            path.say(rtp(number, number * FRAME, b"%d" % number))
        await until(lambda: len(heard) == 4, "the stream at the new leg")
        packets = [read(packet) for packet in heard]
        assert [packet.payload for packet in packets] == [b"2", b"3", b"4", b"5"]
        assert {packet.ssrc for packet in packets} == {other.near.engine.ssrc}
        assert steps([packet.sequence_number for packet in packets], 16) == [1] * 3
    assert len(path.heard) == 1


async def test_browser_leg_is_replaced_and_the_model_hears_one_stream(path: Path) -> None:
    for number in range(3):
        path.say(rtp(30_000 + number, number * FRAME, b"old"))
    await path.hears(3)
    async with connected() as other:
        path.forwarder.connect(other.far, path.exit)
        path.say(rtp(30_003, 3 * FRAME, b"unheard"))
        for number in range(3):
            other.near.send_audio(9 + number, 777 + number * FRAME, b"new")
        packets = await path.hears(6)
        assert [packet.payload for packet in packets] == [b"old"] * 3 + [b"new"] * 3
        assert steps([packet.sequence_number for packet in packets], 16) == [1] * 5
        assert steps([packet.timestamp for packet in packets[3:]], 32) == [FRAME] * 2
        assert {packet.ssrc for packet in packets} == {path.exit.engine.ssrc}
        path.forwarder.connect(path.entry, path.exit)


async def test_returning_to_the_same_leg_never_gives_a_number_twice(path: Path) -> None:
    path.say(rtp(10, 0, b"a"))
    await path.hears(1)
    path.forwarder.connect(None, path.exit)
    path.forwarder.connect(path.entry, path.exit)
    path.say(rtp(11, FRAME, b"b"))
    packets = await path.hears(2)
    assert steps([packet.sequence_number for packet in packets], 16) == [1]


async def test_full_socket_costs_the_packet_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = path.exit.port._send_to_peer, iter([False, True])

    def send(data: bytes) -> int:
        if next(full, False):
            raise BlockingIOError
        return real(data)

    monkeypatch.setattr(path.exit.port, "_send_to_peer", send)
    for number in range(4):
        path.feed(rtp(number, number * FRAME, b"%d" % number), 1 + number / 50)
    packets = await path.hears(3)
    assert [packet.payload for packet in packets] == [b"0", b"2", b"3"]
    assert steps([packet.sequence_number for packet in packets], 16) == [2, 1]
    assert path.forwarder.counters.not_sent == 1


async def test_loss_beyond_the_model_leg_is_told_to_the_browser(path: Path) -> None:
    path.say(rtp(1, 0, b"one"))
    await path.hears(1)
    path.browser.sending.ssrc = 0x0BADCAFE
    path.exit.sending.heard = rtcp.ReportBlock(path.exit.engine.ssrc, 0.5, 9, 0, 0, 0)
    assert path.entry.path_loss() == 0.5
    await until(lambda: path.browser.sending.heard, "a report to the browser", within=5)
    heard = path.browser.sending.heard
    assert heard is not None
    assert heard.fraction_lost == 0.5
    assert heard.cumulative_lost == 0, "its own hop has lost nothing"


# -- silence in place of nothing ------------------------------------------------------------------


async def test_model_hears_silence_when_the_browser_sends_nothing(path: Path) -> None:
    forwarder = Forwarder(fill=True)
    forwarder.connect(path.entry, path.exit)
    path.say(rtp(1, 0, b"speech"))
    packets = await path.hears(6)
    forwarder.stop()
    assert [packet.payload for packet in packets[:6]] == [b"speech"] + [SILENCE] * 5
    gaps = steps([packet.timestamp for packet in packets[:6]], 32)
    assert steps([packet.sequence_number for packet in packets], 16) == [1] * (len(packets) - 1)
    assert FILL_AFTER_SECONDS * 48_000 <= gaps[0] < (FILL_AFTER_SECONDS + 0.5) * 48_000
    assert all(gap % FRAME == 0 for gap in gaps[1:])


async def test_model_hears_silence_at_once_when_the_browser_is_gone(path: Path) -> None:
    forwarder = Forwarder(fill=True)
    try:
        forwarder.connect(path.entry, path.exit)
        path.say(rtp(1, 0, b"last words"))
        await path.hears(1)
        forwarder.connect(None, path.exit)
        assert forwarder._timer is not None
        # A wait of 300 ms for a leg that cannot send would be a hole.
        due = forwarder._timer.when() - asyncio.get_running_loop().time()
        assert due <= FRAME_SECONDS
        packets = await path.hears(4)
        assert [packet.payload for packet in packets[1:]] == [SILENCE] * 3
    finally:
        forwarder.stop()


async def test_after_silence_time_that_went_on_is_kept(path: Path) -> None:
    path.feed(rtp(1, 0, b"a"), 10.0)
    path.forwarder.fill(10.3)
    path.forwarder.fill(10.32)
    # 20 packets were lost on the way; the sender's clock went on.
    path.feed(rtp(21, 20 * FRAME, b"b"), 10.4)
    packets = await path.hears(4)
    assert [packet.payload for packet in packets] == [b"a", SILENCE, SILENCE, b"b"]
    assert steps([packet.sequence_number for packet in packets], 16) == [1, 1, 1]
    assert (packets[3].timestamp - packets[0].timestamp) % (1 << 32) == 20 * FRAME


async def test_after_silence_a_clock_that_stood_still_is_moved_on(path: Path) -> None:
    path.feed(rtp(1, 0, b"a"), 10.0)
    for number in range(135):
        path.forwarder.fill(10.3 + number / 50)
    for number in range(5):
        path.feed(rtp(2 + number, (1 + number) * FRAME, b"%d" % number), 13 + number / 50)
        if number < 2:
            # Still undecided, so the silence goes on.
            path.forwarder.fill(13.001 + number / 50)
    packets = await path.hears(141)
    assert [packet.payload for packet in packets[-4:]] == [SILENCE, b"2", b"3", b"4"]
    assert steps([packet.sequence_number for packet in packets], 16) == [1] * 140
    gaps = steps([packet.timestamp for packet in packets], 32)
    assert gaps[0] == pytest.approx(0.3 * 48_000, abs=1)
    assert all(gap < 3 * FRAME for gap in gaps[1:])
    assert path.forwarder.counters.stale == 2


async def test_after_silence_a_network_that_empties_its_queue_is_not_played(path: Path) -> None:
    path.feed(rtp(1, 0, b"a"), 10.0)
    for number in range(86):
        path.forwarder.fill(10.3 + number / 50)
    # Two seconds of speech arrive at once, 1 ms apart, then live packets.
    for number in range(100):
        path.feed(rtp(2 + number, (1 + number) * FRAME, b"held"), 12.02 + number / 1000)
    path.feed(rtp(110, 109 * FRAME, b"live"), 12.18)
    packets = await path.hears(88)
    played = [packet.payload for packet in packets[87:]]
    assert played[-1] == b"live"
    assert played.count(b"held") <= 15
    assert path.forwarder.counters.stale >= 85


# -- never one number for two packets -------------------------------------------------------------


class Wire:
    """Stands in the sink's place for sending and checks what would go out.

    Counts packets as SRTP does (RFC 3711 section 3.3.1): by sequence number and the number of
    wraps, guessed from the highest before. One index encrypts one packet: the same index for
    another would give away the key stream, and with GCM the authentication key.
    """

    def __init__(self) -> None:
        self.sent: dict[int, bytes] = {}
        self.highest: int | None = None
        self.refuse = False

    def put(self, packet: bytes) -> bool:
        sequence = int.from_bytes(packet[2:4], "big")
        if self.highest is None:
            index = self.highest = sequence + (1 << 16)
        else:
            index = self.highest + ((sequence - self.highest + 0x8000) & 0xFFFF) - 0x8000
        self.highest = max(self.highest, index)
        if self.refuse:
            # Encrypted, then not taken by the socket: nobody ever sees it.
            return False
        before = self.sent.setdefault(index, packet)
        assert before == packet, f"number {sequence} was given to two packets"
        return True


@pytest.mark.parametrize("seed", range(12))
async def test_no_number_is_ever_given_to_two_packets(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    wire = Wire()
    source = Leg("browser", await UdpPort.open("127.0.0.1"), Heard(), own_port=True)
    sink = Leg("model", await UdpPort.open("127.0.0.1"), Heard(), own_port=True)
    source.payload_type = sink.payload_type = OPUS
    sink.connected = True

    def forward(engine: Any, offset: int, size: int) -> bool:
        return wire.put(bytes(source.port.buffer[offset : offset + size]))

    monkeypatch.setattr(sink.engine, "forward", forward)
    monkeypatch.setattr(sink.engine, "send_rtp", wire.put)
    forwarder = Forwarder()
    forwarder.connect(source, sink)
    streams = [[ssrc, chance.randrange(1 << 16), chance.randrange(1 << 32)] for ssrc in (1, 2, 3)]
    stream, at, history = streams[0], 100.0, list[bytes]()
    for number in range(6000):
        at += 0.02
        action = chance.random()
        if action < 0.02:
            stream = chance.choice(streams)
        elif action < 0.03:
            stream[1] += chance.choice([3, 50, 2000, 20_000, 32_767, 32_768, 50_000])
        elif action < 0.035:
            stream[2] += chance.randrange(1 << 32)
        elif action < 0.06:
            at += chance.choice([0.05, 0.4, 3.0])
            for _ in range(chance.randrange(1, 40)):
                forwarder.fill(at)
                at += 0.02
        elif action < 0.065:
            forwarder.connect(source, sink)
        elif action < 0.07:
            sink.connected = not sink.connected
        elif action < 0.08:
            wire.refuse = not wire.refuse
        if history and chance.random() < 0.1:
            # A duplicate or something very late, as it was.
            feed(forwarder, source, chance.choice(history[-3000:]), at)
        stream[1] += 1
        stream[2] += FRAME
        packet = rtp(stream[1], stream[2], b"%d" % number, ssrc=stream[0])
        history.append(packet)
        if chance.random() < 0.9:
            feed(forwarder, source, packet, at)
    assert len(wire.sent) > 500
    await source.close()
    await sink.close()
