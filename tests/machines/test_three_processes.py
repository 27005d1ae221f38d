"""Three server processes, one PostgreSQL, one S3-protocol server: whichever is asked, all is right;
and one of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import select

from interview_peer.state.database import Database, Transaction
from interview_peer.state.schema import deliveries
from interview_peer.types import Json
from tests.notices.office import SECRET
from tests.notices.receiver import Receiver
from tests.recording_api.s3 import Network
from tests.support.caller import Caller, Reply, calling
from tests.support.operator import KEY, PATH, Operator
from tests.support.server import ServerProcess, clean_environment, running
from tests.support.waiting import eventually

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
QUICKLY = """
import interview_peer.session.recovery as recovery
import interview_peer.state.nodes as nodes
nodes.SAY_SECONDS, nodes.GAP_SECONDS, nodes.GONE_SECONDS = 0.5, 3.0, 6.0
recovery.LOOK_SECONDS = 0.5
from interview_peer.cli import main
main()
"""
"""The server as it is, but for the time after which a silent one is given up."""
RECORDED_WITHIN = 40.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def one_of_three(
    folder: Path, database: str, bucket: Network, receiver: Receiver
) -> AsyncIterator[ServerProcess]:
    port = free_port()
    arguments = ["serve", "--simulation", "--port", str(port), "--data-dir", str(folder / "data")]
    environment = clean_environment(
        DATABASE_URL=database,
        INTERVIEW_INTERNAL_URL=f"http://127.0.0.1:{port}",
        INTERVIEW_ADMIN_KEY=KEY,
        INTERVIEW_JOIN_SECRET=JOIN_SECRET,
        INTERVIEW_WEBHOOK_URL=receiver.url,
        INTERVIEW_WEBHOOK_SECRET=SECRET,
        INTERVIEW_WEBHOOK_ALLOW="127.0.0.0/8",
        INTERVIEW_RECORDINGS_URL=f"s3://{bucket.bucket}/kept",
        AWS_ENDPOINT_URL_S3=bucket.url,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test-secret",
        INTERVIEW_UDP_HOST="127.0.0.1",
        INTERVIEW_UDP_PORT="0",
        INTERVIEW_DRAIN_SECONDS="0",
        INTERVIEW_MIN_FREE_MB="0",
    )
    command = [sys.executable, "-c", QUICKLY, *arguments]
    async with running(command, folder, environment, folder / "data") as server:
        yield server


@dataclass
class Side:
    """One process and who asks it."""

    server: ServerProcess
    operator: Operator
    candidate: Caller

    async def ask(self, method: str, interview: Json, path: str = "", **options: object) -> Reply:
        return await self.operator.ask(method, f"{PATH}/{interview['id']}{path}", **options)


@contextlib.asynccontextmanager
async def three(
    folder: Path, database: str, bucket: Network, receiver: Receiver
) -> AsyncIterator[list[Side]]:
    async with contextlib.AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(one_of_three(folder / name, database, bucket, receiver))
            for name in ("a", "b", "c")
        ]
        sides = []
        for server in await asyncio.gather(*starting):
            caller, candidate = [
                await stack.enter_async_context(calling(server.url)) for _ in range(2)
            ]
            sides.append(Side(server, Operator(caller), candidate))
        try:
            yield sides
        except AssertionError as error:
            for side in sides:
                error.add_note(f"{side.server.data_dir.parent.name}:\n{side.server.tail(30)}")
            raise


async def join(side: Side, made: Json, token: str) -> str:
    """Come in, or back, at this process; returns the resume token."""
    candidate = side.candidate
    await candidate.open_bare(f"/ws/{made['id']}")
    await candidate.send({"type": "init", "sessionId": made["id"], "token": token})
    return await offer(candidate)


async def offer(candidate: Caller) -> str:
    await candidate.send({"type": "sdp_offer", "offer": await candidate.offer()})
    answer = await candidate.message("sdp_answer")
    candidate.session_id = answer["sessionId"]
    await candidate.accept(answer["answer"]["sdp"])
    await candidate.ready()
    return str(answer["resumeToken"])


async def follow(url: str, made: Json, kinds: list[str]) -> None:
    """Note the kinds of an interview's events until it is over."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{url}{PATH}/{made['id']}/events") as answer,
    ):
        assert answer.status == 200
        async for line in answer.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                kinds.append(value)


@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_three_processes_answer_as_one_and_outlive_the_death_of_one(
    tmp_path: Path, shared_url: str, bucket: Network, receiver: Receiver
) -> None:
    async with three(tmp_path, shared_url, bucket, receiver) as sides:
        a, b, c = sides
        made = [await side.operator.make(candidate_reference="three") for side in sides]
        first, second, third = made
        ids = {one["id"] for one in made}
        resumes = [
            await join(side, one, one["join_token"]) for side, one in zip(sides, made, strict=True)
        ]
        await asyncio.gather(*(side.candidate.event("response.done") for side in sides))

        # Each interview, asked of the two processes that do not hold it.
        for number, one in enumerate(made):
            for side in (sides[number - 2], sides[number - 1]):
                shown = await side.operator.show(one)
                assert shown["phase"] == "live"
                assert shown["statistics"] is not None, "the holder's own figures"
                assert set(await side.operator.ids()) == ids
                told = await side.ask("GET", one, "/transcript")
                assert told.status == 200 and told.json()["turns"], told
                listed = await side.ask("GET", one, "/recording")
                assert (listed.status, listed.json()["state"]) == (200, "running")
                own = {"Authorization": f"Bearer {resumes[number]}"}
                known = await side.candidate.get(f"/api/sessions/{one['id']}", headers=own)
                assert (known.status, known.json()["phase"]) == (200, "live")

        kinds: list[str] = []
        following = asyncio.create_task(follow(c.server.url, first, kinds), name="follow")
        said = await b.ask("POST", first, "/say", json={"text": "One more thing."})
        assert said.status in (200, 202), said
        noted = await c.ask("POST", first, "/instruct", json={"text": "Be brief."})
        assert noted.status == 200 and noted.json()["item_id"], noted
        refused = await c.ask("POST", first, "/say", json={"text": ""})
        assert (refused.status, refused.json()["error"]["code"]) == (422, "INVALID_FIELD")

        # The first one's candidate comes back at the second process; audio goes to the first.
        async with calling(b.server.url) as returned:
            await a.candidate.leave()
            back = Side(b.server, b.operator, returned)
            resumes[0] = await join(back, first, resumes[0])
            await a.candidate.drop()
            await b.ask("POST", first, "/say", json={"text": "Welcome back."})
            await returned.sound(5)
            ended = await b.ask("POST", first, "/end")
            assert (ended.status, ended.json()["phase"]) == (200, "ended")
            assert (await returned.message("session_ended"))["reason"] == "operator_request"
        await asyncio.wait_for(following, 10)
        assert {"snapshot", "turns", "phase", "end"} <= set(kinds), Counter(kinds)

        # By HTTP alone, the same way back, for the second.
        async with calling(c.server.url) as returned:
            own = {"Authorization": f"Bearer {resumes[1]}"}
            reply = await returned.post(
                "/api/sdp-exchange", json={"sdpOffer": await returned.offer()}, headers=own
            )
            assert (reply.status, reply.json()["sessionId"]) == (200, second["id"]), reply
            await returned.accept(reply.json()["sdpAnswer"])
            await returned.ready()
            await recorded_alike(sides, first)

            began = time.monotonic()
            await c.server.kill()
            # What the database knows is told; what needs the killed process is refused, soon.
            assert (await a.operator.show(third))["phase"] == "live"
            sent = await a.ask("GET", third, "/deliveries")
            assert sent.status == 200 and sent.json()["deliveries"], sent
            for method, path in (("POST", "/end"), ("GET", "/events"), ("GET", "/recording")):
                gone = await a.ask(method, third, path)
                assert gone.status == 503, gone
                assert gone.json()["error"]["code"] == "OWNER_UNREACHABLE"
                assert KEY not in gone.text and "127.0.0.1" not in gone.text
            assert time.monotonic() - began < 5.0
            # Its own candidate's way back was by that process; the interview is not held by it.
            assert (await a.operator.show(second))["phase"] in ("live", "detached")
        async with calling(a.server.url) as returned:
            own = {"Authorization": f"Bearer {reply.json()['resumeToken']}"}
            reply = await returned.post(
                "/api/sdp-exchange", json={"sdpOffer": await returned.offer()}, headers=own
            )
            assert (reply.status, reply.json()["sessionId"]) == (200, second["id"]), reply
            await returned.accept(reply.json()["sdpAnswer"])
            await returned.ready()
            assert (await a.operator.show(second))["phase"] == "live"

            async def phase_of_third() -> tuple[str, str]:
                shown = await b.operator.show(third)
                return shown["phase"], shown["reason"]

            over = ("ended", "recovered")
            what = "the killed process's interview closed by another"
            await eventually(phase_of_third, within=40, what=what, good=lambda seen: seen == over)
            told = await a.ask("GET", third, "/transcript")
            assert told.status == 200 and told.json()["turns"], told

            # Erased by a process that has none of the files, and while the other one runs.
            for side, one in ((b, first), (a, second)):
                erased = await side.ask("DELETE", one, "?end=true")
                assert (erased.status, erased.json()["complete"]) == (200, True), erased
                for other in (a, b):
                    assert (await other.ask("GET", one)).status == 404
                    assert (await other.ask("GET", one, "/recording")).status in (404, 410)

        await delivered(shared_url, tmp_path, receiver, made)


async def recorded_alike(sides: list[Side], one: Json) -> None:
    """The recording is whole, and the same, whichever process is asked."""

    async def state() -> tuple[str | None, str | None]:
        # Refused for a moment where a busy machine kept the holder from saying that it lives.
        listed = (await sides[1].ask("GET", one, "/recording")).json()
        return listed.get("state"), listed.get("kept")

    kept = ("ready", "store")
    what = "the recording in the store"
    await eventually(state, within=RECORDED_WITHIN, what=what, good=lambda seen: seen == kept)
    sums = set()
    headers = {"Authorization": f"Bearer {KEY}"}
    for side in sides:
        listed = (await side.ask("GET", one, "/recording")).json()
        files = {file["name"]: file for file in listed["files"]}
        sound = files["candidate.ogg"]
        async with aiohttp.ClientSession(headers=headers) as http:
            url = side.server.url + sound["path"]
            async with http.get(url) as answer:
                whole = await answer.read()
            async with http.get(url, headers={"Range": "bytes=0-3"}) as answer:
                assert (answer.status, await answer.read()) == (206, b"OggS")
                assert answer.headers["Content-Range"] == f"bytes 0-3/{len(whole)}"
        assert len(whole) == sound["bytes"]
        assert hashlib.sha256(whole).hexdigest() == sound["sha256"]
        sums.add((sound["sha256"], (await side.ask("GET", one, "/transcript")).text))
    assert len(sums) == 1


async def delivered(url: str, folder: Path, receiver: Receiver, made: list[Json]) -> None:
    """Each notice came at least once and in order, never twice at a time."""
    database = await Database.open(url, folder)
    try:

        async def look(tx: Transaction) -> dict[str, str]:
            found = await tx.execute(select(deliveries.c.notice_id, deliveries.c.state))
            return {row.notice_id: row.state for row in found}

        def none_left(seen: dict[str, str]) -> bool:
            return {*seen.values()} == {"delivered"}

        states = await eventually(
            lambda: database.run(look), within=60, what="no delivery left", good=none_left
        )
        # What was told of an erased interview is in the database no more.
        assert set(states) <= set(receiver.ids)
    finally:
        await database.close()
    assert not receiver.twice_at_once
    for one in made:
        mine = [got for got in receiver.got if got.interview == one["id"]]
        types = [json.loads(got.body)["type"] for got in mine]
        for kind in ("interview.created", "interview.started", "transcript.completed"):
            assert kind in types, types
        # The killed process may not have noted what was delivered.
        seen = list(dict.fromkeys(got.sequence for got in mine))
        assert seen == sorted(seen), seen
        if one is not made[2]:
            assert max(Counter(got.id for got in mine).values()) == 1
