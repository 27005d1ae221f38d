"""What of aiortc's SCTP is mended: parameters without length, lost beginnings, large messages."""

from __future__ import annotations

import asyncio
import gc
import random
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import aiortc.rtcsctptransport
import google_crc32c
import pytest

from interview_peer.media import engine
from interview_peer.media.leg import Leg
from tests.media.legs import Ends, connected, until

HEARTBEAT, HEARTBEAT_ACK, ABORT, ERROR, RECONFIG, INIT, SACK = 4, 5, 6, 9, 130, 1, 3
ZERO_LENGTH = struct.pack("!HH", 1, 0)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with connected() as ends:
        yield ends


async def send_chunk(leg: Leg, kind: int, body: bytes) -> None:
    """Put one chunk into ``leg``'s own established association, checksum and tag right."""
    sctp = leg.engine.pc.sctp
    assert sctp is not None
    tag = 0 if kind == INIT else sctp._remote_verification_tag
    chunk = struct.pack("!BBH", kind, 0, 4 + len(body)) + body
    head = struct.pack("!HHL", sctp._local_port, sctp._remote_port, tag)
    data = head + bytes(4) + chunk + bytes(-len(chunk) % 4)
    checksum = struct.pack("<L", google_crc32c.value(data))
    await sctp.transport._send_data(data[:8] + checksum + data[12:])


async def test_what_waits_for_a_connection_that_was_closed_is_no_error(ends: Ends) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context)))
    sctp = ends.near.engine.pc.sctp
    assert sctp is not None and sctp.transport._ssl is not None
    sctp.transport._ssl.shutdown()
    before = asyncio.all_tasks()
    ends.near.send_text("lost")
    # As its timer does when nothing was acknowledged.
    sctp._t3_expired()
    begun = asyncio.all_tasks() - before
    assert len(begun) == 2
    await asyncio.wait(begun)
    begun.clear()
    gc.collect()
    assert told == []


@pytest.mark.timeout(15)
@pytest.mark.parametrize("kind", [HEARTBEAT, HEARTBEAT_ACK, ABORT, ERROR, RECONFIG, INIT])
async def test_parameter_of_length_zero_from_a_connected_peer_is_passed_over(
    kind: int, ends: Ends
) -> None:
    body = bytes(16) + ZERO_LENGTH if kind == INIT else ZERO_LENGTH
    await send_chunk(ends.near, kind, body)
    # The event loop that reads it still turns, and the association goes on.
    ends.near.send_text("after")
    await until(lambda: ends.far_heard.messages, "a message behind the packet", within=5)
    assert ends.far_heard.messages == ["after"]
    assert ends.far_heard.lost is None


async def test_right_parameter_still_is_answered(ends: Ends) -> None:
    """The packets above reach the parser: one with a right length gets its answer."""
    received: list[bytes] = []
    sctp = ends.near.engine.pc.sctp
    assert sctp is not None
    handle = sctp._handle_data

    async def keep(data: bytes) -> None:
        received.append(data)
        await handle(data)

    sctp._handle_data = keep  # type: ignore[method-assign]
    await send_chunk(ends.near, HEARTBEAT, struct.pack("!HH4s", 1, 8, b"ping"))
    await until(lambda: [data for data in received if data[12] == HEARTBEAT_ACK], "the answer")
    assert any(b"ping" in data for data in received)


async def test_chunk_cut_short_is_dropped_and_the_connection_stays(ends: Ends) -> None:
    await send_chunk(ends.near, SACK, b"\0\0")
    ends.near.send_text("after")
    await until(lambda: ends.far_heard.messages, "the next message", within=5)
    assert ends.far_heard.messages == ["after"]
    assert ends.far_heard.lost is None


# -- the parser -----------------------------------------------------------------------------------


def encoded(*parameters: tuple[int, bytes]) -> bytes:
    return aiortc.rtcsctptransport.encode_params(list(parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        [(7, b"")],
        [(7, b"abcd")],
        [(7, b"a"), (8, b"bc"), (9, b"def"), (10, b"ghij")],
        [(0xC000, b""), (0x8008, b"\x82\xc0")],
        [(1, bytes(60_000))],
    ],
)
def test_right_parameters_are_read_as_aiortc_writes_them(
    parameters: list[tuple[int, bytes]],
) -> None:
    assert engine._decode_params(encoded(*parameters)) == parameters


@pytest.mark.timeout(5)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 9, 0xFFFF])
@pytest.mark.parametrize("before", [b"", encoded((7, b"abcd"))])
def test_length_that_does_not_advance_or_leads_out_is_an_error(length: int, before: bytes) -> None:
    with pytest.raises(ValueError, match="impossible length"):
        engine._decode_params(before + struct.pack("!HH", 1, length) + b"abcd")


@pytest.mark.parametrize("rest", [b"", b"\0", b"\0\0", b"\0\0\0"])
def test_padding_behind_the_last_parameter_is_no_parameter(rest: bytes) -> None:
    assert engine._decode_params(encoded((7, b"abcd")) + rest) == [(7, b"abcd")]


def test_guard_is_in_place_wherever_aiortc_looks_for_its_parser() -> None:
    engine.guard_sctp()
    assert aiortc.rtcsctptransport.decode_params is engine._decode_params
    chunk = aiortc.rtcsctptransport.HeartbeatChunk
    assert chunk(body=encoded((1, b"ping"))).params == [(1, b"ping")]
    with pytest.raises(ValueError, match="impossible length"):
        chunk(body=ZERO_LENGTH)


async def test_channel_opens_though_both_ends_lose_the_answers_to_their_beginnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Takes the 3 s after which SCTP begins again."""
    transport: Any = aiortc.rtcsctptransport.RTCSctpTransport
    send, lost = transport._send_chunk, list[object]()

    async def lossy(self: Any, chunk: Any) -> None:
        if isinstance(chunk, aiortc.rtcsctptransport.InitAckChunk) and self not in lost:
            lost.append(self)
        else:
            await send(self, chunk)

    monkeypatch.setattr(transport, "_send_chunk", lossy)
    async with connected() as ends:
        assert len(lost) == 2
        ends.near.send_text("after")
        await until(lambda: ends.far_heard.messages == ["after"], "a message")


def fragments(sizes: list[int], first: int) -> list[Any]:
    """The chunks of messages of so many fragments each, on one ordered stream."""
    chunks: list[Any] = []
    for sequence, size in enumerate(sizes):
        for number in range(size):
            chunk = aiortc.rtcsctptransport.DataChunk()
            chunk.flags = (number == 0) * 2 + (number == size - 1)
            chunk.tsn = (first + len(chunks)) & 0xFFFFFFFF
            chunk.stream_seq = sequence
            chunk.protocol = 51
            chunk.user_data = b"%d.%d " % (sequence, number)
            chunks.append(chunk)
    return chunks


def reassembled(stream: Any, chunks: list[Any]) -> list[bytes]:
    messages: list[bytes] = []
    for chunk in chunks:
        stream.add_chunk(chunk)
        messages += [data for _, _, data in stream.pop_messages()]
    return messages


ORIGINAL: Any = engine._InboundStream.__mro__[1]


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_whole_and_in_order_however_their_fragments_do(seed: int) -> None:
    chance = random.Random(seed)
    chunks = fragments([chance.randrange(1, 9) for _ in range(12)], 0xFFFFFFF0)
    whole = reassembled(ORIGINAL(), chunks)
    assert len(whole) == 12
    for place in range(len(chunks) - 1, 0, -1):
        # Some come early, some late, most as they were sent.
        if chance.random() < 0.4:
            other = max(0, place - chance.randrange(1, 6))
            chunks[place], chunks[other] = chunks[other], chunks[place]
    stream = engine._InboundStream()
    assert reassembled(stream, chunks) == whole
    assert stream.reassembly == []


def test_large_message_is_put_together_without_looking_through_it_at_every_fragment() -> None:
    chunks = fragments([2500], 7)

    def cost(stream: Any) -> float:
        began = time.process_time()
        (message,) = reassembled(stream, chunks)
        assert message.startswith(b"0.0 0.1 ") and message.endswith(b" 0.2499 ")
        return time.process_time() - began

    assert cost(engine._InboundStream()) < cost(ORIGINAL()) / 5
