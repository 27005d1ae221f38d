"""What notices cost: written and delivered a second, and how late a backlog makes the event loop.

Bounded in time: writing and delivering end when theirs is over, and tell how far they came.
``python -m bench.notices`` prints one JSON object for each engine and measurement. The receiver is
a process of its own. PostgreSQL is one of Debian's, on loopback, started here; it does not wait for
the disk, SQLite does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from sqlalchemy import func, insert, select, update

from interview_peer.notices import signing
from interview_peer.notices.guard import Guard, networks
from interview_peer.notices.ledger import Default
from interview_peer.notices.outbox import DEFAULT, Outbox, Target, delivery_row
from interview_peer.notices.sender import Sender
from interview_peer.notices.types import InterviewReconnecting, Notice, body_of, new_id
from interview_peer.notices.worker import NoticeWorker
from interview_peer.state import migrate
from interview_peer.state.database import Database
from interview_peer.state.schema import deliveries, interviews, notices, now_us
from interview_peer.types import Json, SessionId
from tests.support.postgres import programs, running_postgres

from .progress import Progress

SECRET = signing.new_secret()
RUNNING = SessionId("running")
PER_INTERVIEW = 20
PROBE_SECONDS = 0.002
LOOK_SECONDS = 0.25
IDLE_SECONDS = 3.0


@contextlib.asynccontextmanager
async def receiving(status: int) -> AsyncIterator[str]:
    """A receiver in a process of its own; its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.notices",
        "--receive",
        str(status),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    try:
        yield url
    finally:
        process.terminate()
        await process.wait()


async def receive(status: int, slow: float) -> None:
    """Answer every notice with ``status`` after ``slow`` seconds, until ended.

    Prints its address. A GET tells how many came.
    """
    received = 0

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal received
        if request.method == "GET":
            return web.json_response({"received": received})
        await request.read()
        received += 1
        await asyncio.sleep(slow)
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}/\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()


class Lag:
    """How late the event loop wakes a task that sleeps ``PROBE_SECONDS`` over and over.

    That counts what else the machine does. Beside it: for how long single steps of the loop hold
    it, in processor time of its thread, which other processes cannot lengthen.
    """

    def __init__(self) -> None:
        self._late: list[float] = []
        self._held: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._run = asyncio.Handle._run

    async def __aenter__(self) -> Lag:
        run, held = self._run, self._held

        def timed(handle: asyncio.Handle) -> None:
            before = time.thread_time()
            run(handle)
            held.append(time.thread_time() - before)

        setattr(asyncio.Handle, "_run", timed)  # noqa: B010
        self._task = asyncio.create_task(self._probe(), name="lag")
        return self

    async def __aexit__(self, *error: object) -> None:
        setattr(asyncio.Handle, "_run", self._run)  # noqa: B010
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _probe(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE_SECONDS)
            self._late.append(time.perf_counter() - before - PROBE_SECONDS)

    def figures(self) -> Json:
        """Quantiles in milliseconds."""
        return {"lag_ms": _quantiles(self._late), "held_ms": _quantiles(self._held)}


def _quantiles(seconds: list[float]) -> Json:
    found: Any = np.percentile(np.array(seconds) * 1000, [50, 99, 99.9, 100])
    names = ("p50", "p99", "p99.9", "largest")
    return {name: round(float(value), 2) for name, value in zip(names, found, strict=True)}


def worker_of(database: Database, url: str) -> NoticeWorker:
    """A worker as a server has it, that may reach loopback."""
    guard = Guard(networks(["127.0.0.0/8"]))
    return NoticeWorker(database, Sender(guard), default=Default(url, SECRET))


async def count(database: Database, state: str) -> int:
    """How many deliveries are in a state."""

    async def work(tx: Any) -> int:
        asked = select(func.count()).where(deliveries.c.state == state)
        return int((await tx.execute(asked)).scalar_one())

    return await database.run(work)


async def write(database: Database, number: int, seconds: float) -> Json:
    """Write notices one by one, each in a transaction of its own, as interviews do.

    At most ``number``, and for at most ``seconds``.
    """
    outbox = Outbox(has_default=True)
    ids = [SessionId(new_id("int")) for _ in range(max(1, number // PER_INTERVIEW))]
    async with database.begin() as tx:
        rows = [
            {"id": one, "origin": "api", "phase": "live", "created_at": now_us()} for one in ids
        ]
        await tx.execute(insert(interviews), rows)
    began, index = time.perf_counter(), 0
    while index < number and time.perf_counter() - began < seconds:
        async with database.begin() as tx:
            notice = Notice(ids[index % len(ids)], InterviewReconnecting("lost"))
            await outbox.write(tx, notice, now_us())
        index += 1
    took = time.perf_counter() - began
    return {"notices": index, "per_second": round(index / took)}


async def deliver(database: Database, number: int, seconds: float) -> Json:
    """Deliver what was written, for at most ``seconds``."""
    async with receiving(204) as url, Lag() as lag:
        worker = worker_of(database, url)
        began = time.perf_counter()
        worker.start()
        # Nothing tells when the last one is through: this is looked at from outside.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while worker.counts["delivered"] < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        took, number = time.perf_counter() - began, worker.counts["delivered"]
        await worker.close()
        return {
            "notices": number,
            "per_second": round(number / took),
            **lag.figures(),
            "left": await count(database, "due"),
        }


async def fill(database: Database, number: int) -> None:
    """A backlog of so many notices, written in bulk."""
    now = now_us()
    for start in range(0, number, 2_000):
        kept, due, people = [], [], []
        for index in range(start, min(number, start + 2_000)):
            interview = SessionId(f"backlog_{index // PER_INTERVIEW}")
            sequence = index % PER_INTERVIEW + 1
            if sequence == 1:
                people.append(
                    {"id": interview, "origin": "api", "phase": "ended", "created_at": now}
                )
            notice = Notice(interview, InterviewReconnecting("lost"))
            kept.append(
                {
                    "id": notice.id,
                    "interview_id": interview,
                    "sequence": sequence,
                    "type": notice.fact.type,
                    "created_at": now,
                    "body": body_of(notice, sequence),
                }
            )
            due.append(delivery_row(Target(DEFAULT), notice.id, interview, sequence, now))
        async with database.begin() as tx:
            await tx.execute(insert(interviews), people)
            await tx.execute(insert(notices), kept)
            await tx.execute(insert(deliveries), due)


async def backlog(database: Database, url: str, seconds: float) -> Json:
    """Work on a backlog for a while; how late the loop was, and how late a new notice came."""
    waiting = await count(database, "due")
    outbox = Outbox(has_default=True)
    worker = worker_of(database, url)
    written: list[float] = []
    async with Lag() as lag:
        worker.start()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            began = time.perf_counter()
            async with database.begin() as tx:
                notice = Notice(RUNNING, InterviewReconnecting("lost"))
                await outbox.write(tx, notice, now_us())
            worker.wake()
            written.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(LOOK_SECONDS)
        figures = lag.figures()
        counts = dict(worker.counts)
        await worker.close()
    p50, p99 = np.percentile(np.array(written), [50, 99])
    return {
        "waiting": waiting,
        "attempts_per_second": round(sum(counts.values()) / seconds),
        "outcomes": counts,
        **figures,
        "writing_one_notice_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1)},
    }


async def idle() -> Json:
    """The loop's lag with nothing to do, for comparison."""
    async with Lag() as lag:
        await asyncio.sleep(IDLE_SECONDS)
        return lag.figures()


async def measure(
    url: str | None, folder: Path, number: int, waiting: int, seconds: float, progress: Progress
) -> None:
    """Everything, on one engine, in the five steps of ``planned``."""
    engine = "sqlite" if url is None else "postgresql"
    database = await Database.open(url, folder)
    await migrate.upgrade(database)
    say, steps = _sayer(engine), iter(planned(seconds))

    def told(what: str) -> None:
        progress.done(next(steps))
        sys.stderr.write(progress.line(f"{engine}: {what}"))

    try:
        say("idle", await idle())
        told("idle")
        wrote = await write(database, number, seconds)
        say("write", wrote)
        told("written")
        say("deliver", await deliver(database, int(wrote["notices"]), seconds))
        told("delivered")
        async with database.begin() as tx:
            running = {"id": RUNNING, "origin": "api", "phase": "live", "created_at": now_us()}
            await tx.execute(insert(interviews).values(running))
        await fill(database, waiting)
        async with receiving(500) as down:
            say("backlog, receiver down", await backlog(database, down, seconds))
        told("a backlog with its receiver down")
        async with database.begin() as tx:
            await tx.execute(
                update(deliveries)
                .where(deliveries.c.state == "due")
                .values(next_at=now_us(), first_failed_at=None)
            )
        async with receiving(204) as good:
            say("backlog, receiver up", await backlog(database, good, seconds))
        told("a backlog with its receiver up")
    finally:
        await database.close()


def planned(seconds: float) -> tuple[float, ...]:
    """About how many seconds the steps of ``measure`` take, filling a backlog among them."""
    return (IDLE_SECONDS, seconds, seconds, 1.5 * seconds, seconds)


def _sayer(engine: str) -> Callable[[str, Json], None]:
    def say(what: str, figures: Json) -> None:
        sys.stdout.write(json.dumps({"engine": engine, "what": what, **figures}) + "\n")
        sys.stdout.flush()

    return say


@contextlib.contextmanager
def engines() -> Iterator[list[str | None]]:
    """SQLite, and PostgreSQL where it is installed."""
    place = programs()
    if place is None:
        yield [None]
        return
    with running_postgres(place) as server:
        yield [None, server.create()]


def main() -> None:
    """Read the arguments and measure."""
    arguments = argparse.ArgumentParser(prog="python -m bench.notices", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="a fifth of everything")
    arguments.add_argument("--receive", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--slow", type=float, default=0.0, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.receive is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(receive(given.receive, given.slow))
        return
    share = 5 if given.quick else 1
    seconds = 10 / share
    with engines() as urls:
        progress = Progress(len(urls) * sum(planned(seconds)))
        for url in urls:
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(
                    measure(url, Path(folder), 5_000 // share, 100_000 // share, seconds, progress)
                )


if __name__ == "__main__":
    main()
