"""Happenings of made-up interviews, and looks at what became of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select

from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.core.turns import Turn, TurnStatus, document
from interview_peer.notices.outbox import Outbox
from interview_peer.state.database import Database
from interview_peer.state.happenings import (
    Detached,
    Ending,
    Finished,
    Happening,
    Opened,
    Recorded,
    RecordingMade,
    Returned,
    Started,
    Turns,
)
from interview_peer.state.records import Records
from interview_peer.state.schema import interviews, notices, turns
from interview_peer.types import ItemId, Json, SessionId, Speaker

NODE: Final = "node_test"
PLACE: Final = "place_test"
BEGAN: Final = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def records() -> Records:
    """Records whose notices go to no receiver."""
    return Records(Outbox(has_default=False), NODE, PLACE)


def turn(number: int, text: str = "", status: TurnStatus = TurnStatus.COMPLETE) -> Turn:
    """One turn; speakers alternate."""
    return Turn(
        item_id=ItemId(f"item_{number}"),
        speaker=(Speaker.INTERVIEWER, Speaker.CANDIDATE)[number % 2],
        text=text or f"words {number}",
        started_at=float(number),
        ended_at=number + 0.5,
        status=status,
        heard_ms=None,
    )


def finished(name: str, said: tuple[Turn, ...], reason: Reason = Reason.CLIENT_REQUEST) -> Finished:
    """The end of an interview with whole files."""
    failed = reason is Reason.MODEL_LOST
    return Finished(
        interview_id=SessionId(name),
        phase=Phase.FAILED if failed else Phase.ENDED,
        reason=reason,
        opened_at=BEGAN,
        seconds=12.5,
        usage={"total_tokens": 7},
        turns=said,
        transcript=document(SessionId(name), BEGAN, said),
    )


def recording_made(name: str) -> RecordingMade:
    """Its recording is finished."""
    file = Recorded("candidate.ogg", 10, "0" * 64, 12.5)
    return RecordingMade(interview_id=SessionId(name), files=(file,), seconds=12.5)


def life(name: str) -> list[Happening]:
    """Everything that happens to one interview, in order."""
    who = SessionId(name)
    first, second = turn(0), turn(1)
    return [
        Opened(interview_id=who, at=BEGAN, persona="default"),
        Started(interview_id=who),
        Turns(interview_id=who, position=0, turns=(first,), settled=((0, first),)),
        Detached(interview_id=who),
        Returned(interview_id=who),
        Turns(interview_id=who, position=1, turns=(second,), settled=((1, second),)),
        Ending(interview_id=who, reason=Reason.CLIENT_REQUEST),
        finished(name, (first, second)),
        recording_made(name),
    ]


TOLD: Final = [
    "interview.created",
    "interview.started",
    "interview.reconnecting",
    "interview.ended",
    "transcript.completed",
    "recording.ready",
]
"""The notices of such a life, in order."""


async def interview(database: Database, name: str) -> Any:
    """The row of an interview, or None."""
    async with database.begin() as tx:
        found = await tx.execute(select(interviews).where(interviews.c.id == name))
        return found.one_or_none()


async def told(database: Database, name: str) -> list[str]:
    """Types of an interview's notices by sequence, which must count from 1 without a gap."""
    async with database.begin() as tx:
        found = await tx.execute(
            select(notices.c.sequence, notices.c.type)
            .where(notices.c.interview_id == name)
            .order_by(notices.c.sequence)
        )
        rows = found.all()
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    return [row.type for row in rows]


async def body(database: Database, name: str, kind: str) -> Json:
    """The data of an interview's only notice of this type."""
    async with database.begin() as tx:
        found = await tx.execute(
            select(notices.c.body).where(notices.c.interview_id == name, notices.c.type == kind)
        )
        data: Json = json.loads(found.scalar_one())["data"]
        return data


async def said(database: Database, name: str) -> list[str]:
    """The texts of an interview's turns by position, which must count from 0 without a gap."""
    async with database.begin() as tx:
        found = await tx.execute(
            select(turns.c.position, turns.c.text)
            .where(turns.c.interview_id == name)
            .order_by(turns.c.position)
        )
        rows = found.all()
    assert [row.position for row in rows] == list(range(len(rows)))
    return [row.text for row in rows]
