"""How much waits in the outbox, and for how long: for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from ..state.database import Database, Transaction
from ..state.schema import deliveries
from .outbox import DUE, PAUSED

WAITING: Final = (DUE, PAUSED)

PATIENCE_SECONDS: Final = 2.0
"""Who asks gives up after ten, and the answer has other figures too."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Of the whole database, whichever servers share it."""

    waiting: dict[str, int]
    """Deliveries that are still to be made, by state."""
    oldest_at: int | None
    """When the oldest that is due was written, in microseconds of Unix time; None without any."""


async def depth(database: Database) -> Depth:
    """Look once. Raises ``StateUnavailable``."""

    async def ask(tx: Transaction) -> Depth:
        rows = await tx.execute(
            select(deliveries.c.state, func.count(), func.min(deliveries.c.created_at))
            .where(deliveries.c.state.in_(WAITING))
            .group_by(deliveries.c.state)
        )
        found = {state: (count, oldest) for state, count, oldest in rows}
        oldest = found[DUE][1] if DUE in found else None
        return Depth({state: found.get(state, (0, None))[0] for state in WAITING}, oldest)

    return await database.run(ask, patience=PATIENCE_SECONDS)
