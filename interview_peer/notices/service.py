"""Puts the parts of this room together for a server: one object to open, start and close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..state.database import Database
from ..types import Json
from .desk import Desk
from .guard import Guard, networks
from .ledger import Default
from .outbox import Outbox
from .sender import Sender
from .worker import Limits, NoticeWorker


@dataclass(frozen=True)
class Notices:
    """Everything about notices that one server has."""

    outbox: Outbox
    guard: Guard
    desk: Desk
    worker: NoticeWorker

    @classmethod
    def open(
        cls,
        database: Database,
        *,
        url: str | None = None,
        secret: str | None = None,
        allow: Sequence[str] = (),
        public_url: str | None = None,
    ) -> Notices:
        """Make the parts, from settings; needs a running event loop, and delivers nothing yet.

        ``secret`` alone, without ``url``, still signs callbacks that have no secret of their own.
        """
        guard = Guard(networks(allow))
        limits = Limits()
        outbox = Outbox(has_default=url is not None, base_url=public_url or "")
        worker = NoticeWorker(
            database,
            # Waiting for a connection counts as the receiver's time, so none may have to.
            Sender(guard, connections=limits.quick + limits.slow),
            default=Default(url, secret) if secret else None,
            limits=limits,
        )
        return cls(outbox, guard, Desk(database, outbox, guard, worker.wake), worker)

    async def start(self) -> None:
        """Begin to deliver; the database must have its tables. Raises ``StateUnavailable``."""
        await self.worker.take_back()
        self.worker.start()

    def wake(self) -> None:
        """To be called after each commit that wrote notices."""
        self.worker.wake()

    def statistics(self) -> Json:
        """Figures for operators since the start: attempts by outcome, and receivers that answered
        410, by their sort."""
        gone = {sort: self.worker.gone[sort] for sort in ("default", "callback", "endpoint")}
        return {"attempts": dict(self.worker.counts), "gone": gone}

    async def rested(self) -> None:
        """Wait until nothing is due just now; see ``NoticeWorker.rested``."""
        await self.worker.rested()

    async def close(self) -> None:
        """Stop delivering; the database must still be open. Idempotent."""
        await self.worker.close()
