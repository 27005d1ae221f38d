"""The database goes away under a running server: what callers are told, what goes on, what comes
after."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Phase
from interview_peer.state import migrate
from interview_peer.state.database import FILE, Database
from interview_peer.types import Json
from tests.notices.office import SECRET
from tests.notices.receiver import Receiver
from tests.support.caller import calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.postgres import Postgres
from tests.support.waiting import eventually

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    started = await Receiver().start()
    yield started
    await started.close()


@pytest.fixture
async def on_postgres(
    tmp_path: Path, restartable_postgres: Postgres, receiver: Receiver
) -> AsyncIterator[Server]:
    url = restartable_postgres.create()
    database = await Database.open(url, tmp_path)
    await migrate.upgrade(database)
    await database.close()
    async with serving(
        tmp_path,
        database_url=url,
        admin_key=KEY,
        join_secret=JOIN_SECRET,
        webhook_url=receiver.url,
        webhook_secret=SECRET,
        webhook_allow=("127.0.0.0/8",),
    ) as server:
        yield server


@pytest.mark.timeout(90)
async def test_a_locked_file_is_told_stops_no_interview_and_misses_nothing(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, admin_key=KEY) as server,
        calling(server.url) as caller,
        calling(server.url) as candidate,
    ):
        operator = Operator(caller)
        await candidate.open()
        await candidate.connect()
        await candidate.event("response.done")
        await server.state.chronicle.drained()
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            replies = await asyncio.gather(
                operator.ask("GET", PATH), operator.ask("POST", PATH, json={})
            )
            for reply in replies:
                assert (reply.status, reply.json()["error"]["code"]) == (503, "STATE_UNAVAILABLE")
                assert int(reply.headers["retry-after"]) > 0
            candidate.say({"type": "response.create"})
            await candidate.event("response.done")
            await candidate.send({"type": "end_session"})
            await candidate.message("session_ended")
            assert server.state.chronicle.statistics()["waiting"] > 0
            other.execute("ROLLBACK")
        async with asyncio.timeout(20):
            await server.state.chronicle.drained()
        assert server.state.chronicle.lost == 0
        kept = (await operator.ask("GET", f"{PATH}/{candidate.session_id}")).json()
        assert (kept["phase"], kept["reason"]) == ("ended", "client_request")


@pytest.mark.timeout(150)
async def test_a_stopped_database_is_told_stops_no_interview_and_misses_nothing(
    on_postgres: Server, restartable_postgres: Postgres, receiver: Receiver
) -> None:
    server = on_postgres
    async with (
        calling(server.url) as caller,
        calling(server.url) as candidate,
        calling(server.url) as guest,
    ):
        operator = Operator(caller)
        made = await operator.make(candidate_reference="a")
        unused = await operator.make(candidate_reference="b")
        await candidate.open()
        await candidate.send({"type": "init", "token": made["join_token"]})
        await candidate.connect()
        await candidate.event("response.done")
        await server.state.chronicle.drained()

        await asyncio.to_thread(restartable_postgres.stop)
        here = f"{PATH}/{made['id']}"
        asked: tuple[tuple[str, str, Json], ...] = (
            ("GET", PATH, {}),
            ("POST", PATH, {"json": {"candidate_reference": "c"}}),
            ("GET", here, {}),
            ("POST", f"{PATH}/{unused['id']}/end", {}),
            ("DELETE", f"{PATH}/{unused['id']}", {}),
            ("GET", f"{here}/deliveries", {}),
            ("GET", "/api/webhooks", {}),
            ("POST", "/api/webhooks", {"json": {"url": receiver.url}}),
            ("POST", "/api/webhooks/replay", {"json": {"since": "2026-01-01T00:00:00Z"}}),
            ("GET", "/api/keys", {}),
        )
        replies = await asyncio.gather(
            *(operator.ask(method, path, **options) for method, path, options in asked)
        )
        for (method, path, _), reply in zip(asked, replies, strict=True):
            assert reply.status == 503, (method, path, reply)
            assert reply.json()["error"]["code"] == "STATE_UNAVAILABLE", (method, path)
            assert int(reply.headers["retry-after"]) > 0, (method, path)
        # Nobody can come in by a token that cannot be looked up.
        await guest.open()
        await guest.send({"type": "init", "token": unused["join_token"]})
        assert await guest.error(within=20) == "STATE_UNAVAILABLE"
        assert (await caller.get("/health")).status == 200

        # The interview goes on: it hears, is answered, and ends, all without the database.
        candidate.say({"type": "response.create"})
        await candidate.event("response.done")
        ended = server.interviews.find(made["id"])
        assert ended.phase is Phase.LIVE
        await candidate.send({"type": "end_session"})
        await candidate.message("session_ended")
        mine = {"Authorization": f"Bearer {made['join_token']}"}
        seen = await caller.get(f"/api/sessions/{made['id']}", headers=mine)
        assert seen.json()["phase"] == "ended"
        assert server.state.chronicle.statistics()["waiting"] > 0

        await asyncio.to_thread(restartable_postgres.start)
        async with asyncio.timeout(60):
            await server.state.chronicle.drained()
        assert server.state.chronicle.lost == 0

        async def shown() -> Json:
            reply = await operator.ask("GET", here)
            return reply.json() if reply.status == 200 else {}

        kept = await eventually(shown, within=20, what="ended", good=lambda one: one != {})
        assert (kept["phase"], kept["reason"]) == ("ended", "client_request")
        assert kept["started_at"] and kept["ended_at"] and kept["seconds"] > 0
        transcript = (await operator.ask("GET", f"{here}/transcript")).json()
        assert len(transcript["turns"]) >= 2
        await operator.make(candidate_reference="d")

        async def types() -> list[str]:
            of_it = {got.id: got for got in receiver.got if got.interview == made["id"]}
            in_order = sorted(of_it.values(), key=lambda got: got.sequence)
            return [got.notice["type"] for got in in_order]

        told = await eventually(
            types, within=60, what="all notices", good=lambda seen: "recording.ready" in seen
        )
        assert told[:2] == ["interview.created", "interview.started"]
        assert told[2:4] == ["interview.ended", "transcript.completed"]
