"""What integrators and operators do with webhooks: keep endpoints, look at deliveries, send again.

Takes and gives plain JSON values; who may ask is decided by the caller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ..core.tokens import digest
from ..errors import (
    DeliveryNotFound,
    IdempotencyConflict,
    InvalidWebhook,
    TooManyWebhooks,
    WebhookNotFound,
)
from ..state.database import Database
from ..state.schema import (
    attempts,
    deliveries,
    endpoints,
    interviews,
    notices,
    now_us,
    rfc3339,
)
from ..types import Json
from . import signing
from .guard import Guard
from .ledger import SECOND, in_force
from .outbox import DUE, PAUSED, STATES, Outbox
from .replay import Replay, again, storable
from .types import FACTS, new_id

MAX_ENDPOINTS: Final = 50
MAX_DESCRIPTION: Final = 500
MAX_KEY: Final = 255
MAX_PAGE: Final = 200
OVERLAP_SECONDS: Final = 86_400
"""How long a replaced secret goes on signing beside the new one."""

_FIELDS: Final = frozenset({"url", "events", "description", "active", "secret"})


class Desk:
    """The webhooks of one server."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        guard: Guard,
        wake: Callable[[], None],
        now: Callable[[], int] = now_us,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._guard = guard
        self._wake = wake
        self._now = now
        self._replay = Replay(database, wake, now)

    # -- endpoints ------------------------------------------------------------------------------

    async def create(self, body: Json, key: str | None = None) -> tuple[Json, bool]:
        """Keep a new endpoint, and whether an earlier request did; the answer holds its secret.

        Args:
            key: makes it safe to ask again when nobody knows what became of the first request.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            InvalidWebhook, TooManyWebhooks, StateUnavailable: nothing is kept.
        """
        fields = self._fields(body, _FIELDS - {"active"})
        if "url" not in fields:
            raise InvalidWebhook("url is missing.")
        if key is not None and not (1 <= len(key) <= MAX_KEY and storable(key)):
            raise InvalidWebhook(f"Idempotency-Key must have 1 to {MAX_KEY} characters.")
        key = None if key is None else digest(key)
        fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        secret = fields.pop("secret", None) or signing.new_secret()
        row = {
            "id": new_id("ep"),
            "created_at": self._now(),
            "secrets": [{"secret": secret, "until": None}],
            "active": True,
            "events": None,
            "description": None,
            "idempotency_key": key,
            "idempotency_hash": fingerprint if key is not None else None,
            **fields,
        }
        # The row may be there already: after a commit whose outcome nobody knows, or by the key.
        same = endpoints.c.id == row["id"]
        if key is not None:
            same = or_(same, endpoints.c.idempotency_key == key)

        async def work(tx: AsyncConnection) -> Any:
            known = (await tx.execute(select(endpoints).where(same))).one_or_none()
            if known is not None:
                return known
            kept = (await tx.execute(select(func.count()).select_from(endpoints))).scalar_one()
            if kept >= MAX_ENDPOINTS:
                raise TooManyWebhooks
            await tx.execute(insert(endpoints).values(row))
            return (await tx.execute(select(endpoints).where(same))).one()

        try:
            made = await self._database.run(work)
        except IntegrityError:
            # The same key at the same time: the other request has it by now.
            made = await self._database.run(work)
        repeated = made.id != row["id"]
        if repeated and made.idempotency_hash != fingerprint:
            raise IdempotencyConflict
        return {**self._shown(made), "secret": in_force(made.secrets, self._now())[0]}, repeated

    async def endpoints(self) -> list[Json]:
        """Every endpoint, oldest first."""

        async def work(tx: AsyncConnection) -> list[Json]:
            rows = await tx.execute(select(endpoints).order_by(endpoints.c.id))
            return [self._shown(row) for row in rows]

        return await self._database.run(work)

    async def endpoint(self, endpoint_id: str) -> Json:
        """One endpoint, and how its deliveries stand. Raises ``WebhookNotFound``."""

        async def work(tx: AsyncConnection) -> Json:
            shown = await self._endpoint(tx, endpoint_id)
            counted = await tx.execute(
                select(deliveries.c.state, func.count())
                .where(deliveries.c.endpoint_id == endpoint_id)
                .group_by(deliveries.c.state)
            )
            found = {row[0]: row[1] for row in counted}
            return {**shown, "deliveries": {state: found.get(state, 0) for state in STATES}}

        return await self._database.run(work)

    async def change(self, endpoint_id: str, body: Json) -> Json:
        """Change some fields; an endpoint that is switched on again gets what was kept for it."""
        fields = self._fields(body, _FIELDS - {"secret"})
        if "active" in fields:
            fields["disabled_reason"] = None if fields["active"] else "request"
        now = self._now()

        async def work(tx: AsyncConnection) -> Json:
            await self._endpoint(tx, endpoint_id)
            if fields:
                await tx.execute(
                    update(endpoints).where(endpoints.c.id == endpoint_id).values(fields)
                )
            if "active" in fields:
                before, after = (PAUSED, DUE) if fields["active"] else (DUE, PAUSED)
                await tx.execute(
                    update(deliveries)
                    .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.state == before)
                    .where(deliveries.c.lease_owner.is_(None))
                    .values(state=after, next_at=now)
                )
            return await self._endpoint(tx, endpoint_id)

        changed = await self._database.run(work)
        self._wake()
        return changed

    async def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint and its deliveries. Raises ``WebhookNotFound``."""

        async def work(tx: AsyncConnection) -> None:
            await self._endpoint(tx, endpoint_id)
            await tx.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))

        await self._database.run(work)

    async def rotate(self, endpoint_id: str) -> Json:
        """Give an endpoint a new secret; the one before goes on signing for a day."""
        secret = signing.new_secret()
        now = self._now()
        until = now + OVERLAP_SECONDS * SECOND

        async def work(tx: AsyncConnection) -> Json:
            await self._endpoint(tx, endpoint_id)
            found = await tx.execute(
                select(endpoints.c.secrets).where(endpoints.c.id == endpoint_id).with_for_update()
            )
            old = [
                {**one, "until": one["until"] or until}
                for one in found.scalar_one()
                if one["until"] is None or one["until"] > now
            ]
            kept = [{"secret": secret, "until": None}, *old][:4]
            await tx.execute(
                update(endpoints).where(endpoints.c.id == endpoint_id).values(secrets=kept)
            )
            return await self._endpoint(tx, endpoint_id)

        return {**await self._database.run(work), "secret": secret}

    async def test(self, endpoint_id: str) -> Json:
        """Send a notice of type ``webhook.test`` to an endpoint; its delivery, which is due."""

        async def work(tx: AsyncConnection) -> Json:
            shown = await self._endpoint(tx, endpoint_id)
            if not shown["active"]:
                raise InvalidWebhook("The endpoint is not active; switch it on first.")
            delivery_id = await self._outbox.test(tx, endpoint_id, self._now())
            return await self._delivery(tx, delivery_id)

        written = await self._database.run(work)
        self._wake()
        return written

    def _fields(self, body: Json, known: frozenset[str]) -> Json:
        """The fields of a body, each checked."""
        for name in body:
            if name not in known:
                raise InvalidWebhook(f"{name[:50]!r} is not a field of a webhook.")
        fields = dict(body)
        if "url" in fields:
            self._guard.check_url(fields["url"])
        if fields.get("events") is not None:
            fields["events"] = event_names(fields["events"])
        if not isinstance(fields.get("active", True), bool):
            raise InvalidWebhook("active must be true or false.")
        description = fields.get("description")
        if description is not None and (
            not isinstance(description, str)
            or len(description) > MAX_DESCRIPTION
            or not storable(description)
        ):
            raise InvalidWebhook(
                f"description must be text of at most {MAX_DESCRIPTION} characters."
            )
        if fields.get("secret") is not None:
            try:
                signing.key_of(str(fields["secret"]))
            except signing.BadSecret:
                raise InvalidWebhook(
                    "secret must be whsec_ followed by 24 to 64 bytes in base64."
                ) from None
        return fields

    async def _endpoint(self, tx: AsyncConnection, endpoint_id: str) -> Json:
        if not storable(endpoint_id):
            raise WebhookNotFound
        found = await tx.execute(select(endpoints).where(endpoints.c.id == endpoint_id))
        row = found.one_or_none()
        if row is None:
            raise WebhookNotFound
        return self._shown(row)

    def _shown(self, row: Any) -> Json:
        return {
            "id": row.id,
            "url": row.url,
            "events": row.events,
            "description": row.description,
            "active": row.active,
            "disabled_reason": row.disabled_reason,
            "created_at": rfc3339(row.created_at),
            "secrets_in_force": len(in_force(row.secrets, self._now())),
        }

    # -- deliveries -----------------------------------------------------------------------------

    async def deliveries(
        self,
        *,
        state: str | None = None,
        endpoint_id: str | None = None,
        interview_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Json:
        """Deliveries, newest first: ``{"deliveries": […], "next_cursor": … | null}``."""
        if state is not None and state not in STATES:
            raise InvalidWebhook(f"state must be one of {', '.join(STATES)}.")
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidWebhook(f"limit must be a whole number from 1 to {MAX_PAGE}.")
        asked = _DELIVERIES.order_by(deliveries.c.id.desc()).limit(limit + 1)
        for column, value in (
            (deliveries.c.state, state),
            (deliveries.c.endpoint_id, endpoint_id),
            (deliveries.c.interview_id, interview_id),
        ):
            if value is not None:
                asked = asked.where(column == _text(value))
        if cursor is not None:
            asked = asked.where(deliveries.c.id < _text(cursor))

        async def work(tx: AsyncConnection) -> Json:
            rows = (await tx.execute(asked)).all()
            return {
                "deliveries": [_delivery(row) for row in rows[:limit]],
                "next_cursor": rows[limit - 1].id if len(rows) > limit else None,
            }

        return await self._database.run(work)

    async def of_interview(self, interview_id: str, cursor: str | None, limit: int) -> Json:
        """The deliveries of one interview, newest first."""
        return await self.deliveries(interview_id=interview_id, cursor=cursor, limit=limit)

    async def interview_exists(self, interview_id: str) -> bool:
        """Whether the database knows an interview, erased ones included."""

        async def work(tx: AsyncConnection) -> bool:
            found = await tx.execute(
                select(interviews.c.id).where(interviews.c.id == _text(interview_id))
            )
            return found.first() is not None

        return await self._database.run(work)

    async def delivery(self, delivery_id: str) -> Json:
        """One delivery with its attempts and its body. Raises ``DeliveryNotFound``."""

        async def work(tx: AsyncConnection) -> Json:
            shown = await self._delivery(tx, delivery_id)
            body = await tx.execute(
                select(notices.c.body).where(notices.c.id == shown["notice_id"])
            )
            tried = await tx.execute(
                select(attempts)
                .where(attempts.c.delivery_id == delivery_id)
                .order_by(attempts.c.id)
                .limit(MAX_PAGE)
            )
            shown["body"] = body.scalar_one()
            shown["tried"] = [
                {
                    "at": rfc3339(row.at),
                    "milliseconds": row.milliseconds,
                    "status": row.status,
                    "error": row.error,
                }
                for row in tried
            ]
            return shown

        return await self._database.run(work)

    async def retry(self, delivery_id: str) -> Json:
        """Make one delivery due now, with the whole schedule before it, whatever its state."""
        now = self._now()

        async def work(tx: AsyncConnection) -> Json:
            await self._delivery(tx, delivery_id)
            await tx.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery_id, deliveries.c.lease_owner.is_(None))
                .values(**again(now))
            )
            return await self._delivery(tx, delivery_id)

        changed = await self._database.run(work)
        self._wake()
        return changed

    async def replay(self, body: Json) -> Json:
        """Send again what did not arrive: see ``Replay.run``."""
        return await self._replay.run(body)

    async def _delivery(self, tx: AsyncConnection, delivery_id: str) -> Json:
        row = None
        if storable(delivery_id):
            found = await tx.execute(_DELIVERIES.where(deliveries.c.id == delivery_id))
            row = found.one_or_none()
        if row is None:
            raise DeliveryNotFound
        return _delivery(row)


_DELIVERIES: Final[Select[Any]] = select(
    deliveries, notices.c.type, endpoints.c.url.label("endpoint_url")
).select_from(
    deliveries.join(notices, notices.c.id == deliveries.c.notice_id).outerjoin(
        endpoints, endpoints.c.id == deliveries.c.endpoint_id
    )
)


def _delivery(row: Any) -> Json:
    return {
        "id": row.id,
        "notice_id": row.notice_id,
        "type": row.type,
        "interview_id": row.interview_id,
        "sequence": row.sequence,
        "endpoint_id": row.endpoint_id,
        # The operator's own receiver has no address here: it may be a secret.
        "url": row.endpoint_url or row.url,
        "state": row.state,
        "attempts": row.attempts,
        "created_at": rfc3339(row.created_at),
        "next_attempt_at": rfc3339(row.next_at) if row.state == DUE else None,
        "delivered_at": None if row.delivered_at is None else rfc3339(row.delivered_at),
        "last_status": row.last_status,
        "last_error": row.last_error,
    }


def event_names(value: object) -> list[str]:
    """A list of notice types, or ``*`` for all. Raises ``InvalidWebhook``."""
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(one, str) and (one in FACTS or one == "*") for one in names):
        known = ", ".join(sorted(FACTS))
        raise InvalidWebhook(f"events must be null or a list of: {known}, *.")
    return sorted(set(names))


def _text(value: str) -> str:
    if not storable(value):
        raise InvalidWebhook("A parameter has a character that no id has.")
    return value
