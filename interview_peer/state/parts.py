"""The parts of the state that requests work with, together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..notices.outbox import Outbox
from ..notices.service import Notices
from .chronicle import Chronicle
from .database import Database, Transaction
from .nodes import Heartbeat


@dataclass(frozen=True)
class StateParts:
    """The database, and those that write notices to it and deliver them."""

    database: Database
    notices: Notices
    chronicle: Chronicle
    """For what happens to interviews while they run."""
    place: str
    """The name of this process's data folder."""
    recovered: asyncio.Event
    """Set once the ends that an earlier process did not live to tell are told."""
    node_id: str
    """The name of this process."""
    heartbeat: Heartbeat | None
    """Knows which others live; None where there can be none."""

    async def is_elsewhere(self, tx: Transaction, node_id: str | None) -> bool:
        """Whether another node holds what ``node_id`` names, as far as can be known."""
        if node_id in (None, self.node_id) or self.heartbeat is None:
            return False
        living = await self.heartbeat.living(tx)
        return living is None or node_id in living

    @property
    def outbox(self) -> Outbox:
        """For what a request changes itself, in its own transaction."""
        return self.notices.outbox
