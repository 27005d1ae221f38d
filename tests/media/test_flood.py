"""A far end that sends far too much, once it is connected: what that may cost, and its end."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import google_crc32c
import pytest

from interview_peer.core import flood, rtcp
from interview_peer.core.flood import Budget, Flood
from interview_peer.media import engine
from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from tests.media.legs import Ends, connected, until

DATA, SACK, HEARTBEAT, RECONFIG, FORWARD_TSN = 0, 3, 4, 130, 192
WHOLE, FIRST, MIDDLE, UNORDERED = 3, 2, 0, 4
TEXT, DCEP = 51, 50


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    port = await UdpPort.open("127.0.0.1")
    async with connected(far_port=port, far_budget=Budget()) as ends:
        yield ends
    port.close()


class Sender:
    """Puts chunks of its own into ``near``'s established association."""

    def __init__(self, near: Leg) -> None:
        self.sctp = sctp_of(near)
        self.tsn: int = self.sctp._local_tsn
        self.stream: int = next(iter(self.sctp._data_channels))
        self.sequence = self.sctp._outbound_stream_seq[self.stream]

    def data(
        self, payload: bytes, flags: int = WHOLE, stream: int = 0, protocol: int = TEXT
    ) -> bytes:
        """The next chunk of data, of stream ``stream`` or else the channel's."""
        sequence = 0 if stream else self.sequence
        head = struct.pack("!LHHL", self.tsn, stream or self.stream, sequence, protocol)
        self.tsn = (self.tsn + 1) & 0xFFFFFFFF
        if flags == WHOLE and not stream:
            self.sequence += 1
        return chunk(DATA, head + payload, flags)

    async def send(self, *chunks: bytes) -> None:
        """One packet."""
        ports = (self.sctp._local_port, self.sctp._remote_port)
        head = struct.pack("!HHL", *ports, self.sctp._remote_verification_tag)
        rest = b"".join(one + bytes(-len(one) % 4) for one in chunks)
        checksum = struct.pack("<L", google_crc32c.value(head + bytes(4) + rest))
        await self.sctp.transport._send_data(head + checksum + rest)

    async def throw(self, make: Callable[[], list[bytes]], heard: Callable[[], object]) -> None:
        """Packets of ``make()``, one a turn of the event loop, until something is ``heard``."""
        for _ in range(10_000):
            if heard():
                return
            await self.send(*make())
            await asyncio.sleep(0)
        raise AssertionError("nothing came of it")


def chunk(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body


def sctp_of(leg: Leg) -> Any:
    return leg.engine.pc.sctp


def far_sctp(ends: Ends) -> Any:
    return sctp_of(ends.far)


async def check_goes_on(ends: Ends, sender: Sender) -> None:
    """What comes behind is taken."""
    await sender.send(sender.data(b"after"))
    await until(lambda: "after" in ends.far_heard.messages, "a message behind it", within=5)
    assert ends.far_heard.lost is None


async def test_a_flood_of_messages_ends_the_leg_and_what_comes_then_is_a_strangers(
    ends: Ends,
) -> None:
    sender = Sender(ends.near)
    await sender.throw(lambda: [sender.data(b"x") for _ in range(20)], lambda: ends.far_heard.lost)
    assert ends.far_heard.lost == "flood of events"
    assert ends.far.flood is Flood.EVENTS
    taken = len(ends.far_heard.messages)
    assert taken <= flood.CHUNKS_AT_ONCE + 5 * flood.CHUNKS_PER_SECOND
    dropped, waiting = ends.far.port.dropped, ends.far.engine._ice._queue
    await asyncio.sleep(0)
    before = dropped["unknown"]
    for _ in range(50):
        ends.near.port.send(b"\x17\xfe\xfd" + bytes(60), ends.near.engine.remote or ("", 0))
        ends.near.send_audio(1, 960, b"x")
    await until(lambda: dropped["unknown"] - before >= 100, "dropped as a stranger's")
    assert waiting.empty()
    # A last word still goes out, before the leg is closed.
    ends.far.send_text("why")
    await until(lambda: "why" in ends.near_heard.messages, "the last word")
    await ends.far.close()
    assert len(ends.far_heard.messages) == taken
    await until(lambda: ends.near_heard.lost, "the end told to the far end")


@pytest.mark.parametrize(
    "make",
    [
        lambda sender: [chunk(HEARTBEAT, struct.pack("!HH", 1, 4))] * 140,
        lambda sender: [sender.data(b"x", MIDDLE, 7) for _ in range(20)],
        lambda sender: [sender.data(b"x", FIRST | UNORDERED, 7) for _ in range(20)],
        lambda sender: [sender.data(b"x", WHOLE, 7, 4711) for _ in range(20)],
        lambda sender: [sender.data(b"", MIDDLE, 7) for _ in range(20)],
    ],
    ids=["heartbeats", "no end", "no end, unordered", "of no protocol", "empty"],
)
async def test_floods_of_which_no_event_comes_end_the_leg(
    ends: Ends, make: Callable[[Sender], list[bytes]]
) -> None:
    sender = Sender(ends.near)
    await sender.throw(lambda: make(sender), lambda: ends.far_heard.lost)
    assert ends.far_heard.lost == "flood of events"
    streams = far_sctp(ends)._inbound_streams.values()
    assert sum(len(one.reassembly) for one in streams) <= engine.MAX_UNFINISHED


async def test_a_packet_of_many_chunks_lets_others_have_their_turn(ends: Ends) -> None:
    sender = Sender(ends.near)
    turns, at_first = 0, 0
    handled = ends.far.engine

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1 if at_first < handled._chunks < at_first + 100 else 0

    at_first = handled._chunks
    task = asyncio.create_task(others(), name="others")
    await sender.send(*[chunk(HEARTBEAT, struct.pack("!HH", 1, 4))] * 100)
    await until(lambda: handled._chunks >= at_first + 100, "all handled")
    task.cancel()
    assert turns >= 100 // engine.CHUNKS_AT_A_TIME - 1


async def test_chunks_behind_a_missing_one_are_kept_to_a_number(ends: Ends) -> None:
    sender = Sender(ends.near)
    missing = sender.tsn
    sender.tsn += 1
    for _ in range(20):
        await sender.send(*[sender.data(b"x", WHOLE | UNORDERED, 7) for _ in range(20)])
    dropped = ends.far.engine.dropped
    await until(lambda: dropped["chunks"] == 20 * 20 - engine.MAX_OUT_OF_ORDER, "dropped")
    assert len(far_sctp(ends)._sack_misordered) == engine.MAX_OUT_OF_ORDER
    sender.tsn = missing
    await sender.send(sender.data(b"x", WHOLE | UNORDERED, 7))
    await until(lambda: not far_sctp(ends)._sack_misordered, "the hole filled")
    sender.tsn = (missing + 1 + engine.MAX_OUT_OF_ORDER) & 0xFFFFFFFF
    await check_goes_on(ends, sender)


async def test_channels_and_streams_are_kept_to_a_number(ends: Ends) -> None:
    sender = Sender(ends.near)
    asking = struct.pack("!BBHLHH", 3, 0, 0, 0, 1, 0) + b"x"
    # The near end takes an answer for a channel it knows nothing of for a mistake of its own.
    sender.sctp._data_channel_receive = nothing
    ahead = sender.tsn
    for stream in range(100, 160, 2):
        await sender.send(sender.data(asking, WHOLE, stream, DCEP))
    await until(lambda: ends.far.engine.dropped["chunks"], "channels not opened")
    await until(lambda: _taken(ends, ahead) >= engine.MAX_CHANNELS - 1, "the others opened")
    assert len(far_sctp(ends)._data_channels) == engine.MAX_CHANNELS
    assert len(far_sctp(ends)._inbound_streams) == engine.MAX_CHANNELS
    body = struct.pack("!L", ahead) + b"".join(struct.pack("!HH", n, 1) for n in range(500, 700))
    before = ends.far.engine.dropped["chunks"]
    await sender.send(chunk(FORWARD_TSN, body))
    await until(lambda: ends.far.engine.dropped["chunks"] > before, "no streams made")
    assert len(far_sctp(ends)._inbound_streams) == engine.MAX_CHANNELS
    sender.tsn = (far_sctp(ends)._last_received_tsn + 1) & 0xFFFFFFFF
    await check_goes_on(ends, sender)


async def nothing(*arguments: Any) -> None:
    pass


def _taken(ends: Ends, ahead: int) -> int:
    return int(far_sctp(ends)._last_received_tsn - ahead + 1) & 0xFFFFFFFF


@pytest.mark.parametrize(
    "gaps", [[(1, 65535)] * 250, [(2, 1)], [(0, 3)], [(3, 4), (2, 2)], [(2, 65535)]]
)
async def test_an_acknowledgement_of_what_was_never_sent_is_dropped(
    ends: Ends, gaps: list[tuple[int, int]]
) -> None:
    """250 of the first kind's blocks held the event loop for 0.7 s."""
    sender = Sender(ends.near)
    blocks = b"".join(struct.pack("!HH", *gap) for gap in gaps)
    told = (far_sctp(ends)._local_tsn - 1) & 0xFFFFFFFF
    began = time.thread_time()
    await sender.send(chunk(SACK, struct.pack("!LLHH", told, 1 << 20, len(gaps), 0) + blocks))
    await until(lambda: ends.far.engine.dropped["chunks"] == 1, "the chunk dropped")
    assert time.thread_time() - began < 0.3
    await check_goes_on(ends, sender)


async def test_a_reconfiguration_of_many_parts_is_dropped(ends: Ends) -> None:
    """aiortc answers each, with a datagram of its own."""
    sender = Sender(ends.near)
    # Wishes to close streams that there are none of (RFC 6525 section 4.1).
    part = struct.pack("!HHLLLH", 13, 18, 1, 1, 1, 9999) + bytes(2)
    await sender.send(chunk(RECONFIG, part * (engine.MAX_RECONFIGURATIONS + 1)))
    await until(lambda: ends.far.engine.dropped["chunks"] == 1, "the chunk dropped")
    await sender.send(chunk(RECONFIG, part * engine.MAX_RECONFIGURATIONS))
    await check_goes_on(ends, sender)
    assert ends.far.engine.dropped["chunks"] == 1


def test_right_acknowledgements_are_sound() -> None:
    def sack(*gaps: tuple[int, int]) -> Any:
        made = engine._SackChunk()
        made.gaps = list(gaps)
        return made

    assert engine._is_sound(sack(), 0)
    assert engine._is_sound(sack((2, 2), (4, 9)), 9)
    assert not engine._is_sound(sack((2, 2), (4, 9)), 8)
    # Each number once, in order: else a few blocks name all that was sent a hundred times.
    assert not engine._is_sound(sack((1, 9), (1, 9), (9, 9)), 9)
    assert not engine._is_sound(sack((4, 2), (5, 5)), 9)
    # Everything sent is acknowledged, and something more.
    assert not engine._is_sound(sack(), engine._distance(7, 7) - 1)
    assert not engine._is_sound(sack(), engine._distance(7, 8) - 1)


async def test_a_long_event_goes_out_and_its_acknowledgements_are_no_flood(ends: Ends) -> None:
    text = "x" * 200_000
    for _ in range(15):
        ends.far.send_text(text)
    await until(lambda: ends.near_heard.messages == [text] * 15, "all of them", within=20)
    assert ends.far_heard.lost is None
    assert ends.far.engine.dropped["chunks"] == 0


@pytest.mark.parametrize("sort", ["records", "reports", "checks"])
async def test_datagrams_beyond_their_rate_are_dropped_before_they_are_decrypted(
    ends: Ends, sort: str
) -> None:
    """They do not end the leg: anybody on the way could send them in the far end's name."""
    near, dropped = ends.near, ends.far.engine.dropped
    remote = near.engine.remote or ("", 0)

    def one() -> None:
        if sort == "records":
            near.port.send(b"\x17\xfe\xfd" + os.urandom(60), remote)
        elif sort == "reports":
            sent = rtcp.compound(near.sending, None, "x", time.monotonic(), time.time())
            near.engine.send_rtcp(sent)
        else:
            near.engine.check()

    began = time.monotonic()
    count = {"records": 7000, "reports": 800, "checks": 800}[sort]
    for number in range(count):
        one()
        if number % 20 == 0:
            await asyncio.sleep(0)
    per_second, at_once = {
        "records": (flood.RECORDS_PER_SECOND, flood.RECORDS_AT_ONCE),
        "reports": (flood.REPORTS_PER_SECOND, flood.REPORTS_AT_ONCE),
        "checks": (flood.CHECKS_PER_SECOND, flood.CHECKS_AT_ONCE),
    }[sort]

    def most_dropped() -> bool:
        # Others of these sorts come by themselves, a few a second.
        refilled = (time.monotonic() - began + 0.5) * per_second
        return dropped["too_fast"] > max(100, count - at_once - refilled - 20)

    await until(most_dropped, "all beyond the rate dropped")
    assert ends.far.port.dropped["too_fast"] == dropped["too_fast"]
    assert ends.far_heard.lost is None


@pytest.mark.parametrize("payload_type", [None, 13], ids=["audio", "of another type"])
async def test_a_flood_of_audio_ends_the_leg(ends: Ends, payload_type: int | None) -> None:
    ends.near.payload_type = payload_type or ends.near.payload_type
    sequence = 0
    while not ends.far_heard.lost:
        for _ in range(20):
            sequence += 1
            ends.near.send_audio(sequence, sequence * 960, b"x")
        assert sequence < 100_000, "heard for ever"
        await asyncio.sleep(0.001)
    assert ends.far_heard.lost == "flood of audio"
    assert ends.far.flood is Flood.AUDIO
    assert sequence > flood.PACKETS_AT_ONCE


async def test_a_far_end_without_a_budget_is_trusted() -> None:
    """The voice service sends what it likes: a retrieved item is thousands of chunks."""
    async with connected() as ends:
        sender = Sender(ends.near)
        for _ in range(150):
            await sender.send(*[sender.data(b"x") for _ in range(20)])
            await asyncio.sleep(0)
        await until(lambda: len(ends.far_heard.messages) == 3000, "all of them")
        assert ends.far_heard.lost is None
