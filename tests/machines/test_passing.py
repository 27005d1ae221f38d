"""Two processes of one service: what is passed on, to whom, and what is believed of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import insert, update

from interview_peer.app import Server
from interview_peer.core.machines import PASSED_ON, Passed, sign
from interview_peer.errors import ConfigurationError
from interview_peer.settings import Settings
from interview_peer.state.database import Transaction
from interview_peer.state.nodes import Heartbeat, Reach
from interview_peer.state.schema import interviews, nodes, now_us
from interview_peer.types import Json
from interview_peer.web import passing
from interview_peer.web.delivery import BEHIND_SECONDS, Delivery
from interview_peer.web.limits import Limits
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.raw_socket import BEGUN, CLOSE, CONTINUED, PING, PONG, TEXT, raw
from tests.support.waiting import eventually

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def node(folder: Path, url: str, **settings: Any) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    chosen: dict[str, Any] = {
        "port": port,
        "internal_url": f"http://127.0.0.1:{port}",
        "database_url": url,
        "admin_key": KEY,
        "join_secret": JOIN_SECRET,
    }
    async with serving(folder, **{**chosen, **settings}) as server:
        yield server


@pytest.fixture
async def pair(tmp_path: Path, shared_url: str) -> AsyncIterator[tuple[Server, Server]]:
    """Two processes' worth of server."""
    async with node(tmp_path / "a", shared_url) as a, node(tmp_path / "b", shared_url) as b:
        yield a, b


@pytest.fixture
async def operators(pair: tuple[Server, Server]) -> AsyncIterator[tuple[Operator, Operator]]:
    """Who asks the one, and who asks the other."""
    async with calling(pair[0].url) as one, calling(pair[1].url) as other:
        yield Operator(one), Operator(other)


@pytest.fixture
async def candidate(pair: tuple[Server, Server]) -> AsyncIterator[Caller]:
    """Somebody who comes in at the first one."""
    async with calling(pair[0].url) as caller:
        yield caller


async def talks(operator: Operator, candidate: Caller) -> Json:
    """An interview that the first one holds."""
    made = await operator.make()
    await candidate.open_bare(f"/ws/{made['id']}")
    await candidate.send({"type": "init", "sessionId": made["id"], "token": made["join_token"]})
    await candidate.connect()
    return made


@contextlib.asynccontextmanager
async def stranger(
    server: Server, answer: Answer | None, made: Json, *, phase: str = "live", **columns: Any
) -> AsyncIterator[None]:
    """A node that answers as it is told, or refuses connections, and holds ``made``."""
    app = web.Application()
    if answer is not None:
        app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    if answer is None:
        await runner.cleanup()
    row = {
        **{"id": "node_stranger", "started_at": now_us(), "seen_at": now_us()},
        **{"address": address, "key": "k" * 64, **columns},
    }

    async def work(tx: Transaction) -> None:
        await tx.execute(insert(nodes).values(row))
        held = {"node_id": "node_stranger", "phase": phase}
        await tx.execute(update(interviews).where(interviews.c.id == made["id"]).values(held))

    await server.state.database.run(work)
    try:
        yield
    finally:
        await runner.cleanup()


def signed(server: Server, method: str, path: str, caller: str, hops: int) -> dict[str, str]:
    """The header of a request that another node passed on to this one."""
    assert server.state.heartbeat is not None
    key = server.state.heartbeat.reach.key
    return {PASSED_ON: sign(Passed(caller, hops), key, method, path)}


def code(reply: Any) -> str:
    return str(reply.json()["error"]["code"])


async def test_a_socket_is_passed_on_with_all_it_says_until_either_side_closes(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    async with calling(pair[1].url) as other:
        await other.open_bare(f"/ws/{made['id']}")
        await other.send({"type": "init", "token": made["join_token"]})
        assert await other.error() == "TOKEN_USED"
        await other.send({"type": "nonsense"})
        assert await other.error() == "UNKNOWN_MESSAGE_TYPE"
        await other.leave()
        health = await other.get("/healthz")
        assert health.json()["passed_on"]["sockets"] == 1

        async def left() -> int:
            return int((await other.get("/healthz")).json()["passed_on"]["open"])

        await eventually(left, within=10, what="nothing left open", good=lambda count: count == 0)


async def test_events_come_as_they_happen_and_a_reader_who_goes_is_gone_at_the_holder(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    running = pair[0].interviews.find(made["id"])
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(f"{pair[1].url}{PATH}/{made['id']}/events") as answer:
            assert answer.content_type == "text/event-stream"
            async for line in answer.content:
                if line.startswith(b"event: text"):
                    break
            assert len(running.feed._followers) == 1
            assert running.phase.value == "live", "told while it runs"

    async def followers() -> int:
        running.feed.piece("x", "interviewer", "y")
        return len(running.feed._followers)

    await eventually(followers, within=20, what="no follower", good=lambda count: count == 0)


async def test_whoever_waits_for_an_interview_that_begins_elsewhere_is_led_there(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await operators[0].make()
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{pair[1].url}{PATH}/{made['id']}/events"
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(url) as answer:
            await candidate.open_bare(f"/ws/{made['id']}")
            await candidate.send({"type": "init", "token": made["join_token"]})
            await candidate.connect()
            async with asyncio.timeout(10):
                assert b"snapshot" not in await answer.read(), "it ends, to be asked anew"
        async with http.get(url) as answer:
            async for line in answer.content:
                if line.startswith(b"event: snapshot"):
                    break
            else:
                raise AssertionError("nothing came")


async def test_the_callers_address_is_handed_on_and_counts_at_the_holder(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    path = f"{PATH}/{made['id']}"
    wrong = {"Authorization": "Bearer wrong"}
    async with calling(pair[0].url) as node_b:
        # The holder, asked as another node would ask it for somebody who guesses keys.
        statuses = []
        for _ in range(12):
            passed = signed(pair[0], "GET", path, "203.0.113.9", 1)
            statuses.append((await node_b.get(path, headers={**wrong, **passed})).status)
        assert statuses[0] == 401 and statuses[-1] == 429
        passed = signed(pair[0], "GET", path, "203.0.113.10", 1)
        assert (await node_b.get(path, headers={**wrong, **passed})).status == 401


async def test_a_key_opens_no_more_at_the_holder_than_at_the_door_where_it_came_in(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    keys = {}
    for scope in ("interviews", "recordings"):
        wanted = {"name": scope, "scopes": [scope]}
        keys[scope] = (await operators[0].ask("POST", "/api/keys", json=wanted)).json()["key"]
    mine, hang_up = f"{PATH}/{made['id']}", f"/v1/realtime/calls/rtc_{made['id']}/hangup"

    async def ask(at: int, scope: str, method: str, path: str, **headers: str) -> Any:
        return await Operator(operators[at]._caller, keys[scope]).ask(
            method, path, headers=headers, **({} if method == "GET" else {"json": {"text": "Hi."}})
        )

    refused = [
        ("recordings", "POST", f"{mine}/say"),
        ("recordings", "POST", f"{mine}/end"),
        ("recordings", "DELETE", mine),
        ("interviews", "GET", f"{mine}/events"),
        ("interviews", "GET", f"{mine}/transcript"),
    ]
    for one in refused:
        reply = await ask(1, *one)
        assert (reply.status, code(reply)) == (403, "INSUFFICIENT_SCOPE"), one
    health = (await operators[1]._caller.get("/healthz")).json()
    assert health["passed_on"]["requests"] == 0
    # The holder, asked as the other one would ask it, looks at the key as well.
    for scope, method, path in refused:
        passed = signed(pair[0], method, path, "203.0.113.9", 1)
        reply = await ask(0, scope, method, path, **passed)
        assert (reply.status, code(reply)) == (403, "INSUFFICIENT_SCOPE"), path
    # A call is its candidate's to hang up, too: only the holder knows whose it is.
    reply = await ask(1, "recordings", "POST", hang_up)
    assert (reply.status, code(reply)) == (403, "insufficient_scope")
    assert (await operators[0].show(made))["phase"] == "live"
    assert (await ask(1, "recordings", "GET", f"{mine}/transcript")).status == 200
    assert (await ask(1, "interviews", "POST", f"{mine}/say")).status in (200, 202)
    assert (await ask(1, "interviews", "POST", hang_up)).status == 200
    await candidate.phase("ended")


async def test_what_is_passed_on_is_one_act_written_by_the_holder_with_the_callers_address(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    mine = f"{PATH}/{made['id']}"
    assert (await operators[1].ask("GET", f"{mine}/transcript")).status == 200
    told = {"text": "Be brief."}
    assert (await operators[1].ask("POST", f"{mine}/instruct", json=told)).status == 200
    # From elsewhere it is another reading.
    passed = signed(pair[0], "GET", f"{mine}/transcript", "203.0.113.9", 1)
    assert (await operators[0].ask("GET", f"{mine}/transcript", headers=passed)).status == 200
    for server in pair:
        await server.state.chronicle.drained()
    rows = (await operators[1].ask("GET", f"/api/audit?interview={made['id']}")).json()["acts"]
    assert [(row["act"], row["outcome"], row["address"]) for row in reversed(rows)] == [
        ("interview.made", "done", "127.0.0.1"),
        ("transcript.read", "done", "127.0.0.1"),
        ("interview.instructed", "done", "127.0.0.1"),
        ("transcript.read", "done", "203.0.113.9"),
    ]


async def test_what_another_server_sends_on_may_be_taken_as_slowly_as_by_a_proxy(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], monkeypatch: Any
) -> None:
    patience: list[float] = []
    real = Delivery.patience

    def noted(delivery: Delivery, seconds: float) -> float:
        patience.append(real(delivery, seconds))
        return patience[-1]

    monkeypatch.setattr(Delivery, "patience", noted)
    monkeypatch.setattr(Delivery, "stuck", lambda *_, **__: 0.0)
    path = f"{PATH}?limit=1"
    headers = {"Authorization": f"Bearer {KEY}", **signed(pair[0], "GET", path, "203.0.113.9", 1)}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as http:
        async with http.get(pair[0].url + path, headers=headers) as answer:
            assert answer.status == 200
        # It is looked at while the connection is open.
        await eventually(
            _of(patience), within=20, what="its patience", good=lambda seen: BEHIND_SECONDS in seen
        )


def _of(values: list[float]) -> Callable[[], Awaitable[list[float]]]:
    async def look() -> list[float]:
        return values

    return look


@pytest.mark.parametrize("forged", ["1 203.0.113.9 00", "1 203.0.113.9", "", "x" * 4000])
async def test_nobody_else_can_say_that_a_request_was_passed_on(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], forged: str
) -> None:
    reply = await operators[0].ask("GET", PATH, headers={PASSED_ON: forged})
    assert (reply.status, code(reply)) == (400, "HOP_REFUSED")
    mine = signed(pair[1], "GET", PATH, "203.0.113.9", 1)
    reply = await operators[0].ask("GET", PATH, headers=mine)
    assert (reply.status, code(reply)) == (400, "HOP_REFUSED"), "signed for another node"


async def test_what_was_passed_on_too_often_goes_no_further(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator], candidate: Caller
) -> None:
    made = await talks(operators[0], candidate)
    path = f"{PATH}/{made['id']}/say"
    body = {"json": {"text": "Hello."}}
    often = signed(pair[1], "POST", path, "203.0.113.9", 2)
    reply = await operators[1].ask("POST", path, headers=often, **body)
    assert (reply.status, code(reply)) == (503, "OWNER_UNREACHABLE")
    once = signed(pair[1], "POST", path, "203.0.113.9", 1)
    reply = await operators[1].ask("POST", path, headers=once, **body)
    assert reply.status in (200, 202), reply


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


async def echoes(request: web.Request) -> web.StreamResponse:
    there = web.WebSocketResponse()
    await there.prepare(request)
    async for message in there:
        await there.send_str(message.data)
    return there


async def greets(request: web.Request) -> web.StreamResponse:
    there = web.WebSocketResponse()
    await there.prepare(request)
    await there.send_json({"type": "session"})
    async for message in there:
        await there.send_str(message.data)
    return there


@pytest.mark.parametrize(
    "frames",
    [PING * 3000, b"\x8a\x80\0\0\0\0" * 3000, TEXT * 3000, BEGUN + CONTINUED * 100_000],
    ids=["ping", "pong", "text", "continuation"],
)
async def test_whoever_floods_a_socket_that_is_passed_on_is_told_and_cut_off(
    tmp_path: Path, shared_url: str, frames: bytes
) -> None:
    async with (
        node(tmp_path / "a", shared_url, messages_per_second=10) as server,
        calling(server.url) as caller,
    ):
        made = await Operator(caller).make()
        async with (
            stranger(server, greets, made),
            raw(server, f"/ws/{made['id']}") as client,
        ):
            client.writer.write(b"\x89\x83\0\0\0\0abc")
            assert await client.frame() == (PONG, b"abc")
            client.writer.write(frames)
            said: list[str] = []
            while (got := await client.frame())[0] != CLOSE:
                if got[0] != PONG:
                    said.append(json.loads(got[1]).get("code"))
            assert said[-1] == "RATE_LIMITED" and len(said) <= 61
            assert got[1] == struct.pack("!H", 1008)
            # It does not answer that, goes on sending, and is not read.
            since = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - since < 8:
                    client.writer.write(PING * 1000)
                    await client.writer.drain()
                    await asyncio.sleep(0.02)
            assert time.monotonic() - since < 3
        health = (await caller.get("/healthz")).json()
        assert health["refused"]["messages"] == 1


async def test_sockets_that_are_passed_on_take_places_and_give_them_back(
    tmp_path: Path, shared_url: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            node(tmp_path / "a", shared_url, max_connections=10)
        )
        callers = [await stack.enter_async_context(calling(server.url)) for _ in range(9)]
        made = await Operator(callers[0]).make()
        await stack.enter_async_context(stranger(server, echoes, made))
        path = f"/ws/{made['id']}"
        for caller in callers:
            await caller.open_bare(path)
        asked = {"Connection": "Upgrade", "Upgrade": "websocket"}
        key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
        async with calling(server.url) as late:
            reply = await late.get(path, headers={**asked, **key})
            assert (reply.status, code(reply)) == (503, "AT_CAPACITY")
        await callers[0].leave()

        async def opened() -> bool:
            async with calling(server.url) as again:
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await again.open_bare(path)
                    return True
            return False

        await eventually(opened, within=10, what="a place again")


class Slow:
    """A socket whose close is over when each of the others was begun, or never, or breaks."""

    def __init__(self, ends: Callable[[], Awaitable[Any]]) -> None:
        self._ends = ends
        self.code = 0

    async def close(self, *, code: int) -> None:
        self.code = code
        await self._ends()


async def breaks() -> None:
    raise RuntimeError("it is not open any more")


async def test_at_a_shutdown_passed_sockets_are_closed_at_once_and_none_is_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passing, "SOCKET_SECONDS", 0.2)
    together = asyncio.Barrier(3)
    sockets: list[Any] = [Slow(together.wait) for _ in range(3)]
    sockets += [Slow(asyncio.Event().wait), Slow(breaks)]
    passes = passing.Passing(Limits(Settings(simulation=True)), "")
    passes._sockets.update(sockets)
    async with asyncio.timeout(10):
        await passes.close(web.Application())
    # Not 1001, which says that the interview cannot begin: it runs, and is led to by others too.
    assert [one.code for one in sockets] == [1012] * 5
    assert not together.n_waiting
    await passes._tasks.drain(0)


@pytest.mark.parametrize("answer", [None, silent])
async def test_a_holder_that_does_not_answer_costs_a_code_and_no_hanging(
    pair: tuple[Server, Server],
    operators: tuple[Operator, Operator],
    answer: Answer | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passing, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(passing, "END_SECONDS", 0.3)
    monkeypatch.setattr(passing, "SOCKET_SECONDS", 0.3)
    made = await operators[0].make()
    began = time.monotonic()
    async with stranger(pair[0], answer, made), calling(pair[0].url) as caller:
        for method, path in (
            ("POST", "/say"),
            ("POST", "/end"),
            ("DELETE", ""),
            ("GET", "/events"),
        ):
            reply = await operators[0].ask(
                method, f"{PATH}/{made['id']}{path}", json={"text": "Hello."}
            )
            assert (reply.status, code(reply)) == (503, "OWNER_UNREACHABLE"), path
            assert reply.headers["retry-after"]
            for secret in (KEY, "127.0.0.1", "kkkk", "node_stranger"):
                assert secret not in reply.text
        told = await operators[0].show(made)
        assert (told["phase"], told["statistics"]) == ("live", None), "as the database knows it"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await caller.open_bare(f"/ws/{made['id']}")
    assert time.monotonic() - began < 15.0


async def test_a_holder_that_refuses_a_socket_is_not_told_to_be_unreachable(
    pair: tuple[Server, Server],
    operators: tuple[Operator, Operator],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "interview_peer.web.passing")
    statuses: list[int] = []

    async def refuses(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=statuses[-1])

    made = await operators[0].make()
    asked = {"Connection": "Upgrade", "Upgrade": "websocket"}
    key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
    seen = {}
    async with stranger(pair[0], refuses, made), calling(pair[0].url) as caller:
        for status in (403, 404, 409, 429, 503, 500, 200):
            statuses.append(status)
            reply = await caller.get(f"/ws/{made['id']}", headers={**asked, **key})
            seen[status] = (reply.status, code(reply))
    assert seen == {
        403: (403, "ORIGIN_NOT_ALLOWED"),
        404: (404, "SESSION_NOT_FOUND"),
        409: (409, "INTERVIEW_ELSEWHERE"),
        429: (429, "RATE_LIMITED"),
        503: (503, "AT_CAPACITY"),
        500: (503, "OWNER_UNREACHABLE"),
        200: (503, "OWNER_UNREACHABLE"),
    }
    told = [
        record.__dict__.get("session") for record in caplog.records if "passed on" in record.msg
    ]
    assert told == [made["id"]] * 2


async def test_half_an_answer_does_not_look_like_a_whole_one(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator]
) -> None:
    made = await operators[0].make()
    async with stranger(pair[0], breaks_off, made):
        with pytest.raises(aiohttp.ClientPayloadError):
            await operators[0].ask("GET", f"{PATH}/{made['id']}/recording/mixed")


async def test_a_holder_that_was_silent_for_a_while_is_not_even_asked(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator]
) -> None:
    asked = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    made = await operators[0].make()
    async with stranger(pair[0], note, made, seen_at=now_us() - 30_000_000):
        reply = await operators[0].ask("POST", f"{PATH}/{made['id']}/end")
        assert (reply.status, code(reply)) == (503, "OWNER_UNREACHABLE")
    assert not asked


async def test_nothing_of_a_request_decides_where_it_is_passed_on_to(
    pair: tuple[Server, Server], operators: tuple[Operator, Operator]
) -> None:
    seen: list[web.Request] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.json_response({}, headers={"fly-replay": "app=evil", "Keep-Alive": "x"})

    made = await operators[0].make()
    async with stranger(pair[0], note, made):
        headers = {
            **{"Host": "evil.example.org:1", "X-Forwarded-For": "192.0.2.1"},
            **{"X-Forwarded-Host": "evil.example.org", "Connection": "X-Mine", "X-Mine": "1"},
        }
        path = f"{PATH}/{made['id']}/transcript?x=@evil.example.org/"
        reply = await operators[0].ask("GET", path, headers=headers)
        assert reply.status == 200
        once = signed(pair[0], "GET", path, "203.0.113.9", 1)
        assert (await operators[0].ask("GET", path, headers=once)).status == 200
    request, again = seen
    assert request.headers[PASSED_ON].startswith("1 127.0.0.1 ")
    assert again.headers[PASSED_ON].startswith("2 203.0.113.9 ")
    assert request.headers["Host"] == "evil.example.org:1"
    assert request.rel_url.raw_path_qs.endswith("/transcript?x=@evil.example.org/")
    assert "X-Forwarded-For" not in request.headers and "X-Mine" not in request.headers
    assert "fly-replay" not in reply.headers and reply.headers.get("keep-alive") != "x"


async def test_on_fly_the_answer_asks_for_a_replay_before_any_upgrade(
    tmp_path: Path, shared_url: str
) -> None:
    async with (
        node(tmp_path / "a", shared_url, machine_id="aaaa") as a,
        node(tmp_path / "b", shared_url, machine_id="bbbb") as b,
        calling(a.url) as one,
        calling(b.url) as other,
        calling(a.url) as candidate,
    ):
        made = await talks(Operator(one), candidate)
        path = f"{PATH}/{made['id']}/say"
        there = "instance=aaaa;timeout=5s;fallback=force_self"
        reply = await Operator(other).ask("POST", path, json={"text": "Hello."})
        assert (reply.status, code(reply)) == (409, "INTERVIEW_ELSEWHERE")
        assert reply.headers["fly-replay"] == there
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await other.open_bare(f"/ws/{made['id']}")
        assert refused.value.headers is not None
        assert refused.value.headers["fly-replay"] == there
        # It came back, or was sent here by mistake: it is passed on, not sent again.
        for name in ("fly-replay-src", "fly-replay-failed"):
            reply = await Operator(other).ask(
                "POST", path, json={"text": "Hello."}, headers={name: "instance=bbbb"}
            )
            assert reply.status in (200, 202) and "fly-replay" not in reply.headers, reply
        # An invitation that nobody took is anybody's.
        fresh = await Operator(one).make()
        assert (await Operator(other).ask("GET", f"{PATH}/{fresh['id']}")).status == 200
        # Without the key nobody learns where an interview is.
        for key in (None, "wrong"):
            reply = await Operator(other, key).ask("POST", path, json={"text": "Hello."})
            assert reply.status == 401 and "fly-replay" not in reply.headers


async def test_without_an_address_the_caller_is_told_that_it_is_elsewhere(
    tmp_path: Path, shared_url: str
) -> None:
    async with (
        node(tmp_path / "a", shared_url, internal_url=None) as a,
        node(tmp_path / "b", shared_url) as b,
        calling(a.url) as one,
        calling(b.url) as other,
        calling(a.url) as candidate,
    ):
        made = await talks(Operator(one), candidate)
        reply = await Operator(other).ask("POST", f"{PATH}/{made['id']}/end")
        assert (reply.status, code(reply)) == (409, "INTERVIEW_ELSEWHERE")


async def test_two_nodes_cannot_announce_one_port_to_browsers(
    pair: tuple[Server, Server],
) -> None:
    database = pair[0].state.database
    mine = Reach(announced=("203.0.113.7:8081", "[2001:db8::7]:8081"))
    first = Heartbeat(database, "node_first", reach=mine)
    await first.start()
    second = Heartbeat(database, "node_second", reach=Reach(announced=("203.0.113.7:8081",)))
    with pytest.raises(ConfigurationError, match=r"^Another server .* 203\.0\.113\.7:8081 "):
        await second.start()
    other = Heartbeat(database, "node_other", reach=Reach(announced=("203.0.113.7:8082",)))
    await other.start()
    await other.close()
    # The same one, started again, and another one in its place once it ended in order.
    await first.close()
    again = Heartbeat(database, "node_first", reach=mine)
    await again.start()
    await again.close()
    await second.start()
    await second.close()


async def test_a_second_server_that_announces_the_same_address_and_port_does_not_start(
    tmp_path: Path, shared_url: str
) -> None:
    with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    public: dict[str, Any] = {"udp_port": port, "public_ips": ("203.0.113.7",)}
    async with node(tmp_path / "a", shared_url, **public):
        # As on another machine: the port itself is free there.
        with pytest.raises(ConfigurationError, match="INTERVIEW_UDP_PORT of its own"):
            async with node(tmp_path / "b", shared_url, udp_host="127.0.0.2", **public):
                raise AssertionError("it started")
    async with node(tmp_path / "c", shared_url, **public):
        pass  # The first one ended in order: its place is free at once.
