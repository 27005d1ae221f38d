"""Which server processes there are: each has a name, and those that share a database say that
they live.

The name is kept in the data folder, so that a process that is started again knows what it left
behind. It is held by a lock that ends with the process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, select, update

from ..errors import ConfigurationError, StateUnavailable
from .database import Database, Transaction
from .schema import nodes, now_us

log = logging.getLogger(__name__)

FILE: Final = "node"
SAY_SECONDS: Final = 5.0
GONE_SECONDS: Final = 60.0
"""Silent for so long, a node's interviews are closed by another; it may be starting again until
then, and has the files."""
FORGET_SECONDS: Final = 7 * 86_400.0

_TAKEN: Final = (
    "Another interview_peer is running on this data folder: stop it, or choose another "
    "INTERVIEW_DATA_DIR."
)


class NodeName:
    """The name of this process, held until ``release``."""

    def __init__(self, name: str, lock: int | None) -> None:
        self.name = name
        self._lock = lock

    @classmethod
    def claim(cls, data_dir: Path, *, alone: bool) -> NodeName:
        """Take the folder's name, made if there is none. Waits for the disk.

        Where the folder may be shared (``alone`` is false), a second process gets a name of its
        own that ends with it.

        Raises:
            ConfigurationError: another process has the folder and it is not to be shared.
            OSError: the folder cannot be written.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            if alone:
                raise ConfigurationError(_TAKEN) from None
            return cls(_new_name(), None)
        try:
            name = os.read(lock, 64).decode("ascii", "replace").strip()
            if not name:
                name = _new_name()
                os.write(lock, f"{name}\n".encode())
                os.fsync(lock)
        except BaseException:
            os.close(lock)
            raise
        return cls(name, lock)

    def release(self) -> None:
        """Let another process have it. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _new_name() -> str:
    return f"node_{secrets.token_hex(8)}"


class Heartbeat:
    """Says every few seconds in the database that this node lives."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say it once, then again and again. Raises ``StateUnavailable``."""
        await self._database.run(self._say)
        self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def close(self) -> None:
        """Stop saying it. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SAY_SECONDS)
            try:
                await self._database.run(self._say)
            except StateUnavailable:
                log.debug("heartbeat not written")
            except Exception:
                log.exception("heartbeat broke")

    async def _say(self, tx: Transaction) -> None:
        now = now_us()
        said = await tx.execute(update(nodes).where(nodes.c.id == self._name).values(seen_at=now))
        if said.rowcount == 0:
            await tx.execute(insert(nodes).values(id=self._name, started_at=now, seen_at=now))
            await tx.execute(delete(nodes).where(nodes.c.seen_at < now - int(FORGET_SECONDS * 1e6)))


async def living(tx: Transaction) -> set[str]:
    """Names of the nodes that spoke lately."""
    since = now_us() - int(GONE_SECONDS * 1e6)
    found = await tx.execute(select(nodes.c.id).where(nodes.c.seen_at >= since))
    return set(found.scalars())
