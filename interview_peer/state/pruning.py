"""Removes from the database what has been kept long enough: delivered notices with their
deliveries and attempts, idempotency keys, tokens for coming back, what operators did.

Nothing that is still to be delivered goes, however old; what was given up goes only if the operator
wants it to. Small transactions with pauses: whoever writes what happens never waits long.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from sqlalchemy import and_, delete, exists, or_, select, tuple_, update

from ..errors import StateUnavailable
from ..notices.outbox import DEAD, DELIVERED
from ..notices.types import RecordingFailed
from ..tasks import stop
from . import acts
from .database import Database, Transaction
from .schema import deliveries, interviews, notices, now_us, resume_tokens

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS: Final = 3600.0
AT_ONCE: Final = 200
"""Rows looked at in one transaction."""
PAUSE_SECONDS: Final = 0.05
"""At least so long, and as long as the transaction took, nothing is asked of the database."""
TOKEN_DAYS: Final = 31
"""No interview goes on for so long that its candidate could come back to it."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept."""

    notices: timedelta = timedelta(days=30)
    """After they were delivered."""
    dead: timedelta | None = None
    """After they were given up; None is for ever."""
    keys: timedelta = timedelta(days=7)
    """Idempotency keys, after their request."""
    acts: timedelta = timedelta(days=365)
    """What operators did."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What one transaction did. ``after`` is where the next one goes on; None at the end."""

    after: tuple[int, str] | None
    removed: int


class Pruner:
    """One task per process; several may share a database. ``now`` gives microseconds."""

    def __init__(
        self,
        database: Database,
        retention: Retention,
        *,
        now: Callable[[], int] = now_us,
        at_once: int = AT_ONCE,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._retention = retention
        self._now = now
        self._at_once = at_once
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None
        self.removed: Counter[str] = Counter()
        """Rows by kind, since the start."""

    def start(self) -> None:
        """Begin; the first look is at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="prune the database")

    async def close(self) -> None:
        """Stop. Idempotent."""
        task, self._task = self._task, None
        await stop(task)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except StateUnavailable:
                log.debug("nothing is pruned while the database is away")
            except Exception as error:
                log.error("pruning the database failed", extra={"error": type(error).__name__})
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Remove all that has had its time. Raises ``StateUnavailable``."""
        before = self.removed.copy()
        after: tuple[int, str] | None = (0, "")
        while after is not None:
            page = await self._patiently(functools.partial(self._notices, after=after))
            self.removed["notices"] += page.removed
            after = page.after
        for kind, work in (
            ("keys", self._keys),
            ("tokens", self._tokens),
            ("acts", self._acts),
        ):
            while (gone := await self._patiently(work)) > 0:
                self.removed[kind] += gone
        if self.removed != before:
            log.info("the database was pruned", extra=dict(self.removed - before))

    async def _patiently(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        began = time.monotonic()
        done = await self._database.run(work)
        await asyncio.sleep(max(self._pause_seconds, time.monotonic() - began))
        return done

    async def _notices(self, tx: Transaction, after: tuple[int, str]) -> _Page:
        """One page of old notices: their deliveries that are done, then those without any."""
        now = self._now()
        old = now - self._retention.notices // _MICROSECOND
        place = tuple_(notices.c.created_at, notices.c.id)
        rows = (
            await tx.execute(
                select(notices.c.id, notices.c.created_at)
                .where(notices.c.created_at < old, place > after)
                .order_by(notices.c.created_at, notices.c.id)
                .limit(self._at_once)
            )
        ).all()
        if not rows:
            return _Page(None, 0)
        # What is being sent again just now, or removed by another process, is left for later.
        locked = select(notices.c.id).where(notices.c.id.in_([row.id for row in rows]))
        ids = [*(await tx.execute(locked.with_for_update(skip_locked=True))).scalars()]
        done = and_(deliveries.c.state == DELIVERED, deliveries.c.delivered_at < old)
        if self._retention.dead is not None:
            limit = now - self._retention.dead // _MICROSECOND
            done = or_(done, and_(deliveries.c.state == DEAD, deliveries.c.next_at < limit))
        await tx.execute(delete(deliveries).where(deliveries.c.notice_id.in_(ids), done))
        gone = (
            await tx.execute(
                delete(notices)
                .where(
                    notices.c.id.in_(ids),
                    # By this one it is known that a lost recording was told.
                    notices.c.type != RecordingFailed.type,
                    ~exists().where(deliveries.c.notice_id == notices.c.id),
                )
                .returning(notices.c.interview_id)
            )
        ).all()
        await self._forget_callbacks(tx, {row.interview_id for row in gone} - {None})
        last = rows[-1]
        more = len(rows) == self._at_once
        return _Page((last.created_at, last.id) if more else None, len(gone))

    async def _forget_callbacks(self, tx: Transaction, names: set[str]) -> None:
        """Where an erased interview's notices went, once there are no more to come."""
        await tx.execute(
            update(interviews)
            .where(
                interviews.c.id.in_(names),
                interviews.c.deleted_at.is_not(None),
                ~exists().where(deliveries.c.interview_id == interviews.c.id),
            )
            .values(callback=None)
        )

    async def _keys(self, tx: Transaction) -> int:
        old = self._now() - self._retention.keys // _MICROSECOND
        some = (
            select(interviews.c.id)
            .where(interviews.c.idempotency_key.is_not(None), interviews.c.created_at < old)
            .limit(self._at_once)
        )
        done = await tx.execute(
            update(interviews)
            .where(interviews.c.id.in_(some))
            .values(idempotency_key=None, idempotency_hash=None)
        )
        return done.rowcount

    async def _tokens(self, tx: Transaction) -> int:
        old = self._now() - timedelta(days=TOKEN_DAYS) // _MICROSECOND
        some = select(resume_tokens.c.hash).where(resume_tokens.c.at < old).limit(self._at_once)
        done = await tx.execute(delete(resume_tokens).where(resume_tokens.c.hash.in_(some)))
        return done.rowcount

    async def _acts(self, tx: Transaction) -> int:
        old = self._now() - self._retention.acts // _MICROSECOND
        return await acts.prune(tx, old, self._at_once)
