"""Writes notices to the database, in the transaction of what they tell.

Decides which destinations a notice goes to. When and how it gets there is the worker's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..state.schema import deliveries, endpoints, interviews, notices
from ..types import SessionId
from .types import (
    ONLY_BY_NAME,
    WITH_CANDIDATE,
    WITH_CONTENT,
    Notice,
    WebhookTest,
    body_of,
    new_id,
    without_candidate,
)

DEFAULT: Final = "default"
"""The destination that the operator's settings name."""

CALLBACK: Final = "callback:"

DUE: Final = "due"
PAUSED: Final = "paused"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
STATES: Final = (DUE, PAUSED, DELIVERED, DEAD)

GONE: Final = "gone"
"""The error of what is not sent, because its receiver answered 410 before."""

_REFUSED_STATUS: Final = 410


@dataclass(frozen=True, slots=True)
class Target:
    """One place that a notice goes to."""

    destination: str
    endpoint_id: str | None = None
    url: str | None = None
    paused: bool = False


class Outbox:
    """Puts notices down together with one delivery for each destination."""

    def __init__(self, *, has_default: bool, base_url: str = "") -> None:
        self._has_default = has_default
        self._base_url = base_url.rstrip("/")

    async def write(
        self,
        tx: AsyncConnection,
        notice: Notice,
        now: int,
        *,
        only: Target | None = None,
    ) -> list[str]:
        """Write a notice and its deliveries, due at once; the ids of the deliveries.

        Nothing is committed here: they come to be together with what the caller wrote, or not at
        all. ``now`` is in microseconds. ``only`` sends it to that place alone. A notice that
        nobody wants and that goes only to who asks for it is not kept.

        Raises:
            LookupError: the notice is of an interview that is not in the database.
            ValueError: its body is too large.
        """
        callback: Any = None
        refused: set[str] = set()
        if notice.interview_id is not None:
            found = await tx.execute(_INTERVIEW, {"interview": notice.interview_id})
            callback, any_refused = found.one_or_none() or (None, False)
            if any_refused:
                found = await tx.execute(_REFUSED, {"interview": notice.interview_id})
                refused = set(found.scalars())
        if only is not None:
            targets = [only]
        else:
            targets = await self._targets(tx, notice.fact.type, callback)
        if not targets and notice.fact.type in ONLY_BY_NAME:
            return []
        sequence = await _next_sequence(tx, notice.interview_id)
        await tx.execute(
            insert(notices).values(
                id=notice.id,
                interview_id=notice.interview_id,
                sequence=sequence,
                type=notice.fact.type,
                created_at=now,
                body=body_of(notice, sequence, self._base_url),
            )
        )
        rows = [
            dict(delivery_row(target, notice.id, notice.interview_id, sequence, now))
            for target in targets
        ]
        for row in rows:
            gone = row["destination"] in refused
            row |= {"state": DEAD if gone else row["state"], "last_error": GONE if gone else None}
        if rows:
            await tx.execute(insert(deliveries), rows)
        return [str(row["id"]) for row in rows]

    async def _targets(self, tx: AsyncConnection, kind: str, callback: Any) -> list[Target]:
        targets = []
        if self._has_default and wants(None, kind):
            targets.append(Target(DEFAULT))
        if isinstance(callback, dict) and wants(callback.get("events"), kind):
            url = str(callback.get("url"))
            targets.append(Target(callback_destination(url), url=url))
        kept = await tx.execute(
            select(endpoints.c.id, endpoints.c.events, endpoints.c.active).order_by(endpoints.c.id)
        )
        for row in kept.all():
            if wants(row.events, kind):
                paused = not row.active and await stays_off(tx, row.id)
                targets.append(Target(row.id, endpoint_id=row.id, paused=paused))
        return targets

    async def test(self, tx: AsyncConnection, endpoint_id: str, now: int) -> str:
        """Write a test notice to one endpoint; the id of its delivery."""
        target = Target(endpoint_id, endpoint_id=endpoint_id)
        (delivery_id,) = await self.write(tx, Notice(None, WebhookTest()), now, only=target)
        return delivery_id


async def stays_off(tx: AsyncConnection, endpoint_id: str) -> bool:
    """Whether an endpoint is switched off, and is not switched on before this transaction's end.

    To be asked before anything is paused for it: who switches it on makes due what is paused, and
    would not see what another transaction pauses at the same time.
    """
    off = endpoints.c.active.is_(False)
    query = select(endpoints.c.id).where(endpoints.c.id == endpoint_id, off)
    return (await tx.execute(query.with_for_update(read=True))).first() is not None


def wants(events: Sequence[str] | None, kind: str) -> bool:
    """Whether a list of events takes a type; ``*`` is every type, None those that most want."""
    if events is None:
        return kind not in ONLY_BY_NAME
    return kind in events or "*" in events


def callback_destination(url: str) -> str:
    """The destination of callbacks to one host: they wait and rest together."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    return CALLBACK + hashlib.sha256(origin.encode()).hexdigest()[:32]


def delivery_row(
    target: Target, notice_id: str, interview_id: str | None, sequence: int | None, now: int
) -> Mapping[str, Any]:
    """One delivery, as it is inserted."""
    return {
        "id": new_id("dlv"),
        "notice_id": notice_id,
        "endpoint_id": target.endpoint_id,
        "destination": target.destination,
        "url": target.url,
        "interview_id": interview_id,
        "sequence": sequence,
        "state": PAUSED if target.paused else DUE,
        "attempts": 0,
        "next_at": now,
        "created_at": now,
    }


async def erase(tx: AsyncConnection, interview_id: SessionId) -> int:
    """Remove the notices of an interview that hold what was said, delivered or not; how many.

    The others lose what they tell of the candidate, so that those still to be delivered tell the
    rest. Belongs into the transaction that erases the interview, before ``interview.deleted`` is
    written: receivers see a gap in the sequence and then why.
    """
    here = notices.c.interview_id == interview_id
    gone = await tx.execute(delete(notices).where(here, notices.c.type.in_(sorted(WITH_CONTENT))))
    kept = await tx.execute(
        select(notices.c.id, notices.c.body).where(here, notices.c.type.in_(sorted(WITH_CANDIDATE)))
    )
    blank = [{"which": row.id, "text": without_candidate(row.body)} for row in kept]
    if blank:
        await tx.execute(_REWRITE, blank)
    return gone.rowcount


_OF_REFUSED: Final = (
    deliveries.c.interview_id == bindparam("interview"),
    deliveries.c.endpoint_id.is_(None),
    deliveries.c.state == DEAD,
    deliveries.c.last_status == _REFUSED_STATUS,
)

_INTERVIEW: Final = select(
    interviews.c.callback, exists().where(*_OF_REFUSED).label("refused")
).where(interviews.c.id == bindparam("interview"))

# Endpoints are not among them: they are switched off instead.
_REFUSED: Final = select(deliveries.c.destination).where(*_OF_REFUSED).distinct()

_REWRITE: Final = (
    update(notices).where(notices.c.id == bindparam("which")).values(body=bindparam("text"))
)

_TAKE_SEQUENCE: Final = (
    update(interviews)
    .where(interviews.c.id == bindparam("interview"))
    .values(next_sequence=interviews.c.next_sequence + 1)
    .returning(interviews.c.next_sequence)
)


async def _next_sequence(tx: AsyncConnection, interview_id: SessionId | None) -> int | None:
    if interview_id is None:
        return None
    taken = (await tx.execute(_TAKE_SEQUENCE, {"interview": interview_id})).scalar_one_or_none()
    if taken is None:
        raise LookupError("a notice of an interview that is not in the database")
    return int(taken) - 1
