"""Interviews as the API sees them: made, looked up, listed, ended and erased.

What a request changes is written in its own transaction, together with its notice; what happens
while an interview runs is the chronicle's to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Row, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ..core.consent import Policy
from ..core.lifecycle import WAITING, Phase, Reason
from ..core.tokens import digest
from ..core.transcript_text import FORMATS
from ..core.turns import Turn, TurnKind, TurnStatus, document
from ..errors import (
    IdempotencyConflict,
    InterviewElsewhere,
    InterviewNotLive,
    InterviewRunning,
    NotFound,
    RecordingDamaged,
    RecordingNotReady,
    SessionBusy,
    SessionEnded,
    SessionNotFound,
    StateUnavailable,
    StoreUnavailable,
)
from ..notices.types import InterviewCreated, InterviewDeleted, InterviewEnded, Notice
from ..session.archive import NO_TRANSCRIPT, Archive, Content
from ..session.interview import Interview
from ..session.registry import Interviews
from ..state.database import Transaction
from ..state.parts import StateParts
from ..state.records import FINAL, erase
from ..state.schema import (
    from_us,
    interviews,
    now_us,
    turns,
    used_tokens,
)
from ..storage.finished import TOMBSTONE_NAME
from ..storage.keeper import Erasure
from ..tasks import stop
from ..types import INVITED, ItemId, Json, SessionId, Speaker
from . import times
from .new_interview import Wanted

log = logging.getLogger(__name__)

END_SECONDS: Final = 45.0
"""How long erasing waits for the end: legs, then files, have time limits of their own."""
TOLD_SECONDS: Final = 5.0
EXPIRE_EVERY_SECONDS: Final = 30.0
GRACE_US: Final = 60 * 1_000_000
"""After its expiry nobody is let in; whoever just was has this long to be written down."""
AT_ONCE: Final = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """Which interviews to list, newest first."""

    phase: str | None = None
    created_after: int | None = None
    """Microseconds; from this moment on."""
    created_before: int | None = None
    """Microseconds; up to, without, this moment."""
    candidate_reference: str | None = None
    after: tuple[int, str] | None = None
    """When it was made and the id of the last one seen."""
    limit: int = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Goodbye:
    """What is said before the end."""

    seconds: float
    """How long it may take, with what is being said at that time."""
    words: str | None = None
    """The words; None lets the interviewer find them."""


GOODBYE: Final = (
    "The interview ends now. Thank the candidate in one or two sentences, say goodbye, and ask "
    "nothing more."
)
"""What the model is told where nobody gives it the words."""


class InterviewStore:
    """The interviews of the database and of this process, together."""

    def __init__(self, live: Interviews, archive: Archive, state: StateParts) -> None:
        self._live = live
        self._archive = archive
        self._state = state
        self._database = state.database
        self._outbox = state.outbox
        self._chronicle = state.chronicle
        self._place = state.place

    @property
    def shared(self) -> bool:
        """Whether other processes may hold interviews of the same database."""
        return self._state.heartbeat is not None

    # -- making and finding ---------------------------------------------------------------------

    async def create(self, session_id: SessionId, wanted: Wanted) -> tuple[Row[Any], bool]:
        """Make an interview and tell of it; its row, and whether an earlier request made it.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            StateUnavailable: nothing was made, or it is not known; the key makes it safe to repeat.
        """
        now = now_us()
        request = wanted.request
        # The key may name a candidate, and is kept for longer than what is known of one.
        key = None if wanted.key is None else digest(wanted.key)
        expires = now + request.limits.expires_in_seconds * 1_000_000
        persona = None if request.plan is not None else wanted.interviewer.name
        callback = request.callback
        required = wanted.consent is Policy.REQUIRED
        values: Json = {
            "id": session_id,
            "origin": INVITED,
            "phase": (Phase.CONSENT if required else Phase.CREATED).value,
            "consent": wanted.consent.value,
            # Whoever has the agreement already said so now.
            "consent_at": now if wanted.consent is Policy.GIVEN else None,
            "created_at": now,
            "expires_at": expires,
            "persona": persona,
            "plan": dataclasses.asdict(wanted.interviewer),
            "candidate_reference": request.candidate_reference,
            "metadata": request.metadata,
            "limits": request.limits.model_dump(),
            "callback": None if callback is None else callback.model_dump(),
            "idempotency_key": key,
            "idempotency_hash": None if key is None else wanted.fingerprint,
        }
        fact = InterviewCreated(
            origin=INVITED,
            persona=persona,
            candidate_reference=request.candidate_reference,
            metadata=request.metadata,
            expires_at=from_us(expires),
        )
        notice = Notice(session_id, fact, from_us(now))

        async def earlier(tx: Transaction) -> Row[Any] | None:
            same = interviews.c.id == session_id
            if key is not None:
                same = or_(same, interviews.c.idempotency_key == key)
            return (await tx.execute(select(interviews).where(same))).one_or_none()

        async def work(tx: Transaction) -> tuple[Row[Any], bool]:
            known = await earlier(tx)
            if known is not None:
                return known, True
            await tx.execute(insert(interviews).values(**values))
            await self._outbox.write(tx, notice, now)
            made = await earlier(tx)
            assert made is not None
            return made, False

        try:
            row, repeated = await self._database.run(work)
        except IntegrityError:
            # The same key at the same time: the other request has made it by now.
            row, repeated = await self._database.run(work)
        repeated = repeated and row.id != session_id
        if repeated and (row.idempotency_hash != wanted.fingerprint or row.deleted_at is not None):
            raise IdempotencyConflict
        self._chronicle.wake()
        return row, repeated

    async def find(self, session_id: str) -> Row[Any] | None:
        """The row of an interview, erased ones too."""

        async def look(tx: Transaction) -> Row[Any] | None:
            query = select(interviews).where(interviews.c.id == session_id)
            return (await tx.execute(query)).one_or_none()

        return await self._database.run(look)

    async def page(self, wanted: Filters) -> list[Row[Any]]:
        """Up to ``limit`` interviews and one more, if there is one, newest first."""
        table = interviews.c
        query = select(interviews).where(table.deleted_at.is_(None))
        if wanted.phase is not None:
            query = query.where(table.phase == wanted.phase)
        if wanted.created_after is not None:
            query = query.where(table.created_at >= wanted.created_after)
        if wanted.created_before is not None:
            query = query.where(table.created_at < wanted.created_before)
        if wanted.candidate_reference is not None:
            query = query.where(table.candidate_reference == wanted.candidate_reference)
        if wanted.after is not None:
            at, name = wanted.after
            query = query.where(
                or_(table.created_at < at, and_(table.created_at == at, table.id < name))
            )
        query = query.order_by(table.created_at.desc(), table.id.desc()).limit(wanted.limit + 1)

        async def look(tx: Transaction) -> list[Row[Any]]:
            return [*(await tx.execute(query))]

        return await self._database.run(look)

    def running(self, session_id: str) -> Interview | None:
        """The interview, if this process knows it."""
        try:
            return self._live.find(session_id)
        except SessionNotFound:
            return None

    async def files(self, session_id: str) -> list[str] | None:
        """Names of its files on this machine; nothing if it has no folder."""
        return await self._live.files(session_id)

    async def outcome(self, session_id: str) -> tuple[str, str | None] | None:
        """Phase and reason of one that is over, as its manifest has them."""
        return await self._live.outcome(session_id)

    async def finishing(self, session_id: str) -> Json | None:
        """How far its recording is; nothing while it runs, and where nothing was recorded."""
        return await self._live.finishing(session_id)

    async def transcript(self, session_id: str, kind: str = "json") -> Content | bytes:
        """The transcript: its file, of one that runs what was said so far, or what the database
        holds. ``kind`` is ``json`` or one of ``FORMATS``.

        Raises:
            RecordingErased: it was erased.
            SessionNotFound, NotFound: there is none, or none yet.
            RecordingDamaged, StoreUnavailable: its file cannot be had, and nothing is in the
                database.
        """
        running = self.running(session_id)
        if running is not None and not running.finished.is_set():
            document = running.transcript_so_far()
            if document is None:
                raise NotFound("Nobody has spoken in that interview yet.")
            return _written(document, kind)
        if kind != "json":
            # Recordings finished by an earlier version lack this file, and so do unfinished ones.
            with contextlib.suppress(
                InterviewRunning, NotFound, SessionNotFound, RecordingNotReady, RecordingDamaged
            ):
                return await self._archive.transcript(session_id, kind)
        try:
            found = await self._archive.transcript(session_id)
        except (NotFound, SessionNotFound, RecordingDamaged, StoreUnavailable) as error:
            kept = await self._kept_transcript(session_id)
            if kept is None:
                if isinstance(error, SessionNotFound) and await self._is_kept(session_id):
                    raise NotFound(NO_TRANSCRIPT) from None
                raise error
            return _written(kept, kind)
        if kind == "json":
            return found
        if isinstance(found, Content):
            found = b"".join([piece async for piece in found.read(0, found.file.bytes)])
        return _written(json.loads(found), kind)

    async def _is_kept(self, session_id: str) -> bool:
        row = await self.find(session_id)
        return row is not None and row.deleted_at is None

    async def _kept_transcript(self, session_id: str) -> Json | None:
        async def look(tx: Transaction) -> Json | None:
            query = select(interviews).where(interviews.c.id == session_id)
            row = (await tx.execute(query)).one_or_none()
            if row is None or row.deleted_at is not None:
                return None
            query = select(turns).where(turns.c.interview_id == session_id)
            said = [_turn(one) for one in await tx.execute(query.order_by(turns.c.position))]
            began = row.started_at or row.created_at
            if not said:
                return None
            over = row.phase in FINAL
            return document(SessionId(session_id), from_us(began), said, final=over)

        return await self._database.run(look)

    # -- ending and erasing ---------------------------------------------------------------------

    async def held(self, session_id: str) -> Interview:
        """An interview that this process holds, over or not.

        Raises:
            SessionNotFound: there is none, or it was erased.
            SessionEnded: it is over.
            InterviewElsewhere: another process holds it.
            InterviewNotLive: nobody came yet.
        """
        running = self.running(session_id)
        if running is not None and (running.phase not in WAITING or running.origin != INVITED):
            return running

        async def look(tx: Transaction) -> tuple[Row[Any] | None, bool]:
            query = select(interviews).where(interviews.c.id == session_id)
            row = (await tx.execute(query)).one_or_none()
            elsewhere = row is not None and await self._state.is_elsewhere(tx, row.node_id)
            return row, elsewhere

        row, elsewhere = await self._database.run(look)
        if row is None or row.deleted_at is not None:
            raise SessionNotFound
        if row.phase in FINAL:
            raise SessionEnded
        if elsewhere or Phase(row.phase) not in WAITING:
            raise InterviewElsewhere
        raise InterviewNotLive

    async def end(
        self, session_id: str, within: float = 15.0, goodbye: Goodbye | None = None
    ) -> None:
        """End an interview and wait until it is over, or ``within`` seconds; again is harmless.

        With a ``goodbye`` that is said first, if somebody is there to hear it, and the time for it
        is waited for besides.

        Raises:
            SessionNotFound: there is none, or it was erased.
            InterviewElsewhere: another process holds it.
        """
        running = self.running(session_id)
        if running is None or (running.phase in WAITING and running.origin == INVITED):
            await self._end_unused(session_id)
            running = self.running(session_id)
        if running is None:
            return
        if goodbye is None:
            running.end_soon(Reason.OPERATOR_REQUEST)
        else:
            within += goodbye.seconds
            running.end_politely_soon(
                Reason.OPERATOR_REQUEST,
                goodbye.seconds,
                instruction="" if goodbye.words else GOODBYE,
                words=goodbye.words or "",
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await running.finished.wait()
            async with asyncio.timeout(TOLD_SECONDS):
                await self._chronicle.drained()

    async def _end_unused(self, session_id: str) -> None:
        async def work(tx: Transaction) -> None:
            row = await _locked(tx, session_id)
            if row is None or row.deleted_at is not None:
                raise SessionNotFound
            if row.phase in FINAL:
                return
            if await self._state.is_elsewhere(tx, row.node_id):
                # A candidate is in it there, or coming in; here it may have been asked for before.
                raise InterviewElsewhere
            if Phase(row.phase) not in WAITING:
                if self.running(session_id) is None:
                    raise InterviewElsewhere
                return
            await self._close(tx, row, Reason.OPERATOR_REQUEST)

        await self._database.run(work)
        self._chronicle.wake()

    async def _close(self, tx: Transaction, row: Row[Any], reason: Reason) -> None:
        """End an interview that nobody ever joined."""
        now = now_us()
        await tx.execute(
            update(interviews)
            .where(interviews.c.id == row.id)
            .values(phase=Phase.ENDED.value, reason=reason.value, ended_at=now)
        )
        fact = InterviewEnded(
            reason=reason.value,
            ended_at=from_us(now),
            candidate_reference=row.candidate_reference,
            metadata=row.metadata,
        )
        await self._outbox.write(tx, Notice(SessionId(row.id), fact, from_us(now)), now)

    async def erase(self, session_id: str, *, end: bool = False) -> Json:
        """Remove an interview's words and files; again is harmless.

        Files that another process's data folder has are erased by that one, which sees in the
        database that they are to go; until then it is not ``complete``.

        Files go first, and leave a tombstone: what a failure of the database leaves is erased when
        it is asked again, or after the next start. Returns what was removed.

        Raises:
            SessionNotFound: there is none.
            InterviewRunning: it runs, and is not to be ended.
            InterviewElsewhere: another process holds it.
            SessionBusy: it takes too long to end.
            RecordingNotReady: another process works on its files.
            StoreUnavailable: it is not known whether the store holds any.
        """
        row = await self.find(session_id)
        running = self.running(session_id)
        if running is not None and not running.finished.is_set():
            # Nobody talks in one that is only made: it goes as it is.
            if running.phase not in WAITING and not end:
                raise InterviewRunning(
                    "The interview is still running. End it first, or ask with ?end=true."
                )
        if (row is None or row.deleted_at is None) and (running is not None or row is not None):
            await self.end(session_id, END_SECONDS)
        running = self.running(session_id)
        if running is not None:
            if not running.finished.is_set():
                raise SessionBusy("This interview is still ending.")
            # What it still has to say must not come after its words were removed.
            try:
                async with asyncio.timeout(TOLD_SECONDS):
                    await self._chronicle.drained()
            except TimeoutError:
                raise StateUnavailable from None
        files = await self._live.files(session_id) or []
        erasure: Erasure | None = None
        try:
            erasure = await self._archive.erase(session_id)
        except SessionNotFound:
            if row is None and running is None:
                raise
            # Nothing of it was ever recorded.
            self._live.drop(session_id)
        name = SessionId(session_id)
        done = await self._database.run(
            lambda tx: erase(tx, self._outbox, name, InterviewDeleted().reason, self._place)
        )
        await self._database.scrub()
        self._chronicle.wake()
        at = now_us() if done is None else done.at
        elsewhere = done is not None and done.elsewhere
        waits_for = None if erasure is None else erasure.waits_for
        if waits_for is None and elsewhere:
            waits_for = InterviewElsewhere.code
        return {
            "id": session_id,
            "erased_at": times.told(at) if erasure is None else erasure.tombstone.erased_at,
            "complete": (erasure is None or erasure.tombstone.complete) and not elsewhere,
            "waits_for": waits_for,
            "files": [one for one in files if one != TOMBSTONE_NAME],
            "turns": 0 if done is None else done.turns,
        }

    # -- what nobody came to --------------------------------------------------------------------

    async def expire(self, now: int) -> int:
        """End interviews that nobody joined while they could be; how many.

        One that a process holds, or that has a folder to be told of, was joined after all: the
        database only does not know how far it came.
        """
        table, late = interviews.c, interviews.c.expires_at < now - GRACE_US
        waiting = table.phase.in_([phase.value for phase in WAITING])
        unused = and_(waiting, table.origin == INVITED, late)
        ended, after = 0, (0, "")
        while True:

            async def look(tx: Transaction, after: tuple[int, str] = after) -> list[Row[Any]]:
                beyond = or_(
                    table.expires_at > after[0],
                    and_(table.expires_at == after[0], table.id > after[1]),
                )
                query = select(table.id, table.expires_at).where(unused, beyond)
                order = query.order_by(table.expires_at, table.id)
                return [*await tx.execute(order.limit(AT_ONCE))]

            page = await self._database.run(look)
            names = await self._live.never_began([row.id for row in page])

            async def work(tx: Transaction, names: list[str] = names) -> int:
                chosen = select(interviews).where(unused, table.id.in_(names))
                rows = [*await tx.execute(chosen.with_for_update(skip_locked=True))]
                closed = 0
                for row in rows:
                    if not await self._is_held(tx, row):
                        await self._close(tx, row, Reason.EXPIRED)
                        closed += 1
                # What was used can be forgotten once no token can be good any more.
                old = used_tokens.c.at < now - 31 * _DAY_US
                await tx.execute(delete(used_tokens).where(old))
                return closed

            ended += await self._database.run(work)
            if len(page) < AT_ONCE:
                break
            after = (page[-1].expires_at, page[-1].id)
        if ended:
            self._chronicle.wake()
        return ended

    async def _is_held(self, tx: Transaction, row: Row[Any]) -> bool:
        """Whether somebody is coming in, here or elsewhere."""
        if row.node_id == self._state.node_id:
            return row.claim is not None and self.running(row.id) is not None
        return await self._state.is_elsewhere(tx, row.node_id)

    async def expiring(self, app: web.Application) -> AsyncIterator[None]:
        """Expire interviews for as long as the application runs."""

        async def sweep() -> None:
            while True:
                try:
                    await self.expire(now_us())
                except StateUnavailable:
                    log.debug("interviews are not expired while the database is away")
                except Exception:
                    log.exception("expiring interviews failed")
                await asyncio.sleep(EXPIRE_EVERY_SECONDS)

        task = asyncio.create_task(sweep(), name="expire interviews")
        yield
        await stop(task)


_DAY_US: Final = 24 * 3600 * 1_000_000


def _written(document: Json, kind: str) -> bytes:
    if kind == "json":
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return FORMATS[kind].render(document).encode("utf-8", "replace")


async def _locked(tx: Transaction, session_id: str) -> Row[Any] | None:
    query = select(interviews).where(interviews.c.id == session_id).with_for_update()
    return (await tx.execute(query)).one_or_none()


def _turn(row: Row[Any]) -> Turn:
    return Turn(
        item_id=ItemId(row.item_id),
        speaker=Speaker(row.speaker),
        text=row.text,
        started_at=row.started_at,
        ended_at=row.ended_at,
        status=TurnStatus(row.status),
        heard_ms=row.heard_ms,
        kind=TurnKind(row.kind),
        heard_text=row.heard_text,
    )
