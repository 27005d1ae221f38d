"""The parts of the state that requests work with, together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..notices.outbox import Outbox
from ..notices.service import Notices
from .chronicle import Chronicle
from .database import Database


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

    @property
    def outbox(self) -> Outbox:
        """For what a request changes itself, in its own transaction."""
        return self.notices.outbox
