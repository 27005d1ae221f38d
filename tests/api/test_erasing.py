"""Erasing an interview: what is left in the database, in its file, in the data folder, on the way
to receivers, and on another machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from standardwebhooks import Webhook

from interview_peer.app import Server
from interview_peer.session.erasures import Erasures
from interview_peer.state.database import Database, Transaction
from interview_peer.state.place import place_of
from interview_peer.state.schema import interviews, turns
from interview_peer.types import Json
from tests.notices.office import SECRET
from tests.notices.receiver import Receiver
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.postgres import Postgres
from tests.support.waiting import eventually

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
MARKED: Json = {
    "candidate_reference": "mark-reference",
    "metadata": {"name": "mark-metadata"},
    "plan": {"instructions": "Ask about mark-plan."},
    "idempotency_key": "mark-key",
}
MARKS = ("mark-reference", "mark-metadata", "mark-plan", "mark-key")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    started = await Receiver().start()
    yield started
    await started.close()


async def join(candidate: Caller, interview: Json) -> None:
    await candidate.open()
    token = interview["join_token"]
    await candidate.send({"type": "init", "sessionId": interview["id"], "token": token})
    await candidate.connect()


async def dump(database: Database) -> str:
    """Every value of every table there is."""

    async def work(tx: Transaction) -> str:
        names = await tx.run_sync(lambda connection: inspect(connection).get_table_names())
        rows = [
            str(row._mapping)
            for name in names
            for row in await tx.execute(text(f'SELECT * FROM "{name}"'))
        ]
        assert {"interviews", "notices", "attempts", "used_tokens"} <= set(names)
        return "\n".join(rows)

    return await database.run(work)


def bytes_of(folder: Path) -> bytes:
    """All files below a folder, the database's own among them."""
    return b"\n".join(one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file())


async def said_in(server: Server) -> list[str]:
    async def look(tx: Transaction) -> list[str]:
        return [one for one in (await tx.execute(select(turns.c.text))).scalars() if one]

    await server.state.chronicle.drained()
    return await server.state.database.run(look)


def found(marks: list[str], where: str | bytes) -> list[str]:
    whole = where.encode() if isinstance(where, str) else where
    return [one for one in marks if one.encode() in whole]


async def test_nothing_personal_is_left_anywhere_and_nothing_personal_is_sent_later(
    tmp_path: Path, migrated_url: str | None, receiver: Receiver
) -> None:
    async with (
        serving(
            tmp_path,
            database_url=migrated_url,
            admin_key=KEY,
            join_secret=JOIN_SECRET,
            webhook_url=receiver.url,
            webhook_secret=SECRET,
            webhook_allow=("127.0.0.0/8",),
        ) as server,
        calling(server.url) as caller,
    ):
        operator = Operator(caller)
        # One receiver has it all already, for another everything waits.
        kept = {"url": f"{receiver.url}/kept", "events": ["*"], "secret": SECRET}
        endpoint = (await operator.ask("POST", "/api/webhooks", json=kept)).json()["id"]
        webhook = f"/api/webhooks/{endpoint}"
        assert (await operator.ask("PATCH", webhook, json={"active": False})).status == 200
        made = await operator.make(**MARKED)
        async with calling(server.url) as candidate:
            await join(candidate, made)
            await candidate.event("response.done")
        await operator.ask("POST", f"{PATH}/{made['id']}/end")
        marks = [*MARKS, *await said_in(server)]
        assert len(marks) > len(MARKS)
        await receiver.has(3)
        before = await dump(server.state.database)
        # The key is kept as a digest from the beginning.
        assert found(marks, before) == [one for one in marks if one != "mark-key"]

        reply = await operator.ask("DELETE", f"{PATH}/{made['id']}")
        assert (reply.status, reply.json()["complete"]) == (200, True)
        after = await dump(server.state.database)
        assert found(marks, after) == []
        assert made["id"] in after
        assert found(marks, await asyncio.to_thread(bytes_of, tmp_path)) == []

        told = len(receiver.got)
        assert (await operator.ask("PATCH", webhook, json={"active": True})).status == 200

        async def late() -> list[str]:
            return [got.notice["type"] for got in receiver.got if got.path.endswith("/kept")]

        await eventually(
            late, within=20, what="deleted", good=lambda types: "interview.deleted" in types
        )
        assert {"interview.created", "interview.started", "interview.ended"} <= set(await late())
        for got in receiver.got:
            Webhook(SECRET).verify(got.body, got.headers)
            assert got.order < told or found(marks, got.body) == []
        repeated = await operator.ask("POST", PATH, json={**MARKED, "consent": "given"})
        assert (repeated.status, repeated.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert found(marks, await asyncio.to_thread(bytes_of, tmp_path)) == []


async def test_files_on_another_machine_are_erased_by_the_process_that_has_them(
    tmp_path: Path, postgres: Postgres, postgres_template: str
) -> None:
    url = postgres.create(postgres_template)
    settings: dict[str, Any] = {
        "database_url": url,
        "admin_key": KEY,
        "join_secret": JOIN_SECRET,
    }
    try:
        async with (
            serving(tmp_path / "one", **settings) as owner,
            serving(tmp_path / "two", **settings) as other,
            calling(owner.url) as at_owner,
            calling(other.url) as at_other,
        ):
            made = await Operator(at_owner).make(**MARKED)
            kept = await Operator(at_owner).make()
            for one in (made, kept):
                async with calling(owner.url) as candidate:
                    await join(candidate, one)
                await Operator(at_owner).ask("POST", f"{PATH}/{one['id']}/end")
            await owner.state.chronicle.drained()
            folder = tmp_path / "one" / "interviews" / made["id"]
            assert (folder / "transcript.json").exists()

            path = f"{PATH}/{made['id']}"
            reply = await Operator(at_other).ask("DELETE", path)
            assert (reply.status, reply.json()["complete"]) == (202, False)
            again = await Operator(at_other).ask("DELETE", path)
            assert (again.status, again.json()["complete"]) == (202, False)
            await other.erasures.look()
            await owner.erasures.look()
            assert [one.name for one in folder.iterdir()] == ["erased.json"]
            assert found([*MARKS], await asyncio.to_thread(bytes_of, tmp_path)) == []
            assert (tmp_path / "one" / "interviews" / kept["id"] / "transcript.json").exists()
            done = await Operator(at_other).ask("DELETE", path)
            assert (done.status, done.json()["complete"]) == (200, True)
    finally:
        postgres.drop(url)


async def test_a_folder_that_comes_back_after_its_erasure_is_erased_at_the_start(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, join_secret=JOIN_SECRET) as server,
        calling(server.url) as caller,
    ):
        operator = Operator(caller)
        made = [await operator.make() for _ in range(2)]
        reply = await operator.ask("DELETE", f"{PATH}/{made[0]['id']}")
        assert reply.json()["complete"]
    back = [tmp_path / "interviews" / one["id"] for one in made]
    for folder in back:
        await asyncio.to_thread(folder.mkdir, parents=True)
        await asyncio.to_thread((folder / "transcript.json").write_text, json.dumps({"turns": []}))

    async def gone() -> list[str]:
        return await asyncio.to_thread(lambda: [one.name for one in back[0].iterdir()])

    async with serving(tmp_path, admin_key=KEY, join_secret=JOIN_SECRET):
        await eventually(gone, within=10, what="gone", good=lambda names: names == ["erased.json"])
    assert (back[1] / "transcript.json").exists()


async def test_what_cannot_be_erased_yet_stays_wanted(database: Database, tmp_path: Path) -> None:
    asked: list[str] = []

    async def erase(name: str) -> None:
        asked.append(name)
        if len(asked) == 1:
            raise OSError("the disk refused")

    async def make(tx: Transaction) -> None:
        for name, place in (("mine", "here"), ("other", "there")):
            await tx.execute(
                interviews.insert().values(
                    id=name, origin="open", phase="ended", created_at=1, deleted_at=2, place=place
                )
            )

    await database.run(make)
    erasures = Erasures(database, tmp_path, "here", erase)
    for _ in range(3):
        await erasures.look()
    assert asked == ["mine", "mine"]
    assert erasures.erased == 1


def test_every_process_of_a_data_folder_calls_it_by_the_same_name(tmp_path: Path) -> None:
    name = place_of(tmp_path / "a")
    assert name.startswith("place_")
    assert place_of(tmp_path / "a") == name
    assert place_of(tmp_path / "b") != name
