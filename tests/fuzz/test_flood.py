"""Ten thousand datagrams that authenticate nothing: no answer, no log, no memory; calls go on."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
import tracemalloc

import pytest

from interview_peer.media.udp import UdpPort
from tests.media.legs import connected, packets_of, until
from tests.media.strays import Credentials, strays

from .test_datagrams import mangled

COUNT = 10_000
SENDERS = 40
BATCH = 50
"""Datagrams between two looks: few enough for the socket's buffer."""


@pytest.mark.parametrize("use_native", [False, True], ids=["Python", "native"])
async def test_a_flood_is_not_answered_not_logged_and_not_remembered(
    use_native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    port = await UdpPort.open("127.0.0.1", use_native=use_native)
    chance = random.Random(7)
    # Sources that were never heard of, as forged ones are.
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SENDERS)]
    for number, sender in enumerate(senders):
        sender.bind((f"127.0.{number // 8}.{number % 8 + 2}", 0))
        sender.setblocking(False)
    async with connected(far_port=port) as ends:
        heard = packets_of(ends.far)
        theirs = Credentials(ends.far.engine.ufrag, "p" * 22)
        shapes = list(strays(theirs, Credentials(ends.near.engine.ufrag, "")).values())

        async def throw(count: int) -> None:
            for number in range(count):
                data = mangled(chance.choice(shapes), chance)[:1400]
                senders[number % SENDERS].sendto(data, port.address)
                if number % BATCH == 0:
                    await asyncio.sleep(0)

        caplog.set_level(logging.DEBUG)
        await throw(1000)
        gc.collect()
        tables = [len(one) for one in vars(port).values() if isinstance(one, dict)]
        caplog.clear()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await throw(COUNT)
            ends.near.send_audio(1, 960, b"still here")
            await until(lambda: heard, "audio through the flood")
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [packet[12:] for packet in heard] == [b"still here"]
        assert sum(port.dropped.values()) > COUNT // 2, port.dropped
        answers = 0
        for sender in senders:
            try:
                answers += len(sender.recv(2048))
            except BlockingIOError:
                continue
        assert answers == 0, "bytes sent to strangers"
        # How often the two ends check each other meanwhile is the machine's business; both are
        # 127.0.0.1, which no stranger is.
        said = [record.getMessage() for record in caplog.records]
        of_strangers = [line for line in said if "('127.0.0.1'," not in line]
        assert len(of_strangers) <= 10, of_strangers[:10]
        assert [len(one) for one in vars(port).values() if isinstance(one, dict)] == tables
        # The kept audio and the test's own list; a table of packets would take megabytes.
        assert after - before < 200_000, after - before
    for sender in senders:
        sender.close()
    port.close()
