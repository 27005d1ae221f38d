"""The worker's statements: which deliveries are due, who holds them, how they went.

The same on SQLite and PostgreSQL. A delivery that is being sent stays ``due`` and is leased: its
``next_at`` is the lease's end, so that it comes up again by itself should its holder die. One that
must wait for an earlier one is put off, and brought forward when that one is settled.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Integer,
    String,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ..core.backoff import Before, Meaning, free_at, meaning, pause
from ..state.database import Database
from ..state.schema import attempts, deliveries, endpoints, interviews, notices
from .outbox import DEAD, DEFAULT, DELIVERED, DUE, GONE, PAUSED, stays_off
from .sender import Attempt

log = logging.getLogger(__name__)

SECOND: Final = 1_000_000
LONGEST_WAIT: Final = 60 * SECOND
"""After so long a held delivery looks again by itself, should nobody have brought it forward."""

FAILING_FOR: Final = 5 * 86_400 * SECOND
FAILING_ATTEMPTS: Final = 20
"""An endpoint that took nothing for so long and so often is switched off."""


@dataclass(frozen=True, slots=True)
class Default:
    """The receiver that the operator's settings name."""

    url: str | None
    """None: there is none, but callbacks without a secret are signed with this one."""
    secret: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this worker holds, with all it needs to send it."""

    id: str
    notice_id: str
    destination: str
    endpoint_id: str | None
    interview_id: str | None
    sequence: int | None
    url: str
    secrets: tuple[str, ...]
    body: bytes
    attempts: int
    read_at: int
    """When its body was read: it may be erased since."""
    lease_until: int


def kind_of(one: Claimed) -> str:
    """Which sort of receiver it goes to, in one word: never its address."""
    if one.destination == DEFAULT:
        return "default"
    return "callback" if one.endpoint_id is None else "endpoint"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one look at a destination gave."""

    taken: list[Claimed]
    looked_at: int
    """Deliveries that were due, those that must wait for others included."""


@dataclass(frozen=True, slots=True)
class Result:
    """A delivery that was tried, or (without an attempt) is given back untried."""

    claimed: Claimed
    attempt: Attempt | None
    next_at: int = 0
    """Given back: when it is due again."""


_d, _e = deliveries.c, deliveries.alias("earlier").c

# Goes from destination to destination in the index: a backlog of any length costs nothing here.
_DESTINATIONS: Final = text(
    """
    WITH RECURSIVE known(destination) AS (
        SELECT min(destination) FROM deliveries WHERE state = 'due'
        UNION ALL
        SELECT (SELECT min(destination) FROM deliveries
                WHERE state = 'due' AND destination > known.destination)
        FROM known WHERE known.destination IS NOT NULL
    )
    SELECT destination, (SELECT min(next_at) FROM deliveries
                         WHERE state = 'due' AND destination = known.destination) AS next_at
    FROM known WHERE destination IS NOT NULL
    """
)

_DUE: Final = (
    select(_d.id)
    .where(_d.state == DUE, _d.destination == bindparam("place"), _d.next_at <= bindparam("now"))
    # By the index alone: among equals the order is that of the rule about earlier notices.
    .order_by(_d.next_at)
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)

_EARLIER: Final = and_(
    _e.interview_id == _d.interview_id,
    _e.destination == _d.destination,
    _e.state == DUE,
    _e.sequence < _d.sequence,
)

_DETAILS: Final = (
    select(
        _d.id,
        _d.notice_id,
        _d.destination,
        _d.endpoint_id,
        _d.interview_id,
        _d.sequence,
        _d.url,
        _d.attempts,
        _d.created_at,
        _d.first_failed_at,
        notices.c.body,
        endpoints.c.url.label("endpoint_url"),
        endpoints.c.secrets,
        endpoints.c.active,
        interviews.c.callback,
        select(func.count())
        .where(_EARLIER, _e.first_failed_at.is_(None))
        .scalar_subquery()
        .label("untried"),
        select(func.min(_e.first_failed_at)).where(_EARLIER).scalar_subquery().label("failing"),
    )
    .select_from(
        deliveries.join(notices, notices.c.id == _d.notice_id)
        .outerjoin(endpoints, endpoints.c.id == _d.endpoint_id)
        .outerjoin(interviews, interviews.c.id == _d.interview_id)
    )
    .where(_d.id.in_(bindparam("ids", expanding=True)))
)

_LEASE: Final = (
    update(deliveries)
    .where(_d.id.in_(bindparam("ids", expanding=True)))
    .values(
        lease_owner=bindparam("owner"),
        lease_until=bindparam("until"),
        next_at=bindparam("until"),
    )
)

_PUT_OFF: Final = (
    update(deliveries).where(_d.id == bindparam("which")).values(next_at=bindparam("until"))
)

_MINE: Final = and_(_d.id == bindparam("which"), _d.lease_owner == bindparam("owner"))

_BODY: Final = (
    select(notices.c.body)
    .select_from(deliveries.join(notices, notices.c.id == _d.notice_id))
    .where(_MINE)
)

_GIVE_BACK: Final = (
    update(deliveries)
    .where(_MINE)
    .values(next_at=bindparam("until"), lease_owner=None, lease_until=None)
)

_SETTLE: Final = (
    update(deliveries)
    .where(_MINE)
    .values(
        state=bindparam("new_state"),
        attempts=_d.attempts + 1,
        next_at=bindparam("until"),
        first_failed_at=func.coalesce(_d.first_failed_at, bindparam("failed_at", type_=BigInteger)),
        delivered_at=bindparam("done_at", type_=BigInteger),
        last_status=bindparam("status", type_=Integer),
        last_error=bindparam("error", type_=Text),
        lease_owner=None,
        lease_until=None,
    )
)

# Nothing of a delivery that was erased while it was on its way, nor a second time.
_NOTE: Final = insert(attempts).from_select(
    ["delivery_id", "at", "milliseconds", "status", "error"],
    select(
        cast(bindparam("which"), String),
        cast(bindparam("began"), BigInteger),
        cast(bindparam("took"), Integer),
        cast(bindparam("status", type_=Integer), Integer),
        cast(bindparam("error", type_=Text), Text),
    ).where(exists().where(_MINE)),
)

# Whether it was put off is not asked: another worker may be about to do so, holding the row, and
# then this statement must wait for it.
_BRING_FORWARD: Final = (
    update(deliveries)
    .where(
        _d.id
        == select(_e.id)
        .where(
            _e.interview_id == bindparam("of_interview"),
            _e.destination == bindparam("place"),
            _e.state == DUE,
            _e.sequence > bindparam("after", type_=Integer),
        )
        .order_by(_e.sequence)
        .limit(1)
        .scalar_subquery(),
        _d.state == DUE,
        _d.first_failed_at.is_(None),
        _d.lease_owner.is_(None),
    )
    .values(next_at=bindparam("now"))
)


class Ledger:
    """The deliveries of one database, as one worker (``owner``) sees them."""

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        default: Default | None,
        lease: int,
        chance: Callable[[], float],
    ) -> None:
        self._database = database
        self._owner = owner
        self._default = default
        self._lease = lease
        self._chance = chance

    async def take_back(self, now: int) -> None:
        """At a start: what a killed predecessor held is due now.

        Only where nobody else can be at work, on SQLite; elsewhere its leases run out.
        """
        if not self._database.is_sqlite:
            return

        async def work(tx: AsyncConnection) -> None:
            await tx.execute(
                update(deliveries)
                .where(_d.state == DUE, _d.lease_owner.is_not(None))
                .values(next_at=now, lease_owner=None, lease_until=None)
            )

        await self._database.run(work)

    async def destinations(self) -> dict[str, int]:
        """Every destination something is due for, and since or from when."""

        async def work(tx: AsyncConnection) -> dict[str, int]:
            rows = await tx.execute(_DESTINATIONS)
            return {row.destination: row.next_at for row in rows if row.next_at is not None}

        known = await self._database.run(work)
        if self._default is None or self._default.url is None:
            # The operator took the setting away: these wait until it comes back.
            known.pop(DEFAULT, None)
        return known

    async def claim(self, wanted: Mapping[str, int], now: int) -> dict[str, Claim]:
        """Take up to so many due deliveries of each destination, and nobody else gets them.

        Those of one interview are in their order, and each may be sent only when the one before
        it was delivered.
        """

        async def work(tx: AsyncConnection) -> dict[str, Claim]:
            return {
                place: await self._claim(tx, place, most, now) for place, most in wanted.items()
            }

        return await self._database.run(work)

    async def _claim(self, tx: AsyncConnection, place: str, most: int, now: int) -> Claim:
        ids = (await tx.execute(_DUE, {"place": place, "now": now, "most": most})).scalars().all()
        if not ids:
            return Claim([], 0)
        until = now + self._lease
        taken, put_off, paused = [], [], []
        rows = (await tx.execute(_DETAILS, {"ids": ids})).all()
        lanes: Counter[str] = Counter()
        for row in sorted(rows, key=lambda row: (row.sequence or 0, row.id)):
            if row.active is False:
                paused.append(row.id)
                continue
            # Those before it that are taken with it are sent before it, one after the other.
            untried = row.untried > lanes[row.interview_id]
            free = free_at(row.created_at, Before(untried, row.failing))
            if row.first_failed_at is None and (free is None or free > now):
                later = now + LONGEST_WAIT
                put_off.append({"which": row.id, "until": min(later, free or later)})
                continue
            taken.append(self._claimed(row, now, until))
            lanes[row.interview_id] += row.first_failed_at is None
        if put_off:
            await tx.execute(_PUT_OFF, put_off)
        if paused and await stays_off(tx, place):
            await tx.execute(update(deliveries).where(_d.id.in_(paused)).values(state=PAUSED))
        if taken:
            holder = {"ids": [one.id for one in taken], "owner": self._owner, "until": until}
            await tx.execute(_LEASE, holder)
        return Claim(taken, len(ids))

    def _claimed(self, row: Any, now: int, until: int) -> Claimed:
        url, secrets = "", list[str]()
        if row.destination == DEFAULT:
            if self._default is not None and self._default.url is not None:
                url, secrets = self._default.url, [self._default.secret]
        elif row.endpoint_id is not None:
            url, secrets = row.endpoint_url, in_force(row.secrets, now)
        elif row.url is not None:
            url = row.url
            own = (row.callback or {}).get("secret")
            secrets = [own] if own else [self._default.secret] if self._default else []
        return Claimed(
            id=row.id,
            notice_id=row.notice_id,
            destination=row.destination,
            endpoint_id=row.endpoint_id,
            interview_id=row.interview_id,
            sequence=row.sequence,
            url=url,
            secrets=tuple(secrets),
            body=row.body.encode(),
            attempts=row.attempts,
            read_at=now,
            lease_until=until,
        )

    async def body(self, one: Claimed) -> bytes | None:
        """What a claimed delivery is to send now; None if it was erased, or is held no more."""

        async def work(tx: AsyncConnection) -> str | None:
            found = await tx.execute(_BODY, {"which": one.id, "owner": self._owner})
            return found.scalar_one_or_none()

        text = await self._database.run(work)
        return None if text is None else text.encode()

    async def settle(self, results: Sequence[Result], now: int) -> None:
        """Write down how deliveries went, in one transaction; harmless to repeat."""

        async def work(tx: AsyncConnection) -> None:
            await self._settle(tx, results, now)

        await self._database.run(work)

    async def _settle(self, tx: AsyncConnection, results: Sequence[Result], now: int) -> None:
        back, done, notes, over = [], [], [], []
        gone: list[Claimed] = []
        dead: list[Claimed] = []
        for result in results:
            one, attempt = result.claimed, result.attempt
            mine = {"which": one.id, "owner": self._owner}
            if attempt is None:
                back.append({**mine, "until": result.next_at})
                continue
            row = self._row(one, attempt, now)
            done.append({**mine, **row})
            notes.append(
                {
                    **mine,
                    "began": attempt.at,
                    "took": attempt.milliseconds,
                    "status": attempt.status,
                    "error": attempt.error,
                }
            )
            # Also a first failure may free those behind, which waited for it to be tried.
            if (row["new_state"] != DUE or not one.attempts) and one.interview_id is not None:
                over.append(
                    {
                        "of_interview": one.interview_id,
                        "place": one.destination,
                        "after": one.sequence,
                        "now": now,
                    }
                )
            if meaning(attempt.status) is Meaning.GONE:
                gone.append(one)
            elif row["new_state"] == DEAD:
                dead.append(one)
        for statement, rows in ((_NOTE, notes), (_SETTLE, done), (_GIVE_BACK, back)):
            if rows:
                await tx.execute(statement, rows)
        for one in dead:
            log.warning("a delivery was given up", extra={"delivery": one.id})
        for one in gone:
            await self._stop(tx, one)
        for endpoint_id in {one.endpoint_id for one in dead if one.endpoint_id is not None}:
            await self._switch_off_if_hopeless(tx, endpoint_id, now)
        if over:
            await tx.execute(_BRING_FORWARD, over)

    def _row(self, one: Claimed, attempt: Attempt, now: int) -> dict[str, Any]:
        """What the delivery becomes by this attempt."""
        seconds: float | None = None
        match meaning(attempt.status):
            case Meaning.DELIVERED:
                state = DELIVERED
            case Meaning.GONE:
                state = DEAD
            case Meaning.AGAIN | Meaning.SLOWER:
                seconds = pause(one.attempts + 1, self._chance(), attempt.asked)
                state = DEAD if seconds is None else DUE
        return {
            "new_state": state,
            "until": now + int((seconds or 0) * SECOND),
            "failed_at": None if state == DELIVERED else now,
            "done_at": now if state == DELIVERED else None,
            "status": attempt.status,
            "error": attempt.error,
        }

    async def _stop(self, tx: AsyncConnection, one: Claimed) -> None:
        """The receiver answered 410: an endpoint is switched off, anything else hears no more."""
        if one.endpoint_id is not None:
            await switch_off(tx, one.endpoint_id, "gone")
            return
        log.warning(
            "a receiver answered 410 and gets no more of an interview",
            extra={"session": one.interview_id, "receiver": kind_of(one), "delivery": one.id},
        )
        await tx.execute(
            update(deliveries)
            .where(
                _d.interview_id == one.interview_id,
                _d.destination == one.destination,
                _d.state == DUE,
                _d.lease_owner.is_(None),
            )
            .values(state=DEAD, last_error=GONE)
        )

    async def _switch_off_if_hopeless(
        self, tx: AsyncConnection, endpoint_id: str, now: int
    ) -> None:
        since = now - FAILING_FOR
        of_endpoint = attempts.join(deliveries, _d.id == attempts.c.delivery_id)
        latest = (
            await tx.execute(
                select(
                    func.count(),
                    func.count().filter(attempts.c.status.between(200, 299)),
                )
                .select_from(of_endpoint)
                .where(_d.endpoint_id == endpoint_id, attempts.c.at > since)
            )
        ).one()
        older = await tx.execute(
            select(attempts.c.id)
            .select_from(of_endpoint)
            .where(_d.endpoint_id == endpoint_id, attempts.c.at <= since)
            .limit(1)
        )
        if latest[0] >= FAILING_ATTEMPTS and latest[1] == 0 and older.first() is not None:
            await switch_off(tx, endpoint_id, "failing")


async def switch_off(tx: AsyncConnection, endpoint_id: str, reason: str) -> None:
    """Make an endpoint inactive; what waits for it is paused, not lost."""
    log.warning("a webhook was switched off", extra={"endpoint": endpoint_id, "reason": reason})
    await tx.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id)
        .values(active=False, disabled_reason=reason)
    )
    await tx.execute(
        update(deliveries)
        .where(_d.endpoint_id == endpoint_id, _d.state == DUE, _d.lease_owner.is_(None))
        .values(state=PAUSED)
    )


def in_force(kept: Sequence[Mapping[str, Any]], now: int) -> list[str]:
    """The secrets of an endpoint that sign at ``now``: the current one, and one being replaced."""
    return [str(one["secret"]) for one in kept if one.get("until") is None or one["until"] > now]
