"""How often and how much one may ask: beyond it a clear refusal, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from interview_peer.app import Server
from interview_peer.core.allowance import Bucket
from interview_peer.errors import RateLimited, SdpTooLarge
from interview_peer.settings import Settings
from interview_peer.types import Json
from interview_peer.web import limits as limits_module
from interview_peer.web.delivery import BEHIND_SECONDS, READER_SECONDS, Delivery
from interview_peer.web.http import READ_BYTES
from interview_peer.web.limits import Limits
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

SHORT = 0.4
"""Seconds that a request may take here."""


def limits(**settings: Any) -> Limits:
    return Limits(Settings(simulation=True, **settings))


# -- the rules


def allowed(rules: Limits, *offers: tuple[str, str]) -> list[bool]:
    found = []
    for address, interview in offers:
        try:
            rules.offer(address, "v=0")
            rules.offer_for(interview)
        except RateLimited:
            found.append(False)
        else:
            found.append(True)
    return found


def test_an_address_has_its_own_number_of_offers_whatever_they_are_for() -> None:
    rules = limits(offers_per_minute=2, offers_per_interview=9)
    asked = [("192.0.2.1", "a"), ("192.0.2.1", "b"), ("192.0.2.1", "c"), ("192.0.2.2", "c")]
    assert allowed(rules, *asked) == [True, True, False, True]
    assert rules.statistics()["offers"] == 1


def test_an_interview_has_its_own_number_of_offers_wherever_they_come_from() -> None:
    rules = limits(offers_per_minute=9, offers_per_interview=2)
    asked = [(f"192.0.2.{n}", "a") for n in range(3)] + [("192.0.2.9", "b")]
    assert allowed(rules, *asked) == [True, True, False, True]


def test_zero_counts_nothing() -> None:
    rules = limits(offers_per_minute=0, offers_per_interview=0, messages_per_second=0)
    assert all(allowed(rules, *([("192.0.2.1", "a")] * 500)))
    pace = rules.messages()
    for _ in range(10_000):
        pace.take()


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    rules = limits(offers_per_minute=2)
    asked = [(f"2001:db8::{n}", str(n)) for n in range(3)]
    assert allowed(rules, *asked) == [True, True, False]


def test_a_flood_from_everywhere_fills_no_memory() -> None:
    rules = limits()
    for n in range(25_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        rules.request(address)
        rules.offer(address, "v=0")
        rules.offer_for(str(n))
    assert rules._requests is not None and len(rules._requests) <= 10_000
    assert rules._offers is not None and len(rules._offers) <= 10_000
    assert rules._offers_of_one is not None and len(rules._offers_of_one) <= 10_000


def test_the_operators_limit_for_an_offer_holds() -> None:
    rules = limits(max_sdp_kb=4)
    rules.offer("192.0.2.1", "v=0" + "x" * 4093)
    with pytest.raises(SdpTooLarge):
        rules.offer("192.0.2.1", "v=0" + "x" * 4094)


# -- over HTTP and on the socket


async def refused(caller: Caller) -> Json:
    reply = await caller.get("/healthz")
    told: Json = reply.json()["refused"]
    return told


async def test_offers_beyond_the_number_get_429_in_each_form(tmp_path: Path) -> None:
    async with serving(tmp_path, offers_per_minute=1) as server, calling(server.url) as caller:
        await caller.connect_by_http()
        offer = await caller.offer()
        flat = await caller.post("/api/sdp-exchange", json={"sdpOffer": offer})
        assert (flat.status, flat.json()["code"]) == (429, "RATE_LIMITED")
        own = await caller.post(
            "/v1/realtime/calls", data=offer, headers={"Content-Type": "application/sdp"}
        )
        assert (own.status, own.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        for reply in (flat, own):
            assert int(reply.headers["retry-after"]) > 0
        await caller.open()
        await caller.send({"type": "sdp_offer", "offer": offer})
        assert await caller.refusal() == "RATE_LIMITED"
        assert (await refused(caller))["offers"] == 3
        # Nothing was begun, and nothing stays of those that were refused.
        assert server.interviews.running <= 1
        # The one that runs, and the one that was greeted.
        assert len(server.interviews) == 2


async def test_requests_of_every_sort_wait_for_their_turn_and_few_of_them_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ("/", "/i/one", "/static/app.css", "/nothing", "/api/interviews") * 12
    async with (
        serving(tmp_path, requests_per_second=40) as server,
        calling(server.url) as caller,
    ):
        began = time.monotonic()
        replies = await asyncio.gather(*(caller.get(path) for path in paths))
        # None is refused, and the last twenty had to wait, each 25 ms longer.
        assert {reply.status for reply in replies} == {200, 404}
        assert time.monotonic() - began > 20 / 40 * 0.9
    monkeypatch.setattr(limits_module, "TURN_SECONDS", 0.0)
    async with (
        serving(tmp_path, requests_per_second=1) as server,
        calling(server.url) as caller,
    ):
        replies = await asyncio.gather(*(caller.get("/health") for _ in range(20)))
        refused = [reply for reply in replies if reply.status != 200]
        assert refused
        for reply in refused:
            assert (reply.status, reply.json()["error"]["code"]) == (429, "RATE_LIMITED")
            assert int(reply.headers["retry-after"]) > 0


async def _waiting() -> int:
    return sum("Connection._handle_request" in repr(task) for task in asyncio.all_tasks())


async def test_probes_have_turns_of_their_own(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, requests_per_second=1) as server,
        calling(server.url) as caller,
        calling(server.url) as probe,
    ):
        asking = [asyncio.create_task(caller.get("/"), name="page") for _ in range(4)]
        await eventually(_waiting, within=5, what="they wait", good=lambda count: count >= 3)
        assert (await probe.get("/health")).status == 200
        assert not all(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def test_who_leaves_while_waiting_for_a_turn_costs_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, requests_per_second=2) as server:
        post = b"POST /api/sdp-exchange HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        upgrade = (
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        lines = [await connect(server) for _ in range(6)]
        for (_, writer), wish in zip(lines, [post, upgrade] * 3, strict=True):
            writer.write(wish)

        await eventually(_waiting, within=5, what="they wait", good=lambda count: count >= 3)
        for _, writer in lines:
            writer.close()
        await eventually(_waiting, within=10, what="all over", good=lambda count: count == 0)
        assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


async def test_sockets_beyond_the_number_get_429_instead_of_a_socket(tmp_path: Path) -> None:
    async with serving(tmp_path, sockets_per_minute=2) as server, calling(server.url) as caller:
        for _ in range(2):
            await caller.open()
            await caller.leave()
        asked = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        reply = await caller.get("/ws", headers=asked)
        assert (reply.status, reply.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert int(reply.headers["retry-after"]) > 0
        assert (await refused(caller))["sockets"] == 1


async def test_consents_beyond_the_number_get_429_as_sockets_do(tmp_path: Path) -> None:
    async with serving(tmp_path, sockets_per_minute=1) as server, calling(server.url) as caller:
        first = await caller.post("/api/consent/first", json={"agreed": True, "version": "1"})
        assert first.status != 429
        second = await caller.post("/api/consent/second", json={"agreed": True, "version": "1"})
        assert (second.status, second.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert len(server.interviews) <= 1


async def test_a_socket_that_floods_is_told_and_closed_and_its_interview_goes_on(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, messages_per_second=10) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        for _ in range(80):
            await caller.send({"type": "ice_candidate"})
        assert (await caller.message("error"))["code"] == "RATE_LIMITED"
        await caller.socket_closed()
        answered = [one for one in caller.messages.items if one["type"] == "ice_status"]
        assert len(answered) <= 50
        assert (await refused(caller))["messages"] == 1
        assert await caller.known_phase() == "live"
        await caller.open(f"/ws/{caller.session_id}")


async def test_the_operators_limits_of_length_hold(tmp_path: Path) -> None:
    sizes = {"max_message_kb": 16, "max_body_kb": 16, "max_sdp_kb": 4}
    async with serving(tmp_path, **sizes) as server, calling(server.url) as caller:
        await caller.open()
        await caller.send({"type": "ice_candidate", "rest": "x" * 16_400})
        assert await caller.error() == "TOO_LARGE"
        reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": "x" * 17_000})
        assert (reply.status, reply.json()["code"]) == (413, "TOO_LARGE")
        long = await caller.offer() + "a=note:" + "x" * 4096 + "\r\n"
        reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": long})
        assert (reply.status, reply.json()["code"]) == (413, "SDP_TOO_LARGE")


# -- connections


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with little patience and few connections."""
    async with serving(tmp_path, request_seconds=SHORT, max_connections=12) as server:
        yield server


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = urlsplit(server.url)
    return await asyncio.open_connection("127.0.0.1", place.port)


async def drip(writer: asyncio.StreamWriter, text: bytes) -> None:
    """A byte now and then, for ever, or until the other end has had enough."""
    try:
        while True:
            for place in range(len(text)):
                writer.write(text[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
    except ConnectionError:
        return


ANOTHER = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\n"
HEADER = b"X-Slow: and steady\r\n"
LOGIN = (
    b"POST /api/sdp-exchange HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100000\r\n\r\n{"
)


@pytest.mark.parametrize(
    ("first", "begun"),
    [(b"", b""), (b"", HALF), (ANOTHER, HALF)],
    ids=["nothing at all", "half a head", "half a second head"],
)
async def test_a_head_that_drips_does_not_keep_a_connection(
    hasty: Server, first: bytes, begun: bytes
) -> None:
    reader, writer = await connect(hasty)
    if first:
        writer.write(first)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")
    writer.write(begun)
    dripping = asyncio.create_task(drip(writer, HEADER)) if begun else None
    async with asyncio.timeout(5):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
    if dripping is not None:
        dripping.cancel()
    writer.close()
    async with calling(hasty.url) as caller:
        assert (await refused(caller))["slow"] == 1


async def test_a_body_that_drips_is_told_why_and_cut_off(hasty: Server) -> None:
    reader, writer = await connect(hasty)
    writer.write(LOGIN)
    dripping = asyncio.create_task(drip(writer, b" "))
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read()
    dripping.cancel()
    writer.close()
    assert head.startswith(b"HTTP/1.1 408"), head
    assert json.loads(body)["code"] == "REQUEST_TIMEOUT"


async def test_whoever_goes_on_sending_can_read_why_the_body_was_given_up(hasty: Server) -> None:
    reader, writer = await connect(hasty)
    writer.write(LOGIN)
    async with asyncio.timeout(5), calling(hasty.url) as caller:
        head = await reader.readuntil(b"\r\n\r\n")
        for _ in range(3):
            writer.write(b" ")
            # Once another request is answered, this was seen.
            await caller.get("/health")
        assert reader.exception() is None
        body = await reader.read()
    writer.close()
    assert head.startswith(b"HTTP/1.1 408"), head
    assert json.loads(body)["code"] == "REQUEST_TIMEOUT"


CHUNKED = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + (
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SMALLEST = b"1\r\na\r\n" * 1000


async def flood(writer: asyncio.StreamWriter, block: bytes) -> None:
    """As much as the other end takes."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(block)
            await writer.drain()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [(b"/nothing", 404, "NOT_FOUND"), (b"/api/sdp-exchange", 400, "BAD_REQUEST")],
    ids=["nobody reads it", "somebody reads it"],
)
@pytest.mark.parametrize("block", [SMALLEST, b"1;" + b"x" * 900 + b"\r\na\r\n"])
async def test_a_body_of_the_smallest_chunks_is_not_parsed_without_end(
    tmp_path: Path,
    path: bytes,
    status: int,
    code: str,
    block: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[int] = []
    real = web.RequestHandler.data_received

    def data_received(self: web.RequestHandler, data: bytes) -> None:
        parsed.append(len(data))
        real(self, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", data_received)
    async with serving(tmp_path) as server:
        reader, writer = await connect(server)
        writer.write(CHUNKED % path)
        flooding = asyncio.create_task(flood(writer, block))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            # It is over, whatever is still sent.
            await flooding
        writer.close()
        assert head.startswith(b"HTTP/1.1 %d" % status), head
        assert b"connection: close" in head.lower()
        told = json.loads(body)
        assert (told.get("code") or told["error"]["code"]) == code
        assert sum(parsed) <= 16 * READ_BYTES
        if status == 400:
            async with calling(server.url) as caller:
                assert (await refused(caller))["chunks"] == 1


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)content-length: (\d+)", head)
    assert found is not None
    return int(found[1])


async def test_bodies_in_chunks_as_proxies_send_them_are_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await connect(server)
        # HTTP/3 without a length becomes this, be it of a request without a body.
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(_length(head))
        body = json.dumps({"sdpOffer": "x" * 60_000}).encode()
        writer.write(CHUNKED % b"/api/sdp-exchange")
        for place in range(0, len(body), 50):
            piece = body[place : place + 50]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert json.loads(await reader.readexactly(_length(head)))["code"] == "INVALID_SDP"
        writer.close()
        async with calling(server.url) as caller:
            assert (await refused(caller))["chunks"] == 0


async def test_a_connection_that_sends_more_than_it_may_is_read_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "intake", lambda self: Bucket(10_000.0, 20_000))
    async with serving(tmp_path) as server:
        reader, writer = await connect(server)
        loop = asyncio.get_running_loop()
        began = loop.time()
        body = json.dumps({"sdpOffer": "x" * 30_000}).encode()
        writer.write(
            b"POST /api/sdp-exchange HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        # All of it arrives, and none of it before its time.
        head = await reader.readuntil(b"\r\n\r\n")
        assert json.loads(await reader.readexactly(_length(head)))["code"] == "INVALID_SDP"
        assert loop.time() - began > (30_000 - 20_000 - READ_BYTES) / 10_000
        writer.close()


# -- answers that nobody reads

DOCUMENT = b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


def hardly_reading(server: Server) -> socket.socket:
    """A connection with little room for what it is sent."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", urlsplit(server.url).port))
    line.setblocking(False)
    return line


@pytest.mark.parametrize("asked", [1, 300], ids=["one answer", "hundreds of them"])
async def test_whoever_does_not_read_its_answers_is_cut_off(hasty: Server, asked: int) -> None:
    with hardly_reading(hasty) as line:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(line, DOCUMENT * asked)
        async with calling(hasty.url) as caller:

            async def unread() -> int:
                found: int = (await refused(caller))["unread"]
                return found

            await eventually(unread, within=10, what="it cut off", good=lambda count: count == 1)
        # Not closed, which would wait for it to read the rest.
        with pytest.raises(ConnectionResetError):
            while await loop.sock_recv(line, 65536):
                pass


@pytest.mark.parametrize("path", [b"/static/connection.js", b"/"])
async def test_a_file_that_nobody_reads_leaves_nothing_behind(hasty: Server, path: bytes) -> None:
    async def answering() -> int:
        return sum("Connection._handle_request" in repr(task) for task in asyncio.all_tasks())

    wishes = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path * 300
    loop = asyncio.get_running_loop()
    with hardly_reading(hasty) as line, hardly_reading(hasty) as other:
        for one in (line, other):
            await loop.sock_sendall(one, wishes)
        async with calling(hasty.url) as caller:

            async def unread() -> int:
                found: int = (await refused(caller))["unread"]
                return found

            await eventually(unread, within=10, what="both cut off", good=lambda count: count == 2)
        await eventually(answering, within=5, what="nobody at work", good=lambda count: count == 0)
        # Nothing listens any more on the descriptors that these connections get.
        for _ in range(2):
            reader, writer = await connect(hasty)
            writer.write(ANOTHER)
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()


@pytest.mark.parametrize(
    ("trusted", "late"),
    [
        ((), (SHORT + READER_SECONDS) / 2),
        # A proxy took some MB, which its client reads meanwhile.
        (("127.0.0.1/32",), (READER_SECONDS + BEHIND_SECONDS) / 2),
    ],
)
async def test_whoever_has_a_key_may_rest_while_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: tuple[str, ...], late: float
) -> None:
    key, resting = "operator-key-of-this-test-0123456789", asyncio.Event()
    monkeypatch.setattr(Delivery, "stuck", lambda *_, **__: late if resting.is_set() else 0.0)

    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(10):
                await reader.read()
        writer.close()

    settings = {"request_seconds": SHORT, "admin_key": key, "trusted_proxies": trusted}
    async with serving(tmp_path, **settings) as server:
        reader, writer = await connect(server)
        stranger = await connect(server)
        wish = f"GET /api/drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(wish.encode())
        await reader.readuntil(b"}")
        resting.set()
        await cut_off(*stranger)
        # One more, so that the first was looked at as well.
        await cut_off(*await connect(server))
        writer.write(wish.encode())
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
        # It is the request that had the key, not the connection.
        writer.write(ANOTHER)
        await cut_off(reader, writer)


async def test_whoever_reads_slowly_gets_the_whole_answer(hasty: Server) -> None:
    with hardly_reading(hasty) as line:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(line, DOCUMENT)
        got = b""
        began = loop.time()
        while b"\r\n\r\n" not in got or len(got) < _length(got) + got.index(b"\r\n\r\n") + 4:
            got += await loop.sock_recv(line, 8192)
            # For several times as long as nothing may be taken.
            await asyncio.sleep(SHORT / 4 if loop.time() - began < 4 * SHORT else 0)
        assert loop.time() - began > 2 * SHORT
        async with calling(hasty.url) as caller:
            assert (await refused(caller))["unread"] == 0


async def test_what_takes_long_for_good_reason_is_left_alone(hasty: Server) -> None:
    async with calling(hasty.url) as caller:
        await caller.open()
        reader, writer = await connect(hasty)
        writer.write(ANOTHER)
        await reader.readuntil(b"}")
        # Idle between two requests, and between two messages, for longer than a head may take.
        await asyncio.sleep(2 * SHORT)
        await caller.send({"type": "ice_candidate"})
        await caller.message("ice_status")
        writer.write(ANOTHER)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert (await refused(caller))["slow"] == 0


async def test_connections_beyond_the_number_are_closed_until_others_go(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections=12) as server, calling(server.url) as caller:
        await caller.open()
        idle = [await connect(server) for _ in range(40)]

        async def closed() -> int:
            return sum(reader.at_eof() or reader.exception() is not None for reader, _ in idle)

        waits = [asyncio.create_task(reader.read(1)) for reader, _ in idle]
        await eventually(closed, within=5, what="29 refused", good=lambda count: count == 29)
        # Who is in stays in.
        await caller.send({"type": "ice_candidate"})
        await caller.message("ice_status")
        for (_, writer), wait in zip(idle, waits, strict=True):
            wait.cancel()
            writer.close()

        async def answers() -> int:
            try:
                return (await caller.get("/health")).status
            except OSError:
                return 0

        await eventually(answers, within=5, what="room again", good=lambda status: status == 200)
        assert (await refused(caller))["connections"] >= 29
