"""Clients of the WebSocket that keep to no rule: raw connections, which no library tames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from interview_peer.app import Server
from interview_peer.web import limits
from interview_peer.web.http import READ_BYTES, Connection
from tests.support.caller import calling
from tests.support.inprocess import live, serving
from tests.support.raw_socket import (
    BEGUN,
    CLOSE,
    CONTINUED,
    FRAGMENT,
    PING,
    PONG,
    TEXT,
    Raw,
    raw,
)
from tests.support.waiting import eventually


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that counts what a socket sends."""
    async with serving(tmp_path, messages_per_second=10) as server:
        yield server


async def refused(server: Server) -> int:
    async with calling(server.url) as caller:
        told: int = (await caller.get("/healthz")).json()["refused"]["messages"]
        return told


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the server read, each time that it did."""
    found: list[int] = []
    real = Connection.data_received

    def data_received(self: Connection, data: bytes) -> None:
        found.append(len(data))
        real(self, data)

    monkeypatch.setattr(Connection, "data_received", data_received)
    return found


async def last_words(client: Raw) -> tuple[str | None, bytes]:
    """The code of what it is told, and how it is closed."""
    told = None
    while (got := await client.frame())[0] != CLOSE:
        if got[0] != PONG:
            told = json.loads(got[1])["code"]
    return told, got[1]


async def test_a_ping_is_answered_with_what_it_holds(strict: Server) -> None:
    async with raw(strict) as client:
        client.writer.write(b"\x89\x83\0\0\0\0abc")
        assert await client.frame() == (PONG, b"abc")


@pytest.mark.parametrize("frame", [PING, b"\x8a\x80\0\0\0\0", TEXT], ids=["ping", "pong", "text"])
async def test_frames_of_every_kind_count_and_whoever_floods_is_told_and_cut_off(
    strict: Server, frame: bytes
) -> None:
    async with raw(strict) as client:
        client.writer.write(frame * 3000)
        answered, told = 0, None
        while (got := await client.frame())[0] != CLOSE:
            if got[0] == PONG:
                answered += 1
            else:
                told = json.loads(got[1])["code"]
        assert told == "RATE_LIMITED"
        assert got[1] == struct.pack("!H", 1008)
        assert answered <= 60
    assert await refused(strict) == 1


@pytest.mark.parametrize("frame", [CONTINUED, FRAGMENT], ids=["continuation", "fragment"])
async def test_frames_that_never_become_a_message_count_by_their_bytes(
    strict: Server, taken: list[int], frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it takes here, no more may be sent meanwhile.
    monkeypatch.setattr(limits, "REFILL_SECONDS", 1e6)
    monkeypatch.setattr(limits, "MESSAGE_BYTES", 0)
    async with raw(strict) as client:
        # More than a message may have, at once; the rest is not read.
        client.writer.write(BEGUN + frame * 500_000)
        assert await last_words(client) == ("RATE_LIMITED", struct.pack("!H", 1008))
        with contextlib.suppress(ConnectionError):
            assert await client.reader.read() == b""
        assert sum(taken) <= 512 * 1024 + 2 * READ_BYTES
    assert max(taken) <= READ_BYTES
    assert await refused(strict) == 1


async def test_without_a_token_a_socket_may_send_a_few_kilobytes(
    tmp_path: Path, taken: list[int]
) -> None:
    strangers = live(
        "http://127.0.0.1:9/v1", join_secret="a-join-secret-of-more-than-32-characters"
    )
    strangers |= {"allow_anonymous": False, "messages_per_second": 20}
    async with serving(tmp_path, **strangers) as server:
        async with raw(server, greeted=False) as client:
            client.writer.write(BEGUN + CONTINUED * 100_000)
            assert await last_words(client) == ("RATE_LIMITED", struct.pack("!H", 1008))
            assert sum(taken) <= 32 * 1024 + 2 * READ_BYTES
        assert await refused(server) == 1


async def test_the_longest_messages_are_taken_at_the_pace_of_messages(strict: Server) -> None:
    text = json.dumps({"type": "sdp_offer", "offer": "x" * 60_000}).encode()
    head = b"\x81\xfe" + len(text).to_bytes(2) + bytes(4)
    async with raw(strict) as client:
        for _ in range(7):
            client.writer.write(head + text)
            assert json.loads((await client.frame())[1])["reason"] == "INVALID_SDP"
    assert await refused(strict) == 0


async def test_nothing_more_is_read_of_whoever_was_cut_off_and_it_is_gone_at_once(
    strict: Server,
) -> None:
    async with raw(strict) as client:
        client.writer.write(PING * 3000)
        while (await client.frame())[0] != CLOSE:
            pass
        # It does not answer that, and goes on sending.
        since = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - since < 8:
                client.writer.write(PING * 1000)
                await client.writer.drain()
                await asyncio.sleep(0.02)
        assert time.monotonic() - since < 3


async def test_a_client_that_goes_while_it_is_answered_leaves_no_traceback(
    strict: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    for _ in range(5):
        async with raw(strict) as client:
            line = client.writer.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.write(PING * 20)

    async def open_sockets() -> int:
        return sum("Signalling" in str(task.get_coro()) for task in asyncio.all_tasks())

    await eventually(open_sockets, within=5, what="all gone", good=lambda count: not count)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_newest_sockets_of_an_interview_end_the_oldest_which_is_told_so(
    strict: Server,
) -> None:
    async with contextlib.AsyncExitStack() as stack, calling(strict.url) as caller:
        await caller.open()
        path = f"/ws/{caller.session_id}"
        others = [await stack.enter_async_context(raw(strict, path)) for _ in range(3)]
        for one in others:
            one.writer.write(PING)
            assert (await one.frame())[0] == PONG
        newest = await stack.enter_async_context(raw(strict, path))
        assert (await caller.message("error"))["code"] == "SOCKET_REPLACED"
        await caller.socket_closed()
        for one in (*others, newest):
            one.writer.write(PING)
            assert (await one.frame())[0] == PONG


async def test_sockets_leave_places_for_other_requests(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tmp_path, max_connections=10))
        for _ in range(9):
            await stack.enter_async_context(raw(server))
        for _ in range(3):
            async with calling(server.url) as caller:
                assert (await caller.get("/health")).status == 200
                asked = {"Connection": "Upgrade", "Upgrade": "websocket"}
                key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
                reply = await caller.get("/ws", headers={**asked, **key})
                assert (reply.status, reply.json()["error"]["code"]) == (503, "AT_CAPACITY")


async def kept_of(server: Server, count: int) -> int:
    """How many of so many new connections stay open."""
    place = urlsplit(server.url)
    ends = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(count)]
    request = f"GET /health HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()
    kept = 0
    for reader, writer in ends:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            kept += (await reader.read(12)).startswith(b"HTTP/1.1 200")
    for _, writer in ends:
        writer.transport.abort()
    return kept


@pytest.mark.parametrize(("trusted", "kept"), [((), 5), (("127.0.0.0/8",), 8)])
async def test_an_address_has_so_many_connections_and_a_trusted_proxy_any(
    tmp_path: Path, trusted: tuple[str, ...], kept: int
) -> None:
    async with serving(
        tmp_path, connections_per_address=5, max_connections=100, trusted_proxies=trusted
    ) as server:
        assert await kept_of(server, 8) == kept

        async def again() -> int:
            return await kept_of(server, 5)

        # Those that were closed are not counted any longer.
        await eventually(again, within=5, what="room again", good=lambda count: count == 5)
