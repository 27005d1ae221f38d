"""Where an interview is, as the nodes' and the interviews' rows tell it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import or_, select

from ..core.lifecycle import WAITING
from ..core.machines import Held, Holder, Machine, holder_of
from .database import Transaction
from .nodes import database_time
from .parts import StateParts
from .records import FINAL
from .schema import interviews, nodes

PATIENCE_SECONDS: Final = 1.0
"""How long a request waits to learn where it should go."""
HEARD_SECONDS: Final = 15.0
"""A node that was silent for longer is not asked: it says every five seconds that it lives."""


class Owners:
    """Looks up who should answer for an interview."""

    def __init__(self, state: StateParts) -> None:
        self._state = state

    async def find(self, interview_id: str) -> Holder | None:
        """Who should answer for this interview; None if it is this process, or nobody's.

        Raises ``StateUnavailable``.
        """

        async def look(tx: Transaction) -> Holder | None:
            table = interviews.c
            query = select(table.node_id, table.place, table.phase).where(table.id == interview_id)
            row = (await tx.execute(query)).one_or_none()
            if row is None or row.node_id == self._state.node_id:
                return None
            runs = row.phase not in (*FINAL, *WAITING)
            held = Held(row.node_id, row.place, runs)
            others = or_(nodes.c.id == row.node_id, nodes.c.place == row.place)
            known = select(nodes).where(others).order_by(nodes.c.seen_at.desc())
            since = await database_time(tx) - int(HEARD_SECONDS * 1_000_000)
            machines = [
                Machine(
                    id=one.id,
                    place=one.place,
                    heard=one.seen_at >= since,
                    address=one.address,
                    instance=one.instance,
                    key=one.key,
                )
                for one in await tx.execute(known)
            ]
            return holder_of(held, self._state.node_id, self._state.place, machines)

        return await self._state.database.run(look, patience=PATIENCE_SECONDS)
