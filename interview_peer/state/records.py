"""How each happening is written: the interview's row, its turns and files, and its notices.

Everything of one happening is written in the transaction that is passed in. An interview that is
over stays as it is, and one that was erased gets neither words nor notices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update

from ..core.acts import SERVER, Act, Actor, Entry, Outcome
from ..core.consent import Consent, Policy
from ..core.lifecycle import Phase
from ..core.turns import Turn
from ..notices import outbox
from ..notices.outbox import Outbox
from ..notices.types import (
    Fact,
    InterviewConsented,
    InterviewCreated,
    InterviewDeleted,
    InterviewEnded,
    InterviewFailed,
    InterviewReconnecting,
    InterviewStarted,
    Notice,
    RecordedFile,
    RecordingFailed,
    RecordingReady,
    TranscriptCompleted,
    TranscriptTurn,
    new_id,
)
from ..types import Json, SessionId
from . import acts
from .database import Transaction
from .happenings import (
    Acted,
    Detached,
    Ending,
    Entered,
    Erased,
    Finished,
    Happening,
    Opened,
    RecordingBroke,
    RecordingLost,
    RecordingMade,
    Released,
    Returned,
    Started,
    Turns,
)
from .schema import (
    from_us,
    interviews,
    notices,
    now_us,
    recordings,
    resume_tokens,
    to_us,
    turns,
    used_tokens,
)

_Row = Row[*tuple[Any, ...]]

FINAL: Final = frozenset({Phase.ENDED.value, Phase.FAILED.value})
ROWS_AT_ONCE: Final = 500
_MOST_MS: Final = 2**31 - 1


class Records:
    """Writes happenings. ``node_id`` names the process that holds the interviews' legs, ``place``
    the data folder that holds their files."""

    def __init__(self, outbox: Outbox, node_id: str, place: str) -> None:
        self._outbox = outbox
        self._node_id = node_id
        self._place = place

    async def write(self, tx: Transaction, happening: Happening) -> bool:
        """Write one happening and its notices; false if it is written already or comes too late.

        Repeating it is harmless, as long as nothing later of the same interview was written.
        """
        match happening:
            case Acted():
                await acts.write(tx, happening.entry)
                return True
            case Erased():
                erased = await erase(
                    tx, self._outbox, happening.interview_id, happening.reason, self._place
                )
                if erased is None or not erased.new:
                    return False
                await acts.write(tx, _erased_by_us(happening))
                return True
            case RecordingMade() | RecordingLost():
                return await self._record(tx, happening)
        row = await self._row(tx, happening)
        if isinstance(happening, Released):
            return row is not None and await _release(tx, happening)
        if row is None:
            await self._make(tx, happening)
            row = await self._row(tx, happening)
            assert row is not None
        if row.applied == happening.id or row.phase in FINAL:
            return False
        changes: dict[str, Any] = {"applied": happening.id}
        facts: list[Fact] = []
        match happening:
            case Opened(consent=consent):
                changes |= {
                    "phase": Phase.CONNECTING.value,
                    "node_id": self._node_id,
                    "place": self._place,
                }
                if consent is not None and row.consent_at is None:
                    # An open client's: of others it was written when it was given.
                    changes |= agreed(consent)
                    facts.append(consented(consent))
            case Started():
                changes["phase"] = Phase.LIVE.value
                if row.started_at is None:
                    changes["started_at"] = to_us(happening.at)
                    facts.append(
                        InterviewStarted(happening.at, row.candidate_reference, row.metadata)
                    )
            case Detached(reason=reason):
                changes["phase"] = Phase.DETACHED.value
                facts.append(InterviewReconnecting(reason))
            case Returned():
                changes["phase"] = Phase.LIVE.value
            case Entered(token=token):
                await _use_up(tx, happening, token)
            case Ending(reason=why):
                changes |= {"phase": Phase.ENDING.value, "reason": why.value}
            case Turns():
                if row.deleted_at is None:
                    await _replace_turns(tx, happening.interview_id, happening)
                    facts += [_said(place, turn) for place, turn in happening.settled]
            case RecordingBroke(reason=reason):
                if not await _failure_told(tx, happening.interview_id):
                    facts.append(RecordingFailed(reason))
            case Finished():
                changes |= await self._finish(tx, row, happening, facts)
        await tx.execute(
            update(interviews).where(interviews.c.id == happening.interview_id).values(**changes)
        )
        if row.deleted_at is None:
            now = now_us()
            for fact in facts:
                notice = Notice(happening.interview_id, fact, happening.at)
                await self._outbox.write(tx, notice, now)
        return True

    async def _row(self, tx: Transaction, happening: Happening) -> _Row | None:
        found = await tx.execute(
            select(
                interviews.c.phase,
                interviews.c.applied,
                interviews.c.started_at,
                interviews.c.deleted_at,
                interviews.c.candidate_reference,
                interviews.c.metadata,
                interviews.c.consent_at,
            )
            .where(interviews.c.id == happening.interview_id)
            # Two processes may hold one to be theirs: the second waits and sees that it is over.
            .with_for_update()
        )
        return found.one_or_none()

    async def _make(self, tx: Transaction, happening: Happening) -> None:
        """An open client's interview, at its first happening; told as any other that is made."""
        at = happening.at
        if isinstance(happening, Finished) and happening.opened_at is not None:
            at = happening.opened_at
        persona = happening.persona if isinstance(happening, Opened) else None
        await tx.execute(
            insert(interviews).values(
                id=happening.interview_id,
                origin="open",
                phase=Phase.CREATED.value,
                created_at=to_us(at),
                persona=persona,
                node_id=self._node_id,
                place=self._place,
            )
        )
        fact = InterviewCreated(origin="open", persona=persona)
        await self._outbox.write(tx, Notice(happening.interview_id, fact, at), now_us())

    async def _record(self, tx: Transaction, news: RecordingMade | RecordingLost) -> bool:
        """What became of the recording, after the end: told once, and of none that was erased."""
        row = await self._row(tx, news)
        if row is None or row.phase not in FINAL or row.deleted_at is not None:
            return False
        same = recordings.c.interview_id == news.interview_id
        if (await tx.execute(select(recordings.c.name).where(same).limit(1))).first() is not None:
            return False
        fact: Fact
        if isinstance(news, RecordingMade):
            rows = [
                {
                    "interview_id": news.interview_id,
                    "name": one.name,
                    "bytes": one.bytes,
                    "sha256": one.sha256,
                    "seconds": one.seconds,
                    "created_at": to_us(news.at),
                }
                for one in news.files
            ]
            await tx.execute(insert(recordings), rows)
            fact = RecordingReady(
                news.seconds,
                tuple(
                    RecordedFile(one.name, one.bytes, one.sha256, one.seconds) for one in news.files
                ),
            )
        else:
            # Finishing is tried again at every start.
            if await _failure_told(tx, news.interview_id):
                return False
            fact = RecordingFailed(news.reason)
        await self._outbox.write(tx, Notice(news.interview_id, fact, news.at), now_us())
        return True

    async def _finish(
        self, tx: Transaction, row: _Row, end: Finished, facts: list[Fact]
    ) -> dict[str, Any]:
        told = InterviewFailed if end.phase is Phase.FAILED else InterviewEnded
        facts.append(
            told(
                reason=end.reason.value,
                ended_at=end.at,
                started_at=None if row.started_at is None else from_us(row.started_at),
                seconds=end.seconds,
                usage=end.usage,
                candidate_reference=row.candidate_reference,
                metadata=row.metadata,
            )
        )
        if row.deleted_at is None:
            if end.turns is not None:
                whole = Turns(
                    interview_id=end.interview_id, position=0, turns=end.turns, settled=()
                )
                await _replace_turns(tx, end.interview_id, whole)
            if end.transcript is not None:
                facts.append(TranscriptCompleted(len(end.turns or ()), end.transcript))
            if end.recording_failed is not None and not await _failure_told(tx, end.interview_id):
                facts.append(RecordingFailed(end.recording_failed))
        return {
            "phase": end.phase.value,
            "reason": end.reason.value,
            "ended_at": to_us(end.at),
            "seconds": end.seconds,
            "usage": end.usage,
            "node_id": None,
            "claim": None,
        }


def agreed(consent: Consent) -> dict[str, Any]:
    """The columns that say so."""
    policy = Policy.REQUIRED if consent.by == "candidate" else Policy.GIVEN
    return {
        "consent": policy.value,
        "consent_at": to_us(consent.at),
        "consent_version": consent.version,
        "consent_sha256": consent.sha256,
    }


def consented(
    consent: Consent, candidate_reference: str | None = None, metadata: Json | None = None
) -> InterviewConsented:
    """The fact that tells of it."""
    return InterviewConsented(
        agreed_at=consent.at,
        text_version=consent.version,
        text_sha256=consent.sha256,
        candidate_reference=candidate_reference,
        metadata=metadata,
    )


async def _release(tx: Transaction, news: Released) -> bool:
    done = await tx.execute(
        update(interviews)
        .where(
            interviews.c.id == news.interview_id,
            interviews.c.claim == news.claim,
            # Once somebody was connected, it is further on.
            interviews.c.phase.in_((Phase.CREATED.value, Phase.CONNECTING.value)),
        )
        .values(phase=Phase.CREATED.value, node_id=None, claim=None, place=None)
    )
    return done.rowcount > 0


async def _use_up(tx: Transaction, news: Entered, token: str) -> None:
    known = select(used_tokens.c.jti).where(used_tokens.c.jti == token)
    if (await tx.execute(known)).first() is None:
        await tx.execute(
            insert(used_tokens).values(jti=token, interview_id=news.interview_id, at=to_us(news.at))
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """What the database knows of an erased interview."""

    at: int
    """When it was erased, in microseconds."""
    turns: int
    """Turns that were removed now."""
    new: bool
    """Whether it was not erased before."""
    elsewhere: bool
    """Whether another data folder still has its files, whose owner sees so by this very row."""


async def erase(
    tx: Transaction, outbox_: Outbox, interview_id: SessionId, reason: str, place: str
) -> Erasure | None:
    """Remove what was said in an interview and what is known of its candidate, and tell of it.

    Its files in the data folder ``place`` are gone already. What stays is that there was one: its
    id, times and phase, the digest of its idempotency key, and what undelivered notices need to
    reach their receivers. Again is harmless. None if it is not in the database.
    """
    here = interviews.c.id == interview_id
    query = select(interviews.c.deleted_at, interviews.c.place).where(here).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    if row.place == place:
        await tx.execute(update(interviews).where(here).values(place=None))
    elsewhere = row.place not in (None, place)
    if row.deleted_at is not None:
        return Erasure(row.deleted_at, 0, False, elsewhere)
    now = now_us()
    gone = await tx.execute(delete(turns).where(turns.c.interview_id == interview_id))
    for table in (recordings, resume_tokens, used_tokens):
        await tx.execute(delete(table).where(table.c.interview_id == interview_id))
    await tx.execute(
        update(interviews)
        .where(here)
        .values(
            deleted_at=now,
            plan=None,
            metadata=None,
            candidate_reference=None,
            idempotency_hash=None,
        )
    )
    await outbox.erase(tx, interview_id)
    await outbox_.write(tx, Notice(interview_id, InterviewDeleted(reason), from_us(now)), now)
    return Erasure(now, gone.rowcount, True, elsewhere)


def _erased_by_us(news: Erased) -> Entry:
    """The act of an erasure that no request ends: by age, or gone on with after a start."""
    return Entry(
        id=new_id("act"),
        at=to_us(news.at),
        act=Act.INTERVIEW_ERASED,
        actor=Actor(SERVER, news.reason),
        address=None,
        interview_id=news.interview_id,
        outcome=Outcome.DONE,
    )


async def _failure_told(tx: Transaction, interview_id: str) -> bool:
    """Whether it was told already that this interview's recording failed: once is enough."""
    told = (notices.c.interview_id == interview_id, notices.c.type == RecordingFailed.type)
    return (await tx.execute(select(notices.c.id).where(*told).limit(1))).first() is not None


async def _replace_turns(tx: Transaction, interview_id: str, news: Turns) -> None:
    await tx.execute(
        delete(turns).where(turns.c.interview_id == interview_id, turns.c.position >= news.position)
    )
    rows = [
        _turn_row(interview_id, place, turn)
        for place, turn in enumerate(news.turns, start=news.position)
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await tx.execute(insert(turns), rows[start : start + ROWS_AT_ONCE])


def _turn_row(interview_id: str, position: int, turn: Turn) -> Json:
    return {
        "interview_id": interview_id,
        "position": position,
        "item_id": _storable(turn.item_id),
        "speaker": turn.speaker.value,
        "text": _storable(turn.text),
        "started_at": turn.started_at,
        "ended_at": turn.ended_at,
        "status": turn.status.value,
        # The service's number; none that a column cannot hold may cost all that the end tells.
        "heard_ms": None if turn.heard_ms is None else min(max(turn.heard_ms, 0), _MOST_MS),
        "kind": turn.kind.value,
        "heard_text": None if turn.heard_text is None else _storable(turn.heard_text),
    }


def _said(position: int, turn: Turn) -> TranscriptTurn:
    return TranscriptTurn(
        position=position,
        item_id=turn.item_id,
        speaker=turn.speaker.value,
        text=turn.text,
        status=turn.status.value,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
        heard_ms=turn.heard_ms,
        kind=turn.kind.value,
        heard_text=turn.heard_text,
    )


def _storable(text: str) -> str:
    """PostgreSQL keeps every character but one."""
    return text.replace("\x00", "\ufffd")
