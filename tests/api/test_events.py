"""An interview is followed live over server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from interview_peer.app import Server
from interview_peer.types import Json
from interview_peer.web import events_api
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.waiting import eventually

from .conftest import JOIN_SECRET
from .test_interviews import UNKNOWN, join


class Stream:
    """An open answer, read event by event."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str, Json]] = []
        self.comments: list[str] = []

    async def next(self) -> tuple[str, str, Json] | None:
        """Id, kind and data of the next event; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(30):
            async for raw in self.answer.content:
                text = raw.decode().removesuffix("\n")
                if text.startswith(":"):
                    self.comments.append(text)
                elif text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    event = (fields["id"], fields["event"], json.loads(fields["data"]))
                    self.seen.append(event)
                    return event
                else:
                    fields.clear()
        return None

    async def until(self, kind: str) -> Json:
        """The data of the next event of this kind."""
        while (event := await self.next()) is not None:
            if event[1] == kind:
                return event[2]
        raise AssertionError(f"no {kind}, but {[one[1] for one in self.seen]}")


@contextlib.asynccontextmanager
async def following(
    server: Server, made: Json, *, key: str | None = KEY, **headers: str
) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        named["Authorization"] = f"Bearer {key}"
    async with (
        aiohttp.ClientSession(headers=named) as http,
        http.get(f"{server.url}{PATH}/{made['id']}/events") as answer,
    ):
        yield Stream(answer)


async def test_an_interview_is_followed_from_before_its_start_to_its_end(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    async with following(served, made) as stream:
        assert stream.answer.status == 200
        assert stream.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["Cache-Control"] == "no-store"
        await join(candidate, made)
        await stream.until("snapshot")
        pieces = [await stream.until("text")]
        await candidate.event("response.done")
        await operator.ask("POST", f"{PATH}/{made['id']}/end")
        end = await stream.until("end")
        assert await stream.next() is None, "the stream ends with the interview"
    assert end == {"reason": "operator_request"}
    numbers = [int(number) for number, kind, _ in stream.seen if kind != "snapshot"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert pieces[0]["speaker"] == "interviewer"
    shown: list[Json] = []
    for _, kind, data in stream.seen:
        if kind == "snapshot":
            shown = data["turns"]
        elif kind == "turns":
            shown[data["position"] :] = data["turns"]
    kept = (await operator.ask("GET", f"{PATH}/{made['id']}/transcript")).json()["turns"]
    times = {"start_ms": 0, "end_ms": 0}
    assert [turn | times for turn in shown] == [turn | times for turn in kept] != []
    phases = [data["phase"] for _, kind, data in stream.seen if kind == "phase"]
    assert phases[-2:] == ["ending", "ended"]


async def test_who_comes_back_gets_what_was_missed_and_an_end_that_is_known_is_no_content(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    await join(candidate, made)
    async with following(served, made) as stream:
        await stream.until("text")
        last = stream.seen[-1][0]
    await candidate.event("response.done")
    await operator.ask("POST", f"{PATH}/{made['id']}/end")
    async with following(served, made, Last_Event_ID=last) as back:
        await back.until("end")
        assert await back.next() is None
    numbers = [int(number) for number, _, _ in back.seen]
    assert numbers == list(range(int(last) + 1, numbers[-1] + 1))
    async with following(served, made, Last_Event_ID=str(numbers[-1])) as known:
        assert (known.answer.status, await known.answer.read()) == (204, b"")
    for odd in ("x", "-1", "9" * 40):
        async with following(served, made, Last_Event_ID=odd) as whole:
            assert [await whole.next(), await whole.next()] != []
            assert [kind for _, kind, _ in whole.seen] == ["snapshot", "end"]


async def test_events_need_the_operators_key_and_an_interview(
    served: Server, operator: Operator
) -> None:
    made = await operator.make()
    async with following(served, made, key=None) as stranger:
        assert stranger.answer.status == 401
    async with following(served, {"id": UNKNOWN}) as nobody:
        assert nobody.answer.status == 404
    await operator.ask("POST", f"{PATH}/{made['id']}/end")
    async with following(served, made) as over:
        assert over.answer.status == 204
    await operator.ask("DELETE", f"{PATH}/{made['id']}")
    async with following(served, made) as erased:
        assert erased.answer.status == 404


async def test_while_nothing_happens_the_connection_is_kept_in_use(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "BEAT_SECONDS", 0.2)
    made = await operator.make()
    async with following(served, made) as waiting:
        reading = asyncio.create_task(waiting.next())
        await eventually(
            lambda: asyncio.sleep(0, waiting.comments), within=10, what="a beat", good=bool
        )
        # One that ends before anybody joined ends the stream as well.
        await operator.ask("POST", f"{PATH}/{made['id']}/end")
        assert await reading is None


async def test_a_stream_ends_when_its_key_is_revoked_and_no_other_does(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(events_api, "CHECK_SECONDS", 0.2)
    made = await operator.make()
    wanted = {"name": "follower", "scopes": ["recordings"]}
    held = (await operator.ask("POST", "/api/keys", json=wanted)).json()
    other = (await operator.ask("POST", "/api/keys", json=wanted)).json()
    await join(candidate, made)
    async with (
        following(served, made, key=held["key"]) as revoked,
        following(served, made, key=other["key"]) as stays,
    ):
        await revoked.until("snapshot")
        await operator.ask("DELETE", f"/api/keys/{held['id']}")
        # Broken off, not ended: its client comes back and is told 401.
        with pytest.raises(aiohttp.ClientPayloadError):
            while await revoked.next() is not None:
                pass
        await operator.ask("POST", f"{PATH}/{made['id']}/end")
        await stays.until("end")
        assert await stays.next() is None
    async with following(served, made, key=held["key"]) as again:
        assert again.answer.status == 401


async def test_an_interview_that_ends_while_a_key_is_looked_up_is_told_to_its_end(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(events_api, "CHECK_SECONDS", 0.2)
    made = await operator.make()
    await join(candidate, made)
    check = events_api.EventsApi._check

    async def slowly(self: events_api.EventsApi, request: web.Request) -> None:
        await check(self, request)
        served.interviews.find(made["id"]).feed.end("operator_request")

    monkeypatch.setattr(events_api.EventsApi, "_check", slowly)
    async with following(served, made) as stream:
        assert await stream.until("end") == {"reason": "operator_request"}
        assert await stream.next() is None


async def test_a_reader_that_stops_is_dropped_and_the_interview_goes_on(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await operator.make()
    await join(candidate, made)
    feed = served.interviews.find(made["id"]).feed
    host, port = "127.0.0.1", served.port
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    request = f"GET {PATH}/{made['id']}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}"
    writer.write(f"{request}\r\n\r\n".encode())
    await reader.readuntil(b"event: snapshot")

    async def dropped() -> int:
        # More than all buffers on the way hold; whoever reads gets it at once.
        for _ in range(100):
            feed.piece("item", "interviewer", "x" * 2_000)
        return feed.counters["dropped"]

    await eventually(dropped, within=30, what="a drop", good=bool)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert (await operator.show(made))["phase"] == "live"
    statistics: Any = (await operator.show(made))["statistics"]
    assert statistics["followers"] == {"followers": 1, "dropped": 1}
    async with following(served, made) as back:
        assert (await back.until("snapshot"))["phase"] == "live"


async def test_a_server_that_goes_ends_the_streams_at_once(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as streams:
        async with (
            serving(tmp_path, admin_key=KEY, join_secret=JOIN_SECRET) as server,
            calling(server.url) as caller,
            calling(server.url) as candidate,
        ):
            operator = Operator(caller)
            waiting = await streams.enter_async_context(following(server, await operator.make()))
            made = await operator.make()
            await join(candidate, made)
            live = await streams.enter_async_context(following(server, made))
            await live.until("snapshot")
            leaving = asyncio.get_running_loop().time()
        # It waits five seconds for answers that do not end.
        assert asyncio.get_running_loop().time() - leaving < 4.5
        assert (await live.until("end")) == {"reason": "server_shutdown"}
        assert await live.next() is None and await waiting.next() is None
