"""Writes notices and delivers them, in time that runs faster, until it is killed.

Started by ``test_kill.py`` with one JSON argument. After each commit it prints the notice's id. It
ends by itself when it writes nothing (``"writes": false``) and all is delivered.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from interview_peer.notices.guard import Guard
from interview_peer.notices.ledger import Default
from interview_peer.notices.sender import Sender
from interview_peer.notices.worker import Limits, NoticeWorker
from interview_peer.state import migrate
from interview_peer.state.database import Database
from tests.notices.office import LOOPBACK, SECRET, Office

SPEED = 500
"""Simulated seconds per second: the five minutes of the order rule take 0.6 s."""

LEASE_SECONDS = 300
"""Simulated, as everything here; 0.6 s."""


@dataclass(frozen=True)
class FastClock:
    """Simulated microseconds since 1970; the same in every process with the same fields."""

    began: float
    jumped: float = 0.0

    def at(self, real: float) -> int:
        """The simulated time at a real one."""
        return int((self.began + (real - self.began) * SPEED + self.jumped) * 1_000_000)

    def __call__(self) -> int:
        return self.at(time.time())


async def main(told: dict[str, object]) -> None:
    url = told["database"]
    database = await Database.open(None if url is None else str(url), Path(str(told["folder"])))
    await migrate.upgrade(database)
    clock = FastClock(float(str(told["began"])), float(str(told["jumped"])))
    worker = NoticeWorker(
        database,
        Sender(Guard(LOOPBACK), total_seconds=0.2),
        default=Default(str(told["receiver"]), SECRET),
        limits=Limits(lease_seconds=LEASE_SECONDS, poll_seconds=0.05, close_seconds=0.1),
        now=clock,
    )
    await worker.take_back()
    worker.start()
    office = Office(database, clock)
    chance = random.Random(int(str(told["seed"])))
    if told["writes"]:
        interviews = [await office.interview() for _ in range(3)]
        while True:
            print(await office.tell(chance.choice(interviews)), flush=True)  # noqa: T201
            worker.wake()
            await asyncio.sleep(chance.random() / 50)
    await office.come_to({"delivered": int(str(told["expected"]))}, within=60)
    await worker.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
