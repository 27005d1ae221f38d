"""The table of acts: written, listed and removed by age. What an act is stands in ``core.acts``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update

from ..core.acts import Act, Actor, Entry, Outcome
from .database import Transaction
from .schema import acts

_ORDER: Final = (Outcome.BEGUN, Outcome.DONE, Outcome.REFUSED)


async def write(tx: Transaction, entry: Entry) -> None:
    """Write an act down, or what became of one that was. Again is harmless, and so is late.

    A refusal stands above all: whoever was told of it got nothing, though an attempt to write the
    act down came through when nobody waited for it any more.
    """
    if entry.left_out:
        await tx.execute(delete(acts).where(acts.c.id == entry.id))
        return
    known = select(acts.c.outcome).where(acts.c.id == entry.id).with_for_update()
    outcome = (await tx.execute(known)).scalar_one_or_none()
    told = {
        "interview_id": entry.interview_id,
        "object_id": entry.object_id,
        "outcome": entry.outcome.value,
        "code": entry.code,
    }
    if outcome is None:
        await tx.execute(
            insert(acts).values(
                id=entry.id,
                at=entry.at,
                act=str(entry.act),
                key_id=entry.actor.id,
                key_name=entry.actor.name,
                address=entry.address,
                **told,
            )
        )
    elif _ORDER.index(entry.outcome) > _ORDER.index(Outcome(outcome)):
        await tx.execute(update(acts).where(acts.c.id == entry.id).values(**told))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which acts to list, newest first. Times in microseconds."""

    interview_id: str | None = None
    key_id: str | None = None
    act: Act | None = None
    since: int | None = None
    """From this moment on."""
    until: int | None = None
    """Up to, without, this moment."""
    before: str | None = None
    """The id of the last one seen."""
    limit: int = 50


async def page(tx: Transaction, wanted: Wanted) -> list[Entry]:
    """Up to ``limit`` acts and one more, if there is one, newest first."""
    query = select(acts)
    for column, value in (
        (acts.c.interview_id, wanted.interview_id),
        (acts.c.key_id, wanted.key_id),
        (acts.c.act, wanted.act),
    ):
        if value is not None:
            query = query.where(column == str(value))
    if wanted.since is not None:
        query = query.where(acts.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(acts.c.at < wanted.until)
    if wanted.before is not None:
        query = query.where(acts.c.id < wanted.before)
    rows = await tx.execute(query.order_by(acts.c.id.desc()).limit(wanted.limit + 1))
    return [_entry(row) for row in rows]


async def prune(tx: Transaction, before: int, at_once: int) -> int:
    """Remove the oldest acts that began before this moment, in microseconds; how many."""
    some = select(acts.c.id).where(acts.c.at < before).order_by(acts.c.at).limit(at_once)
    return (await tx.execute(delete(acts).where(acts.c.id.in_(some)))).rowcount


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        id=row.id,
        at=row.at,
        act=_act(row.act),
        actor=Actor(row.key_id, row.key_name),
        address=row.address,
        interview_id=row.interview_id,
        object_id=row.object_id,
        outcome=Outcome(row.outcome),
        code=row.code,
    )


def _act(name: str) -> Act | str:
    try:
        return Act(name)
    except ValueError:
        # During an upgrade of several servers some know more acts than others.
        return name
