"""An endpoint is switched on while another transaction is about to pause something for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import text, update

from interview_peer.notices.desk import Desk
from interview_peer.notices.guard import Guard
from interview_peer.notices.outbox import Outbox
from interview_peer.notices.replay import Replay, _Asked
from interview_peer.notices.types import InterviewReconnecting, Notice
from interview_peer.state.database import Database, Transaction
from interview_peer.state.schema import endpoints, now_us
from interview_peer.types import SessionId
from tests.support.waiting import eventually

from .office import Office, working
from .receiver import Receiver


@dataclass
class Two:
    """Two connections to one database; the first pauses, the second switches on."""

    first: Database
    second: Database
    office: Office
    endpoint: str
    interview: SessionId

    async def switched_on_during(self, work: Callable[[Transaction], Awaitable[object]]) -> None:
        """Do ``work`` on the first, and ask the second to switch on before that is committed."""
        desk = Desk(self.second, Outbox(has_default=False), Guard(), lambda: None)
        async with self.first.begin() as tx:
            await work(tx)
            change = asyncio.create_task(desk.change(self.endpoint, {"active": True}))
            await eventually(
                lambda: self._is_done_or_waits(change), within=10, what="that it was asked"
            )
        assert (await change)["active"]

    async def _is_done_or_waits(self, change: asyncio.Task[object]) -> bool:
        if change.done():
            return True
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with self.second.begin() as tx:
            return bool((await tx.execute(waiting)).scalar_one())


@pytest.fixture
async def two(postgres_url: str, open_database: Callable[[str], Awaitable[Database]]) -> Two:
    first, second = await open_database(postgres_url), await open_database(postgres_url)
    office = Office(first, has_default=False)
    endpoint = await office.endpoint("https://example.org/", active=False)
    return Two(first, second, office, endpoint, await office.interview())


async def test_a_notice_that_is_being_written_is_due_once_its_endpoint_is_on(two: Two) -> None:
    notice = Notice(two.interview, InterviewReconnecting("lost"))
    await two.switched_on_during(lambda tx: two.office.outbox.write(tx, notice, now_us()))
    assert await two.office.states() == {"due": 1}


async def test_a_notice_that_is_being_claimed_is_due_once_its_endpoint_is_on(
    two: Two, receiver: Receiver
) -> None:
    async with two.first.begin() as tx:
        await tx.execute(update(endpoints).values(active=True))
    await two.office.tell(two.interview)
    async with two.first.begin() as tx:
        # As a process does that fails between the two.
        await tx.execute(update(endpoints).values(active=False))
    async with working(two.first) as worker:
        await two.switched_on_during(
            lambda tx: worker._ledger._claim(tx, two.endpoint, 4, now_us())
        )
    assert await two.office.states() == {"due": 1}


async def test_a_notice_that_is_being_replayed_is_due_once_its_endpoint_is_on(two: Two) -> None:
    async with two.first.begin() as tx:
        # At first it wants other types, so that there is something that it missed.
        await tx.execute(update(endpoints).values(events=["interview.ended"]))
    await two.office.tell(two.interview)
    async with two.first.begin() as tx:
        await tx.execute(update(endpoints).values(events=None))
    asked = _Asked.read(
        {"since": "2020-01-01T00:00:00Z", "endpoint_id": two.endpoint}, now_us() + 1
    )
    replay = Replay(two.first, lambda: None, now_us)
    await two.switched_on_during(lambda tx: replay._page(tx, asked, asked.after))
    assert await two.office.states() == {"due": 1}
