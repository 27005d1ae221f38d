"""Which server processes there are: each has a name, and those that share a database say that
they live.

All times here are the database's: the clocks of the nodes may differ. A node judges the silence of
others only after it was heard itself, without a gap, for as long as they would have had to be
silent: while the database is away nobody is heard, and whoever comes back first must not take all
others for dead.

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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, cast, delete, func, insert, select, update

from ..errors import ConfigurationError, StateUnavailable
from ..tasks import stop
from .database import Database, Transaction
from .schema import nodes, now_us

log = logging.getLogger(__name__)

FILE: Final = "node"
SAY_SECONDS: Final = 5.0
GONE_SECONDS: Final = 60.0
"""Silent for so long, a node's interviews are closed by another; it may be starting again until
then, and has the files."""
GAP_SECONDS: Final = 20.0
"""Between two words of one node: any longer and it was away, or the database was. Others need as
long again to be heard after an outage, which together stays well below ``GONE_SECONDS``."""
LAST_WORD_SECONDS: Final = 1.0
"""How long the end waits to tell that nobody is reached here any more."""
FORGET_SECONDS: Final = 7 * 86_400.0

Clock = Callable[[Transaction], Awaitable[int]]
"""The time in microseconds, as the database has it."""

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


async def database_time(tx: Transaction) -> int:
    """Microseconds since 1970 by the database's own clock."""
    if tx.dialect.name == "sqlite":
        # The file has no clock but this machine's.
        return now_us()
    seconds = func.extract("epoch", func.clock_timestamp())
    return int((await tx.execute(select(cast(seconds * 1_000_000, BigInteger)))).scalar_one())


@dataclass(frozen=True, slots=True)
class Reach:
    """How others reach a node, told with every word of it."""

    place: str | None = None
    """The name of its data folder."""
    address: str | None = None
    """Where other nodes send requests on to, ``http://host:port``."""
    instance: str | None = None
    """Its id at Fly.io."""
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    """What those requests are signed with."""
    announced: tuple[str, ...] = ()
    """Public addresses with ports at which browsers send it their audio."""


class Heartbeat:
    """Says every few seconds in the database that this node lives, and knows which others do."""

    def __init__(
        self,
        database: Database,
        name: str,
        clock: Clock = database_time,
        reach: Reach | None = None,
    ) -> None:
        self._database = database
        self._name = name
        self._clock = clock
        self.reach = reach or Reach()
        self._task: asyncio.Task[None] | None = None
        self._heard_since: int | None = None
        """Since when this node is heard without a gap."""
        self._heard_at = 0

    async def start(self) -> None:
        """Say it once, then again and again.

        Raises:
            ConfigurationError: a node that lives announces the same address and port to browsers,
                whose audio would come to one of the two.
            StateUnavailable: the database does not answer.
        """
        await self._database.run(self._check_announced)
        await self.say()
        self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def close(self) -> None:
        """Stop saying it, and take back how it was reached. Idempotent."""
        task, self._task = self._task, None
        await stop(task)
        if task is not None:
            with contextlib.suppress(StateUnavailable):
                await self._database.run(self._take_back, patience=LAST_WORD_SECONDS)

    async def say(self) -> None:
        """Say it once, now. Raises ``StateUnavailable``."""
        at = await self._database.run(self._say)
        # Also a clock that was set back is a gap: nothing is known of the time between.
        if self._heard_since is None or not 0 <= at - self._heard_at <= _us(GAP_SECONDS):
            self._heard_since = at
        self._heard_at = at

    async def living(self, tx: Transaction) -> set[str] | None:
        """Names of the nodes that were heard lately, this one among them.

        None while that cannot be known: after an outage, and for a while after the start.
        """
        at = await self._clock(tx)
        since = self._heard_since
        if since is None or not 0 <= at - self._heard_at <= _us(GAP_SECONDS):
            return None
        if self._heard_at - since <= _us(GONE_SECONDS):
            return None
        heard = nodes.c.seen_at >= at - _us(GONE_SECONDS)
        found = await tx.execute(select(nodes.c.id).where(heard))
        return {*found.scalars(), self._name}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SAY_SECONDS)
            try:
                await self.say()
            except StateUnavailable:
                log.debug("heartbeat not written")
            except Exception:
                log.exception("heartbeat broke")

    async def _say(self, tx: Transaction) -> int:
        at = await self._clock(tx)
        reach = self.reach
        told = {
            "seen_at": at,
            "place": reach.place,
            "address": reach.address,
            "instance": reach.instance,
            "key": reach.key,
            "announced": ",".join(reach.announced) or None,
        }
        said = await tx.execute(update(nodes).where(nodes.c.id == self._name).values(told))
        if said.rowcount == 0:
            await tx.execute(insert(nodes).values(id=self._name, started_at=at, **told))
            await tx.execute(delete(nodes).where(nodes.c.seen_at < at - _us(FORGET_SECONDS)))
        return at

    async def _check_announced(self, tx: Transaction) -> None:
        since = await self._clock(tx) - _us(GONE_SECONDS)
        others = (nodes.c.id != self._name, nodes.c.seen_at >= since)
        found = await tx.execute(select(nodes.c.announced).where(*others))
        taken = {one for text in found.scalars() for one in (text or "").split(",")}
        for one in self.reach.announced:
            if one in taken:
                raise ConfigurationError(
                    f"Another server on this database announces {one} to browsers: give each "
                    "an INTERVIEW_UDP_PORT of its own. If that server is gone, start again in a "
                    "minute."
                )

    async def _take_back(self, tx: Transaction) -> None:
        nothing = {"address": None, "instance": None, "key": None, "announced": None}
        await tx.execute(update(nodes).where(nodes.c.id == self._name).values(nothing))


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
