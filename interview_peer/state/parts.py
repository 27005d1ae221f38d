"""The parts of the state that requests work with, together."""

from __future__ import annotations

from dataclasses import dataclass

from ..notices.outbox import Outbox
from .chronicle import Chronicle
from .database import Database


@dataclass(frozen=True)
class StateParts:
    """The database, and the two that write notices to it."""

    database: Database
    outbox: Outbox
    """For what a request changes itself, in its own transaction."""
    chronicle: Chronicle
    """For what happens to interviews while they run."""
