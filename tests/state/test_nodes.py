"""Nodes that share one PostgreSQL: who is taken for dead, when, and by whose clock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from interview_peer.errors import StateUnavailable
from interview_peer.session.recovery import Recovery
from interview_peer.state import migrate
from interview_peer.state.chronicle import Chronicle
from interview_peer.state.database import Database, Transaction
from interview_peer.state.nodes import GAP_SECONDS, GONE_SECONDS, Heartbeat, database_time
from interview_peer.state.schema import interviews
from tests.state.telling import interview, life, records
from tests.support.postgres import Postgres

BEAT = 5.0
ANSWERS_SECONDS = 20.0
"""Within which a PostgreSQL that runs answers: one that has just come up on a busy machine, whose
connections from before are dead, needs more than one second."""
AWAY_SECONDS = 0.5
"""After which one that is stopped is not waited for."""


class Time:
    """The database's time, which stands still but for what tests let pass."""

    def __init__(self) -> None:
        self._now: int | None = None
        self._ahead = 0.0

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds

    async def __call__(self, tx: Transaction) -> int:
        if self._now is None:
            self._now = await database_time(tx)
        return self._now + int(self._ahead * 1e6)


class Node:
    """One process: its own connections, its heartbeat, and its look at the others."""

    def __init__(self, name: str, database: Database, clock: Time, data_dir: Path) -> None:
        self.name = name
        self.database = database
        self.heartbeat = Heartbeat(database, name, clock)
        self.chronicle = Chronicle(database, records())
        self._recovery = Recovery(database, data_dir, name, self.chronicle.tell, self.heartbeat)

    async def look(self) -> None:
        """Look for what others left, and have it written down."""
        await self._recovery.look()
        await self.chronicle.drained()

    async def holds(self, interview_id: str) -> None:
        """Have a live interview."""
        for happening in life(interview_id)[:3]:
            await self.database.run(lambda tx, one=happening: records().write(tx, one))  # type: ignore[misc]
        async with self.database.begin() as tx:
            mine = interviews.update().where(interviews.c.id == interview_id)
            await tx.execute(mine.values(node_id=self.name))

    async def phase_of(self, interview_id: str) -> str:
        return str((await interview(self.database, interview_id)).phase)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
async def pair(
    restartable_postgres: Postgres, tmp_path: Path, clock: Time
) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes on a PostgreSQL that may be stopped; the second one holds an interview."""
    url = restartable_postgres.create()
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in ("first", "second"):
            database = await Database.open(url, tmp_path / name, patience=ANSWERS_SECONDS)
            stack.push_async_callback(database.close)
            await migrate.upgrade(database)
            node = Node(name, database, clock, tmp_path / name)
            node.chronicle.start()
            stack.push_async_callback(node.chronicle.close)
            made.append(node)
        first, second = made
        await second.holds("talk")
        yield first, second


async def live_on(clock: Time, seconds: float, *nodes: Node) -> None:
    """Let time pass while these nodes are heard."""
    for _ in range(int(seconds / BEAT)):
        clock.pass_by(BEAT)
        for node in nodes:
            await node.heartbeat.say()


async def outage(postgres: Postgres, clock: Time, seconds: float, *nodes: Node) -> None:
    """The database goes, nobody is heard, and it comes back."""
    await asyncio.to_thread(postgres.stop, "immediate")
    for node in nodes:
        node.database.patience = AWAY_SECONDS
        with pytest.raises(StateUnavailable):
            await node.heartbeat.say()
        node.database.patience = ANSWERS_SECONDS
    await asyncio.to_thread(postgres.start)
    clock.pass_by(seconds)


async def test_whoever_is_first_back_after_an_outage_closes_nothing_of_the_others(
    pair: tuple[Node, Node], restartable_postgres: Postgres, clock: Time
) -> None:
    first, second = pair
    await live_on(clock, 2 * GONE_SECONDS, first, second)
    await outage(restartable_postgres, clock, 5 * GONE_SECONDS, first, second)
    # It looks before it spoke itself, after that, and still a while later.
    await first.look()
    await live_on(clock, BEAT, first)
    await first.look()
    await live_on(clock, 2 * BEAT, first)
    await first.look()
    await live_on(clock, 2 * GONE_SECONDS, first, second)
    await first.look()
    assert await second.phase_of("talk") == "live"


async def test_node_that_does_not_come_back_from_an_outage_is_closed_in_the_end(
    pair: tuple[Node, Node], restartable_postgres: Postgres, clock: Time
) -> None:
    first, second = pair
    await live_on(clock, 2 * GONE_SECONDS, first, second)
    await outage(restartable_postgres, clock, 5 * GONE_SECONDS, first)
    await live_on(clock, GONE_SECONDS, first)
    await first.look()
    assert await first.phase_of("talk") == "live"
    await live_on(clock, 2 * BEAT, first)
    await first.look()
    assert await first.phase_of("talk") == "ended"


async def test_node_that_was_paused_itself_does_not_blame_the_others(
    pair: tuple[Node, Node], clock: Time
) -> None:
    first, second = pair
    await live_on(clock, 2 * GONE_SECONDS, first, second)
    # Both stood still, as on a machine that slept; the second is a moment later to wake.
    clock.pass_by(GONE_SECONDS + GAP_SECONDS)
    await first.look()
    await first.heartbeat.say()
    await first.look()
    assert await second.phase_of("talk") == "live"


async def test_node_that_has_just_started_judges_nobody(
    pair: tuple[Node, Node], clock: Time
) -> None:
    first, second = pair
    await second.heartbeat.say()
    clock.pass_by(2 * GONE_SECONDS)
    await first.heartbeat.say()
    await first.look()
    await live_on(clock, GONE_SECONDS, first)
    await first.look()
    assert await second.phase_of("talk") == "live"
    await live_on(clock, 2 * BEAT, first)
    await first.look()
    assert await second.phase_of("talk") == "ended"


@pytest.mark.parametrize("hours", [-2, 2])
async def test_clocks_of_the_nodes_may_be_wrong(
    pair: tuple[Node, Node], clock: Time, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    real = time.time_ns
    wrong: Callable[[], int] = lambda: real() + hours * 3_600_000_000_000  # noqa: E731
    for _ in range(int(2 * GONE_SECONDS / BEAT)):
        await live_on(clock, BEAT, first)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", wrong)
            await second.heartbeat.say()
        await first.look()
    assert await second.phase_of("talk") == "live"
    await live_on(clock, GONE_SECONDS + BEAT, first)
    await first.look()
    assert await second.phase_of("talk") == "ended"
