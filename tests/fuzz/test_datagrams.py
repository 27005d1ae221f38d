"""Odd datagrams thrown at a port with a live leg: by strangers, and by a connected peer.

Seeded and bounded in time: each test stops after some rounds or about three seconds.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import pytest
from aioice import stun

from interview_peer.core import rtcp
from interview_peer.media.engine import MAX_STREAMS
from interview_peer.media.forwarder import Forwarder
from interview_peer.media.udp import UdpPort
from tests.media.legs import Ends, connected, packets_of, until
from tests.media.rtp import OPUS, rtp
from tests.media.strays import Credentials, Stranger, check, strays

ROUNDS = 4000
SECONDS = 3.0
BATCH = 20
"""Datagrams between two looks: few enough for the socket's buffer."""


@dataclass
class Target:
    """A browser and a model on two legs of ours, and what must not happen."""

    browser: Ends
    model: Ends
    port: UdpPort
    stranger: Stranger
    heard: list[bytes]
    unheard: list[dict[str, Any]] = field(default_factory=list)
    """What reached the event loop's exception handler."""
    sequence: int = 0

    async def forwards(self) -> None:
        """One packet of the browser's must still arrive at the model."""
        assert self.browser.far_heard.lost is None, "the leg is up"
        self.sequence += 1
        payload = b"proof %d" % self.sequence
        self.browser.near.send_audio(20_000 + self.sequence, self.sequence * 960, payload)
        await until(
            lambda: any(packet.endswith(payload) for packet in self.heard[-50:]),
            f"the proof, {self.sequence}",
        )

    def from_browser(self, data: bytes) -> None:
        """Send a datagram from the browser's own, verified address."""
        self.browser.near.port.send(data, self.port.address)


@pytest.fixture
async def target(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Target]:
    port = await UdpPort.open("127.0.0.1")
    stranger = Stranger()
    loop = asyncio.get_running_loop()
    caplog.set_level("INFO")
    async with connected(far_port=port) as browser, connected(dtls_server=False) as model:
        forwarder = Forwarder()
        forwarder.connect(browser.far, model.near)
        target = Target(browser, model, port, stranger, packets_of(model.far))
        loop.set_exception_handler(lambda _, context: target.unheard.append(context))
        await target.forwards()
        # A fuzzed stream of the same SSRC must not push the proofs out of their window.
        caplog.clear()
        yield target
        assert target.unheard == []
        assert len(caplog.records) <= 3, [record.getMessage() for record in caplog.records[:5]]
    loop.set_exception_handler(None)
    stranger.close()
    port.close()


async def throw(target: Target, seed: int, one: Callable[[random.Random], None]) -> int:
    """Throw datagrams in batches, and see between them that audio still flows."""
    chance = random.Random(seed)
    deadline, rounds = time.monotonic() + SECONDS, 0
    while rounds < ROUNDS and time.monotonic() < deadline:
        for _ in range(BATCH):
            one(chance)
        rounds += BATCH
        await asyncio.sleep(0)
        if rounds % (20 * BATCH) == 0:
            await target.forwards()
    await target.forwards()
    return rounds


def mangled(data: bytes, chance: random.Random) -> bytes:
    """A datagram with a few bytes changed, cut out, put in, or an end cut off."""
    bent = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        if not bent:
            break
        place, action = chance.randrange(len(bent)), chance.randrange(10)
        if action < 6:
            bent[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif action < 7:
            del bent[place : place + chance.randrange(1, 9)]
        elif action < 8:
            bent[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif action < 9:
            del bent[place:]
        else:
            bent += chance.randbytes(chance.randrange(1, 60))
    return bytes(bent)


def credentials(target: Target) -> tuple[Credentials, Credentials]:
    far, near = target.browser.far.engine, target.browser.near.engine
    return (
        Credentials(far.ufrag, far._ice.local_password),
        Credentials(near.ufrag, near._ice.local_password),
    )


# -- strangers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
async def test_strangers_bytes_are_dropped_unanswered(seed: int, target: Target) -> None:
    theirs, ours = credentials(target)
    shapes = list(strays(Credentials(theirs.ufrag, "p" * 22), ours).values())

    def one(chance: random.Random) -> None:
        if chance.random() < 0.3:
            data = chance.randbytes(chance.randrange(0, 1500))
        else:
            data = mangled(chance.choice(shapes), chance)[:1500]
        target.stranger.send(data, target.port.address)

    assert await throw(target, seed, one) > 200
    assert target.stranger.received == []
    assert sum(target.port.dropped.values()) > 100


async def test_strangers_copies_of_the_stream_are_dropped_unanswered(target: Target) -> None:
    ssrc = target.browser.near.engine.ssrc

    def one(chance: random.Random) -> None:
        packet = rtp(chance.randrange(1 << 16), 0, chance.randbytes(90), ssrc=ssrc)
        target.stranger.send(packet, target.port.address)

    assert await throw(target, 3, one) > 200
    assert target.stranger.received == []
    assert target.browser.far.engine.remote == target.browser.near.port.address


# -- the peer's own address -----------------------------------------------------------------------


@pytest.mark.parametrize("first", [(0, 4), (20, 64), (128, 192), (0, 256)])
async def test_random_bytes_from_the_peers_address_leave_the_leg_up(
    first: tuple[int, int], target: Target
) -> None:
    def one(chance: random.Random) -> None:
        data = bytearray(chance.randbytes(chance.randrange(1, 300)))
        data[0] = chance.randrange(*first)
        target.from_browser(bytes(data))

    assert await throw(target, first[0], one) > 200


async def test_odd_dtls_records_from_the_peers_address_leave_the_leg_up(target: Target) -> None:
    def one(chance: random.Random) -> None:
        body = chance.randbytes(chance.randrange(0, 120))
        record = struct.pack(
            "!BHHHIH",
            chance.choice([20, 21, 22, 23, 24, 25, 63]),
            chance.choice([0xFEFD, 0xFEFF, 0xFEFC, 0x0303]),
            chance.choice([0, 0, 1, 1, 2, 0xFFFF]),
            0,
            chance.randrange(1 << 16),
            chance.choice([len(body), len(body), len(body) + 1, 0, 0xFFFF]),
        )
        target.from_browser(record + body)

    assert await throw(target, 5, one) > 200


@pytest.mark.parametrize("resigned", [True, False])
async def test_odd_checks_of_the_peer_leave_the_leg_up(resigned: bool, target: Target) -> None:
    theirs, ours = credentials(target)

    def change(message: stun.Message, chance: random.Random) -> None:
        for name in list(message.attributes):
            if chance.random() < 0.2:
                del message.attributes[name]
        if chance.random() < 0.5:
            message.attributes["USE-CANDIDATE"] = None
        if chance.random() < 0.3:
            message.attributes["ICE-CONTROLLED"] = chance.randrange(1 << 64)
        if chance.random() < 0.1:
            message.attributes["ICE-CONTROLLING"] = chance.randrange(1 << 64)

    def one(chance: random.Random) -> None:
        data = check(theirs, ours, change=lambda message: change(message, chance))
        if not resigned:
            data = mangled(data, chance)
        if chance.random() < 0.2:
            target.stranger.send(data, target.port.address)
        else:
            target.from_browser(data)

    assert await throw(target, 6, one) > 200


# -- what the peer encrypts -----------------------------------------------------------------------


async def test_odd_packets_that_authenticate_leave_the_leg_up(target: Target) -> None:
    engine = target.browser.near.engine

    def one(chance: random.Random) -> None:
        packet = rtp(
            chance.randrange(1 << 16),
            chance.randrange(1 << 32),
            chance.randbytes(chance.randrange(0, 60)),
            # Few, for each new one makes libsrtp keep a context.
            ssrc=chance.randrange(1, 8),
            payload_type=chance.choice([OPUS, OPUS, OPUS, 13, 63]),
            marker=chance.random() < 0.1,
            csrcs=tuple(range(chance.choice([0, 0, 1, 15]))),
            extension=chance.choice([None, b"", bytes(8)]),
            padding=chance.choice([0, 0, 1, 200]),
        )
        bent = bytearray(packet)
        for place in (0, len(bent) - 1):
            if chance.random() < 0.3:
                bent[place] ^= 1 << chance.randrange(6)
        engine.send_rtp(bytes(bent))

    assert await throw(target, 8, one) > 200


async def test_streams_without_number_do_not_make_each_packet_dearer(target: Target) -> None:
    engine, far = target.browser.near.engine, target.browser.far.engine

    def one(chance: random.Random) -> None:
        ssrc = chance.randrange(1 << 32)
        if chance.random() < 0.5:
            engine.send_rtp(rtp(1, 0, b"x", ssrc=ssrc))
        else:
            engine.send_rtcp(rtcp.compound(rtcp.Sending(ssrc), None, "x", 1.0, 1e9))

    rounds = await throw(target, 12, one)
    assert rounds > 200
    assert far.dropped["streams"] > rounds - 2 * MAX_STREAMS
    assert target.port.dropped == {}


async def test_odd_reports_that_authenticate_leave_the_leg_up(target: Target) -> None:
    near = target.browser.near
    block = struct.pack("!IIIIII", target.browser.far.engine.ssrc, 0, 0, 0, 0, 0)
    whole = rtcp.compound(rtcp.Sending(near.engine.ssrc, packets=1), block, "x", 1.0, 1e9)

    def one(chance: random.Random) -> None:
        data = mangled(whole, chance)
        if len(data) >= 8:
            near.engine.send_rtcp(bytes([0x80 | data[0] & 0x3F, 200 + data[1] % 8]) + data[2:])

    assert await throw(target, 9, one) > 200
    loss = target.browser.far.sending.heard
    assert loss is None or 0 <= loss.fraction_lost <= 1


def chunks(chance: random.Random, tsn: int) -> Iterator[bytes]:
    """SCTP chunks, some right, most odd."""
    for _ in range(chance.randrange(1, 4)):
        kind = chance.choice([0, 3, 4, 5, 9, 10, 11, 14, 130, 192, chance.randrange(256)])
        body = bytearray(chance.randbytes(chance.randrange(0, 60)))
        if kind in (0, 3, 192) and len(body) >= 4 and chance.random() < 0.5:
            body[:4] = struct.pack("!L", (tsn + chance.randrange(-3, 4)) & 0xFFFFFFFF)
        if kind in (4, 5, 9, 130) and len(body) >= 4:
            body[:4] = struct.pack("!HH", chance.randrange(20), chance.choice([0, 4, len(body)]))
        length = len(body) + 4 if chance.random() < 0.8 else chance.randrange(1 << 16)
        yield struct.pack("!BBH", kind, chance.randrange(8), length) + body + bytes(-len(body) % 4)


@pytest.mark.parametrize("right_checksum", [False, True])
async def test_odd_sctp_of_a_connected_peer_stops_nothing_but_its_own_leg(
    right_checksum: bool, target: Target
) -> None:
    near, far = target.browser.near, target.browser.far
    sctp = near.engine.pc.sctp
    assert sctp is not None
    chance = random.Random(10)
    deadline, rounds = time.monotonic() + SECONDS, 0
    lost = False
    while rounds < 1500 and time.monotonic() < deadline and not lost:
        for _ in range(5):
            tag = sctp._remote_verification_tag
            data = struct.pack("!HHL", sctp._local_port, sctp._remote_port, tag) + bytes(4)
            data += b"".join(chunks(chance, sctp._local_tsn))
            if right_checksum:
                data = data[:8] + struct.pack("<L", google_crc32c.value(data)) + data[12:]
            await sctp.transport._send_data(data[:1180])
            rounds += 1
        await asyncio.sleep(0)
        lost = far.lost
    if not right_checksum:
        await target.forwards()
        assert rounds > 100
    # Whatever became of that leg, the process and the other interview go on.
    target.model.far.send_text("still here")
    await until(lambda: target.model.near_heard.messages, "the neighbour's event")
    if not lost:
        await target.forwards()
