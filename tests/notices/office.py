"""Interviews and notices in a database, and workers on it, for tests that deliver."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select

from interview_peer.notices import ledger, signing
from interview_peer.notices.guard import Guard, networks
from interview_peer.notices.ledger import Default
from interview_peer.notices.outbox import Outbox
from interview_peer.notices.sender import Sender
from interview_peer.notices.types import Fact, InterviewReconnecting, Notice, new_id
from interview_peer.notices.worker import Limits, NoticeWorker
from interview_peer.state.database import Database
from interview_peer.state.schema import attempts, deliveries, endpoints, interviews, now_us
from interview_peer.types import SessionId
from tests.support.waiting import eventually

SECRET = signing.new_secret()
LOOPBACK = networks(["127.0.0.0/8"])
MINUTE = 60 * ledger.SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class ManualClock:
    """Time that passes when it is told to, in microseconds."""

    def __init__(self) -> None:
        self.now = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * ledger.SECOND

    def __call__(self) -> int:
        return self.now


class Office:
    """What the state side does: writes interviews and notices."""

    def __init__(self, database: Database, now: Any = now_us, *, has_default: bool = True) -> None:
        self.database = database
        self.now = now
        self.outbox = Outbox(has_default=has_default)

    async def interview(self, callback: Any = None) -> SessionId:
        """A new interview."""
        made = new_id("int")
        async with self.database.begin() as tx:
            await tx.execute(
                insert(interviews).values(
                    id=made, origin="api", phase="live", created_at=self.now(), callback=callback
                )
            )
        return SessionId(made)

    async def endpoint(self, url: str, **fields: Any) -> str:
        """A new endpoint, with one secret."""
        made = new_id("ep")
        values = {"secrets": [{"secret": SECRET, "until": None}], "created_at": self.now()}
        async with self.database.begin() as tx:
            await tx.execute(insert(endpoints).values(id=made, url=url, **{**values, **fields}))
        return made

    async def tell(self, interview: SessionId | None, fact: Fact | None = None) -> str:
        """Write one notice; its id."""
        notice = Notice(interview, fact or InterviewReconnecting("lost"))
        async with self.database.begin() as tx:
            await self.outbox.write(tx, notice, self.now())
        return notice.id

    async def tell_many(self, interviews: Sequence[SessionId], each: int) -> list[str]:
        """Write ``each`` notices for every interview, taking turns; their ids."""
        ids = []
        async with self.database.begin() as tx:
            for _ in range(each):
                for interview in interviews:
                    notice = Notice(interview, InterviewReconnecting("lost"))
                    await self.outbox.write(tx, notice, self.now())
                    ids.append(notice.id)
        return ids

    async def states(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        async with self.database.begin() as tx:
            rows = await tx.execute(
                select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
            )
            return {row[0]: row[1] for row in rows}

    async def come_to(self, states: dict[str, int], within: float = 10.0) -> None:
        """Wait until the deliveries are in these states."""
        await eventually(
            self.states, within=within, what=str(states), good=lambda seen: seen == states
        )

    async def delivery(self, notice_id: str) -> Any:
        """The one delivery of a notice."""
        async with self.database.begin() as tx:
            return (
                await tx.execute(select(deliveries).where(deliveries.c.notice_id == notice_id))
            ).one()

    async def attempts(self) -> list[Any]:
        """Every attempt that was noted, in order."""
        async with self.database.begin() as tx:
            return list(await tx.execute(select(attempts).order_by(attempts.c.id)))


@contextlib.asynccontextmanager
async def working(
    database: Database,
    default_url: str | None = None,
    *,
    now: Any = now_us,
    seconds: float = 5.0,
    limits: Limits | None = None,
    chance: float = 0.5,
    guard: Guard | None = None,
) -> AsyncIterator[NoticeWorker]:
    """A worker that is not started; closed afterwards."""
    worker = NoticeWorker(
        database,
        Sender(guard or Guard(LOOPBACK), total_seconds=seconds),
        default=Default(default_url, SECRET) if default_url else None,
        limits=limits or Limits(lease_seconds=seconds + 5, close_seconds=0.2),
        now=now,
        chance=lambda: chance,
    )
    try:
        yield worker
    finally:
        await worker.close()
