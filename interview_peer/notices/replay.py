"""Sends again, on request, what did not arrive in some time.

A long time is gone through page by page, each in a short transaction of its own, so that neither
running interviews nor other processes wait; and no further in one request than a caller can wait.
"""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import InvalidWebhook, StateUnavailable, WebhookNotFound
from ..state.database import Database
from ..state.schema import deliveries, endpoints, notices, to_us
from ..types import Json
from .outbox import DEAD, DUE, PAUSED, Target, delivery_row, stays_off, wants

PAGE: Final = 500
"""Notices looked at in one transaction of a replay."""
AT_MOST: Final = 10_000
"""Deliveries after which one request stops."""
SECONDS: Final = 10.0
"""So does it after this time."""

_Position = tuple[int, str]
"""When a notice was written, and its id."""


@dataclass(frozen=True, slots=True)
class _Page:
    due: int
    after: _Position | None
    """The last notice that was looked at; None if there are no more."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a replay asks for; times in microseconds."""

    since: int
    until: int
    endpoint_id: str | None
    everything: bool
    after: _Position

    @classmethod
    def read(cls, body: Json, now: int) -> _Asked:
        """Raises ``InvalidWebhook``."""
        unknown = set(body) - {"since", "until", "endpoint_id", "all", "cursor"}
        if unknown:
            raise InvalidWebhook(f"{min(unknown)[:50]!r} is not a field of a replay.")
        since, until = _moment(body, "since"), _moment(body, "until")
        everything, endpoint_id = body.get("all", False), body.get("endpoint_id")
        if since is None:
            raise InvalidWebhook("since is missing.")
        if not isinstance(everything, bool):
            raise InvalidWebhook("all must be true or false.")
        if endpoint_id is not None and not isinstance(endpoint_id, str):
            raise InvalidWebhook("endpoint_id must be text.")
        after: _Position = (0, "")
        if until is None:
            until = now
        if body.get("cursor") is not None:
            # Until when the first of these requests went: what came since is not sent twice.
            until, after = _read_cursor(body["cursor"])
        return cls(since, until, endpoint_id, everything, after)

    def cursor(self, after: _Position) -> str:
        """What continues this replay after a notice."""
        text = f"{self.until}.{after[0]}.{after[1]}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(value: object) -> tuple[int, _Position]:
    try:
        if not isinstance(value, str):
            raise ValueError("not text")
        padded = value.encode("ascii") + b"=" * (-len(value) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        until, at, name = text.split(".")
        numbers = all(len(one) <= 18 and one.isdecimal() for one in (until, at))
        if not numbers or not name.isprintable():
            raise ValueError("not a cursor")
        return int(until), (int(at), name)
    except ValueError:
        raise InvalidWebhook("cursor must be next_cursor of the replay before.") from None


class Replay:
    """``wake`` is called after each commit; ``now`` gives microseconds."""

    def __init__(
        self, database: Database, wake: Callable[[], None], now: Callable[[], int]
    ) -> None:
        self._database = database
        self._wake = wake
        self._now = now

    async def run(self, body: Json) -> Json:
        """Send again what did not arrive since some time; ``{"due", "next_cursor"}``.

        Takes ``{"since", "until"?, "endpoint_id"?, "all"?, "cursor"?}``. Every dead delivery of
        that time is due again; with an endpoint, also notices it never got because it was not kept
        yet; with ``all``, delivered ones too. One request stops after ``AT_MOST`` deliveries or
        ``SECONDS``, and the same request with ``next_cursor`` goes on.

        Raises:
            InvalidWebhook, WebhookNotFound: the request is wrong.
            StateUnavailable: nothing was done.
        """
        asked = _Asked.read(body, self._now())
        deadline = time.monotonic() + SECONDS
        due, begun = 0, False
        after: _Position | None = asked.after
        while after is not None:
            try:
                page = await self._database.run(
                    functools.partial(self._page, asked=asked, after=after)
                )
            except StateUnavailable:
                if not begun:
                    raise
                break
            begun = True
            due, after = due + page.due, page.after
            self._wake()
            if due >= AT_MOST or time.monotonic() >= deadline:
                break
        return {"due": due, "next_cursor": None if after is None else asked.cursor(after)}

    async def _page(self, tx: AsyncConnection, asked: _Asked, after: _Position) -> _Page:
        """Some notices of the time, oldest first, in one short transaction."""
        kept = None
        if asked.endpoint_id is not None:
            kept = await _endpoint(tx, asked.endpoint_id)
        rows = (
            await tx.execute(
                select(
                    notices.c.id,
                    notices.c.created_at,
                    notices.c.interview_id,
                    notices.c.sequence,
                    notices.c.type,
                )
                .where(
                    notices.c.created_at >= asked.since,
                    notices.c.created_at < asked.until,
                    tuple_(notices.c.created_at, notices.c.id) > after,
                )
                .order_by(notices.c.created_at, notices.c.id)
                .limit(PAGE)
                # None may be pruned before its new delivery is written.
                .with_for_update(read=True, key_share=True)
            )
        ).all()
        if not rows:
            return _Page(0, None)
        now = self._now()
        chosen = and_(
            deliveries.c.notice_id.in_([row.id for row in rows]),
            deliveries.c.lease_owner.is_(None),
            deliveries.c.state != PAUSED if asked.everything else deliveries.c.state == DEAD,
            # What waits for its first attempt is on its way, and keeps its place behind others.
            or_(deliveries.c.state != DUE, deliveries.c.first_failed_at.is_not(None)),
        )
        missing = 0
        if kept is not None:
            chosen = and_(chosen, deliveries.c.endpoint_id == kept.id)
            missing = await _add_missing(tx, kept, rows, now)
        changed = await tx.execute(update(deliveries).where(chosen).values(**again(now)))
        last = rows[-1]
        more = len(rows) == PAGE
        return _Page(changed.rowcount + missing, (last.created_at, last.id) if more else None)


async def _endpoint(tx: AsyncConnection, endpoint_id: str) -> Any:
    row = None
    if storable(endpoint_id):
        found = await tx.execute(
            select(endpoints.c.id, endpoints.c.active, endpoints.c.events).where(
                endpoints.c.id == endpoint_id
            )
        )
        row = found.one_or_none()
    if row is None:
        raise WebhookNotFound
    return row


async def _add_missing(tx: AsyncConnection, kept: Any, rows: Sequence[Any], now: int) -> int:
    """Deliveries for those notices that an endpoint wants and has none of."""
    found = await tx.execute(
        select(deliveries.c.notice_id).where(
            deliveries.c.endpoint_id == kept.id,
            deliveries.c.notice_id.in_([row.id for row in rows]),
        )
    )
    has = set(found.scalars())
    paused = not kept.active and await stays_off(tx, kept.id)
    target = Target(kept.id, endpoint_id=kept.id, paused=paused)
    made = [
        delivery_row(target, row.id, row.interview_id, row.sequence, now)
        for row in rows
        if row.interview_id is not None and row.id not in has and wants(kept.events, row.type)
    ]
    if made:
        await tx.execute(insert(deliveries), made)
    return len(made)


def again(now: int) -> Json:
    """What makes a delivery due now, with the whole schedule before it."""
    # ``first_failed_at`` stays: what is sent again holds up nothing that came later.
    return {
        "state": DUE,
        "attempts": 0,
        "next_at": now,
        "first_failed_at": func.coalesce(deliveries.c.first_failed_at, deliveries.c.created_at),
        "delivered_at": None,
    }


def _moment(body: Json, name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        return to_us(datetime.fromisoformat(value))
    except (ValueError, TypeError, OverflowError):
        raise InvalidWebhook(f"{name} must be a time with a zone, as in RFC 3339.") from None


def storable(text: str) -> bool:
    """Whether a database takes the text: PostgreSQL takes no NUL and no half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
