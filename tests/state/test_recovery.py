"""What a server that went down left behind, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from interview_peer.errors import ConfigurationError
from interview_peer.session import recovery as recovery_module
from interview_peer.session.recovery import Left, Recovery, end_of
from interview_peer.state import migrate
from interview_peer.state.chronicle import Chronicle
from interview_peer.state.database import Database, Transaction
from interview_peer.state.happenings import Finished
from interview_peer.state.nodes import Heartbeat, NodeName
from interview_peer.state.schema import interviews, nodes, now_us
from interview_peer.storage.folder import UNTOLD, InterviewFolder
from interview_peer.storage.journal import Journal
from interview_peer.types import Direction, SessionId
from tests.state.telling import NODE, TOLD, body, interview, life, records, said, told
from tests.support.caller import Caller, calling
from tests.support.inprocess import recorded, serving
from tests.support.operator import KEY, Operator
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

SPOKEN = "response.output_audio_transcript.done"
HEARD = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "item_1",
    "content_index": 0,
}


@contextlib.asynccontextmanager
async def opened(url: str | None, data_dir: Path) -> AsyncIterator[Database]:
    database = await Database.open(url, data_dir)
    try:
        await migrate.upgrade(database)
        yield database
    finally:
        await database.close()


def environment(url: str | None) -> dict[str, str]:
    return {} if url is None else {"DATABASE_URL": url}


async def journalled(server: ServerProcess, name: str, kind: str) -> None:
    """Wait until an event of this kind is in the interview's journal on disk."""

    def look() -> bool:
        file = server.folder(name) / "events.jsonl"
        return file.is_file() and kind.encode() in file.read_bytes()

    await eventually(lambda: asyncio.to_thread(look), within=15, what=f"{kind} on disk")


async def killed_within_an_interview(folder: Path, url: str | None) -> str:
    """A server that goes down while the interviewer speaks; the interview's id."""
    async with running_server(folder, **environment(url)) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        caller.speak()
        await caller.event(SPOKEN)
        await journalled(server, caller.session_id, SPOKEN)
        await server.kill()
        return caller.session_id


async def recovered_by_the_next(folder: Path, url: str | None) -> None:
    async with running_server(folder, **environment(url)) as server:
        await eventually(
            lambda: asyncio.sleep(0, server.tail(5000)),
            within=20,
            what="the recovery",
            good=lambda log: "interview recovered" in log and "interview finished" in log,
        )


async def test_killed_interview_is_closed_as_recovered_with_its_notices(
    database_url: str | None, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with opened(database_url, data):
        pass
    name = await killed_within_an_interview(tmp_path, database_url)
    assert not (data / "interviews" / name / "transcript.json").exists()
    await recovered_by_the_next(tmp_path, database_url)
    # Once more: there is nothing left to recover.
    async with running_server(tmp_path, **environment(database_url)):
        pass
    async with opened(database_url, data) as database:
        row = await interview(database, name)
        assert (row.phase, row.reason) == ("ended", "recovered")
        assert row.seconds > 0 and row.ended_at > row.started_at
        assert row.usage is None or row.usage["total_tokens"] > 0
        types = [kind for kind in TOLD if kind != "interview.reconnecting"]
        assert await told(database, name) == types
        transcript = json.loads((data / "interviews" / name / "transcript.json").read_text())
        assert [turn["text"] for turn in transcript["turns"]] == await said(database, name)
        assert "interviewer" in {turn["speaker"] for turn in transcript["turns"]}
        files = (await body(database, name, "recording.ready"))["files"]
        names = {"candidate.ogg", "interviewer.ogg", "mixed.webm", "waveform.json"}
        names |= {f"transcript.{kind}" for kind in ("json", "txt", "vtt", "srt")}
        assert {one["name"] for one in files} == {*names, "events.jsonl"}
        # Measured after they were mended, not before.
        for one in files:
            content = (data / "interviews" / name / one["name"]).read_bytes()
            assert one["sha256"] == hashlib.sha256(content).hexdigest(), one["name"]


async def test_interview_that_never_reached_the_database_is_recovered_from_its_folder(
    restartable_postgres: Postgres, tmp_path: Path
) -> None:
    url = restartable_postgres.create()
    async with opened(url, tmp_path / "data"):
        pass
    async with running_server(tmp_path, DATABASE_URL=url) as server, calling(server.url) as caller:
        await asyncio.to_thread(restartable_postgres.stop)
        await caller.open()
        await caller.connect()
        await caller.event(SPOKEN)
        name = caller.session_id
        await journalled(server, name, SPOKEN)
        await server.kill()
    await asyncio.to_thread(restartable_postgres.start)
    await recovered_by_the_next(tmp_path, url)
    async with opened(url, tmp_path / "data") as database:
        assert (await interview(database, name)).reason == "recovered"
        assert await told(database, name) == [
            "interview.created",
            "interview.started",
            "interview.ended",
            "transcript.completed",
            "recording.ready",
        ]


async def test_interview_that_ended_while_the_database_was_away_ends_so_after_a_kill(
    restartable_postgres: Postgres, tmp_path: Path
) -> None:
    url = restartable_postgres.create()
    async with opened(url, tmp_path / "data"):
        pass
    async with running_server(tmp_path, DATABASE_URL=url) as server, calling(server.url) as caller:
        await asyncio.to_thread(restartable_postgres.stop)
        await caller.open()
        await caller.connect()
        await caller.event(SPOKEN)
        name = caller.session_id
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        # Finished to the last file, and untold.
        manifest = server.folder(name) / "manifest.json"
        await eventually(lambda: asyncio.to_thread(manifest.exists), within=20, what="the manifest")
        await server.kill()
    await asyncio.to_thread(restartable_postgres.start)
    async with opened(url, tmp_path / "data") as database:
        assert await interview(database, name) is None
        for _ in range(2):
            async with running_server(tmp_path, DATABASE_URL=url):
                await eventually(
                    lambda: asyncio.to_thread(
                        (tmp_path / "data/interviews" / name / UNTOLD).exists
                    ),
                    within=20,
                    what="that it is told",
                    good=lambda marked: not marked,
                )
        row = await interview(database, name)
        assert (row.phase, row.reason) == ("ended", "client_request")
        assert row.created_at < row.started_at < row.ended_at and row.seconds > 0
        assert await told(database, name) == [
            "interview.created",
            "interview.started",
            "interview.ended",
            "transcript.completed",
            "recording.ready",
        ]
        assert await said(database, name)


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'away' USING ERRCODE = '57P03';
END $$;
"""
ON_BEGINNING = """
CREATE TRIGGER away BEFORE UPDATE ON interviews FOR EACH ROW
WHEN (NEW.phase <> 'created') EXECUTE FUNCTION refuse();
"""


async def test_invited_interview_that_ran_unwritten_does_not_expire(
    postgres_url: str, tmp_path: Path
) -> None:
    """From its beginning on the database takes nothing of it, until the server is killed."""
    environment = {
        "DATABASE_URL": postgres_url,
        "INTERVIEW_ADMIN_KEY": KEY,
        "INTERVIEW_JOIN_SECRET": "a-join-secret-of-more-than-32-characters",
    }
    async with opened(postgres_url, tmp_path / "data") as database:
        async with database.begin() as tx:
            await tx.execute(text(REFUSE))
            await tx.execute(text(ON_BEGINNING))
        async with (
            running_server(tmp_path, **environment) as server,
            calling(server.url) as caller,
        ):
            made = await Operator(caller).make()
            await caller.open()
            await caller.send({"type": "init", "token": made["join_token"]})
            await caller.message("session", where=lambda one: one["sessionId"] == made["id"])
            await caller.connect()
            await caller.event(SPOKEN)
            await journalled(server, made["id"], SPOKEN)
            await server.kill()
        assert await phase_of(database, made["id"]) == "created"
        long_ago = now_us() - 3_600_000_000
        async with database.begin() as tx:
            await tx.execute(text("DROP TRIGGER away ON interviews"))
            await tx.execute(interviews.update().values(expires_at=long_ago))
        async with running_server(tmp_path, **environment):
            await ended(database, made["id"])
        assert (await interview(database, made["id"])).reason == "recovered"
        assert (await told(database, made["id"]))[:4] == [
            "interview.created",
            "interview.started",
            "interview.ended",
            "transcript.completed",
        ]
        assert await said(database, made["id"])


async def test_running_interview_goes_on_while_the_database_is_away(
    restartable_postgres: Postgres, tmp_path: Path
) -> None:
    url = restartable_postgres.create()
    async with opened(url, tmp_path):
        pass
    async with serving(tmp_path, database_url=url) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await asyncio.to_thread(restartable_postgres.stop, "immediate")
        await caller.event(SPOKEN)
        heard = len(caller.audio.items)
        await caller.sound(heard + 10)
        await caller.drop()
        await caller.phase("detached")
        await caller.connect()
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        assert server.state.chronicle.statistics()["waiting"] > 0
        await asyncio.to_thread(restartable_postgres.start)
        name = caller.session_id
        await eventually(
            lambda: asyncio.sleep(0, server.finishing.finished), within=20, what="its recording"
        )
        await asyncio.wait_for(server.state.chronicle.drained(), 20)
    async with opened(url, tmp_path) as database:
        assert await told(database, name) == TOLD
        assert (await interview(database, name)).reason == "client_request"


async def test_interview_ended_by_a_stop_is_written_before_the_server_goes(
    database_url: str | None, tmp_path: Path
) -> None:
    async with opened(database_url, tmp_path / "data"):
        pass
    async with contextlib.AsyncExitStack() as callers:
        async with running_server(tmp_path, **environment(database_url)) as server:
            caller: Caller = await callers.enter_async_context(calling(server.url))
            await caller.open()
            await caller.connect()
            name = caller.session_id
    async with opened(database_url, tmp_path / "data") as database:
        row = await interview(database, name)
        assert (row.phase, row.reason) == ("ended", "server_shutdown")
        assert "transcript.completed" in await told(database, name)
    # Its recording is finished by the next one, where the first had not the time.
    async with running_server(tmp_path, **environment(database_url)) as server:
        await eventually(
            lambda: asyncio.to_thread((server.folder(name) / "manifest.json").exists),
            within=20,
            what="the manifest",
        )
    async with running_server(tmp_path, **environment(database_url)) as server:
        pass
    async with opened(database_url, tmp_path / "data") as database:
        assert (await told(database, name))[-1] == "recording.ready"


async def test_greeted_client_that_never_offers_leaves_no_trace(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.leave()
        name = caller.session_id
    async with opened(None, tmp_path) as database:
        assert await interview(database, name) is None


# -- several nodes


async def left_by(database: Database, node: str, name: str) -> None:
    """A live interview of this node's, with one turn written."""
    for happening in life(name)[:3]:
        await database.run(lambda tx, one=happening: records().write(tx, one))  # type: ignore[misc]
    async with database.begin() as tx:
        await tx.execute(interviews.update().values(node_id=node).where(interviews.c.id == name))


class Judging(Heartbeat):
    """Has been heard for long enough to know who else lives."""

    def __init__(self, database: Database, *others: str) -> None:
        super().__init__(database, NODE)
        self._others = others

    async def living(self, tx: Transaction) -> set[str]:
        return {NODE, *self._others}


@contextlib.asynccontextmanager
async def recovering(database: Database, data_dir: Path, *others: str) -> AsyncIterator[Chronicle]:
    chronicle = Chronicle(database, records())
    chronicle.start()
    heartbeat = Judging(database, *others)
    recovery = Recovery(database, data_dir, NODE, chronicle.tell, heartbeat)
    await recovery.start()
    yield chronicle
    await recovery.close()
    await chronicle.close()


async def phase_of(database: Database, name: str) -> str:
    row: Any = await interview(database, name)
    return str(row.phase)


async def made(database: Database, name: str) -> None:
    await eventually(lambda: interview(database, name), within=10, what="its row")


async def ended(database: Database, name: str) -> None:
    await eventually(
        lambda: phase_of(database, name),
        within=10,
        what="its end",
        good=lambda phase: phase == "ended",
    )


async def test_node_that_is_gone_is_tidied_up_after_by_another(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "LOOK_SECONDS", 0.05)
    async with opened(postgres_url, tmp_path) as database:
        async with recovering(database, tmp_path, "alive"):
            await left_by(database, "alive", "running")
            await left_by(database, "gone", "lost")
            await left_by(database, NODE, "mine")
            await ended(database, "lost")
        assert await phase_of(database, "running") == "live"
        assert await phase_of(database, "mine") == "live"
        # Its folder is elsewhere; what was said had been written as it was said.
        assert await said(database, "lost") == ["words 0"]
        assert (await told(database, "lost"))[-3:] == [
            "interview.ended",
            "transcript.completed",
            "recording.failed",
        ]


async def test_start_closes_what_its_own_earlier_run_left_and_nobody_elses(
    postgres_url: str, tmp_path: Path
) -> None:
    async with opened(postgres_url, tmp_path) as database:
        await left_by(database, "alive", "running")
        # Whether this one is gone cannot be known yet.
        await left_by(database, "silent", "unknown")
        await left_by(database, NODE, "mine")
        async with recovering(database, tmp_path, "alive"):
            await ended(database, "mine")
        assert await phase_of(database, "running") == "live"
        assert await phase_of(database, "unknown") == "live"


def recorded_by(node: str, data_dir: Path, name: str) -> InterviewFolder:
    """A folder that a node left in mid-interview."""
    folder = InterviewFolder(data_dir, SessionId(name))
    folder.create()
    folder.mark_untold(node)
    lines = [
        {"type": "interview.started", "session_id": name},
        {"type": "interview.phase", "before": "connecting", "phase": "live"},
    ]
    (folder.path / "events.jsonl").write_text(
        "".join(
            json.dumps(
                {"t": t, "at": f"2026-11-20T10:00:0{t}.000Z", "direction": None, "event": one}
            )
            + "\n"
            for t, one in enumerate(lines)
        )
    )
    return folder


async def test_folder_of_a_node_that_is_gone_is_told_by_another_and_only_that(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "LOOK_SECONDS", 0.05)
    async with opened(postgres_url, tmp_path) as database:
        for node in ("gone", "alive", NODE):
            recorded_by(node, tmp_path, f"by-{node}")
        async with database.begin() as tx:
            await tx.execute(insert(nodes).values(id="gone", started_at=1, seen_at=1))
        async with recovering(database, tmp_path, "alive") as chronicle:
            await made(database, "by-gone")
            await made(database, f"by-{NODE}")
            await chronicle.drained()
        assert await interview(database, "by-alive") is None
        row = await interview(database, "by-gone")
        assert (row.phase, row.reason) == ("ended", "recovered")
        assert (await told(database, "by-gone"))[:2] == ["interview.created", "interview.started"]


async def test_folders_that_cannot_be_read_at_once_are_read_later_and_hold_up_no_other(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "READ_PAUSES", (0.01, 0.01))
    for name in ("broken", "refused", "shy", "well"):
        recorded_by(NODE, tmp_path, name)
        await left_by(database, NODE, name)
    asked: Counter[str] = Counter()

    def reading(left: Left, data_dir: Path) -> Any:
        asked[left.id] += 1
        if left.id == "broken":
            raise ValueError("not foreseen")
        if left.id == "refused" or (left.id == "shy" and asked["shy"] < 2):
            raise OSError(errno.EMFILE, "too many open files")
        return end_of(left, data_dir)

    monkeypatch.setattr(recovery_module, "end_of", reading)
    chronicle = Chronicle(database, records())
    chronicle.start()
    recovery = Recovery(database, tmp_path, NODE, chronicle.tell)
    await recovery.start()
    await asyncio.wait_for(recovery.told.wait(), 10)
    await chronicle.drained()
    await recovery.close()
    await chronicle.close()
    assert asked == {"broken": 1, "refused": 3, "shy": 2, "well": 1}
    assert await phase_of(database, "broken") == "live"
    # Read after all, it is told with what its journal knows.
    rows = {name: await interview(database, name) for name in ("shy", "well", "refused")}
    assert rows["shy"].ended_at == rows["well"].ended_at != rows["refused"].ended_at
    assert await phase_of(database, "refused") == "ended"


async def test_mark_that_was_left_on_a_told_folder_is_taken_off_and_tells_nothing(
    database: Database, tmp_path: Path
) -> None:
    for happening in life("over"):
        await database.run(lambda tx, one=happening: records().write(tx, one))  # type: ignore[misc]
    folder = recorded_by(NODE, tmp_path, "over")
    before = await told(database, "over")
    chronicle = Chronicle(database, records())
    chronicle.start()
    recovery = Recovery(database, tmp_path, NODE, chronicle.tell)
    await recovery.start()
    assert not folder.is_untold()
    await recovery.close()
    await chronicle.close()
    assert await told(database, "over") == before


async def test_mark_stands_while_an_interview_runs_and_goes_when_its_end_is_written(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await recorded(server, caller)
        folder = InterviewFolder(tmp_path, SessionId(caller.session_id))
        assert folder.is_untold()
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        await eventually(
            lambda: asyncio.to_thread(folder.is_untold),
            within=10,
            what="that it is told",
            good=lambda marked: not marked,
        )


def test_words_that_hold_line_separators_of_other_kinds_are_recovered(tmp_path: Path) -> None:
    folder = InterviewFolder(tmp_path, SessionId("one"))
    folder.create()
    words = "first\u2028second\u0085third"
    journal = Journal(folder.session_id, 0.0, datetime(2026, 1, 1, tzinfo=UTC))
    journal.record(Direction.TO_BROWSER, 1.0, HEARD | {"transcript": words})
    (folder.path / "events.jsonl").write_bytes(journal.take())
    end = end_of(Left(folder.session_id, None), tmp_path)[-1]
    assert isinstance(end, Finished)
    assert [turn.text for turn in end.turns or ()] == [words]


def test_interview_of_which_nothing_is_left_has_a_transcript_without_turns(tmp_path: Path) -> None:
    left = Left(SessionId("gone"), datetime(2026, 11, 20, 10, tzinfo=UTC))
    (end,) = end_of(left, tmp_path)
    assert isinstance(end, Finished)
    assert end.reason.value == "recovered"
    assert end.transcript is not None
    assert end.transcript["turns"] == []


def test_node_keeps_its_name_over_restarts(tmp_path: Path) -> None:
    first = NodeName.claim(tmp_path, alone=True)
    with pytest.raises(ConfigurationError, match="^Another interview_peer is running"):
        NodeName.claim(tmp_path, alone=True)
    shared = NodeName.claim(tmp_path, alone=False)
    assert shared.name != first.name
    first.release()
    shared.release()
    again = NodeName.claim(tmp_path, alone=True)
    assert again.name == first.name
    again.release()


async def test_second_server_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(ConfigurationError, match="INTERVIEW_DATA_DIR"):
            async with serving(tmp_path):
                raise AssertionError("it started")
