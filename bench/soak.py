"""``python -m bench.soak``: interviews that come, go and break for a long time, and what is left.

A server, a simulated voice service and the clients are a process each. After a warm-up, everything
stops and the server's tasks, threads, descriptors and memory are noted; then the same goes on for
``--minutes``, stops, and they are noted again. They must be back where they were: the exit code is
1 otherwise. ``docs/reliability.md`` gets the result.

Memory is judged twice. What the server's objects take (``held``) is exact, and may hardly grow:
before each look caches are emptied that can be, SQLite's page cache is left off and judged by its
own bound, and each recording on disk has its name (``docs/reliability.md`` tells how much that
is). Resident memory also has the pages that the allocators do not give back, and those follow the
highest load there ever was; so the warm-up brings it first: each sort of visit by all clients at
once. A warm-up of mixed visits alone leaves that to chance, at any time of the run: 120 clients
who hung up while connecting, eight at a time, made it grow by 9.6 MB for good, and what objects
take by 0.1 MB.

While interviews of seconds come and go, their mixes cannot keep up, made one after the other by a
process that gives way to everything else: they are waited for before memory is judged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import json
import linecache
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp

from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from interview_peer.state.database import PAGES_KIB
from interview_peer.types import Json

from . import machine, sections
from .held import held_bytes, page_cache_bytes

ROOT: Final = Path(__file__).resolve().parents[1]
SILENCE: Final = b"\xf8\xff\xfe"
FRAME_SECONDS: Final = 0.02
FRAME_SAMPLES: Final = 960

WORKERS: Final = 8
"""Clients at once."""
SAMPLE_SECONDS: Final = 5.0
WARM_UP_SECONDS: Final = 60.0
"""For all sorts of visits one after the other; and again as long mixed, as it goes on."""
QUIET_SECONDS: Final = 900.0
"""How long the server may take to put everything away after the last client: mixes are made one
after the other, by a process that gives way to everything else."""
TOLD: Final = "left.json"
"""Where the server writes what it was asked for by a signal, in its folder."""
STEADY_LOOKS: Final = 7
"""So many looks in a row without a change, and the server is quiet: for longer than unused
connections to the voice service are kept open, which aiohttp closes after 15 to 30 seconds."""
ANSWER_SECONDS: Final = 20.0

MEMORY_SHARE: Final = 0.05
MEMORY_BYTES: Final = 6_000_000
"""By so much resident memory may differ, whichever is more: pages that the allocator keeps."""
HELD_BYTES: Final = 2_500_000
"""By so much what objects take may grow, names apart. 1.8 MB of half an hour are not named yet
(``docs/reliability.md``); 0.4 kB left by each visit are more than this."""
NAME_BYTES: Final = 200
"""By so much more for each recording that was finished meanwhile: its name (96 bytes) in the set of
those that need nothing more, whose table has 27 to 107 bytes for each."""
PAGES_BYTES: Final = PAGES_KIB * 1024 * 11 // 10
"""So much SQLite's pages may take in all. It counts them without what stands in front of each."""
ODD_SHARE: Final = 0.05
"""So many visits of one sort may go wrong: the clients share a machine with the server."""
LENDING_THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
"""The event loop's own pool grows to this as it is used, and never shrinks."""


@dataclass(frozen=True)
class Sample:
    """What the server held at one moment."""

    at: float
    """Seconds since the beginning."""
    interviews: int
    sessions: int
    unfinished: int
    """Recordings that wait for their mix and manifest."""
    untold: int
    """Happenings that wait to be written into the database."""
    finished: int
    """Recordings that got their manifest, since the start."""
    tasks: int
    threads: int
    descriptors: int
    memory: int
    """Resident, in bytes."""
    held: int = 0
    """Bytes that objects take; 0 where it was not asked for, which takes the server a moment."""
    pages: int = 0
    """Bytes of the database's pages in memory, which are not among those; 0 likewise."""

    def same_parts(self, other: Sample) -> bool:
        """Whether nothing came or went between two looks, memory left aside."""
        mine = (self.interviews, self.sessions, self.tasks, self.threads, self.descriptors)
        return mine == (
            *(other.interviews, other.sessions),
            *(other.tasks, other.threads, other.descriptors),
        )


@dataclass
class Soak:
    """One run."""

    url: str
    pid: int
    chance: random.Random
    http: aiohttp.ClientSession
    folder: Path
    """Where the server works."""
    tasks: list[dict[str, int]] = field(default_factory=list)
    """What the event loop had in hand at each quiet moment."""
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """What clients did, by name."""
    failed: Counter[str] = field(default_factory=Counter)
    """What did not come out as it should have, by name and error."""

    async def sample(self) -> Sample:
        """Look now."""
        # Before it is asked: the server closes the connection of that only a moment later.
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        async with self.http.get(f"{self.url}/healthz") as answer:
            known = await answer.json()
        finishing = known["recordings"]["finishing"]
        return Sample(
            at=time.monotonic() - self.began,
            interviews=known["interviews"],
            sessions=known["sessions"],
            unfinished=finishing["waiting"] + finishing["running"],
            untold=known["chronicle"]["waiting"],
            finished=finishing["finished"],
            tasks=known["tasks"],
            threads=machine.thread_count(self.pid),
            descriptors=descriptors,
            memory=machine.rss_bytes(self.pid),
        )

    async def warm_up(self, seconds: float) -> None:
        """Let all clients do the same at once, each sort of visit for an equal part of the time,
        so that none has a higher load before it; then let them come and go for as long."""
        kinds = tuple(dict.fromkeys(BEHAVIOURS))
        for kind in kinds:
            await self.run(seconds / len(kinds), (kind,))
        await self.run(seconds)

    async def run(self, seconds: float, kinds: tuple[Behaviour, ...] | None = None) -> None:
        """Let clients come and go for so long, with visits of these kinds."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(until), name="watch")
            for number in range(WORKERS):
                group.create_task(self._work(until, kinds or BEHAVIOURS), name=f"worker {number}")

    async def quiet(self) -> Sample:
        """Wait until nothing changes any more, have memory given back, and look."""
        deadline = time.monotonic() + QUIET_SECONDS
        steady, last = 0, await self.sample()
        while time.monotonic() < deadline:
            await asyncio.sleep(SAMPLE_SECONDS)
            now = await self.sample()
            idle = not (now.sessions or now.unfinished or now.untold)
            steady = steady + 1 if idle and now.same_parts(last) else 0
            last = now
            if steady >= STEADY_LOOKS:
                break
        known = await self._collected()
        self.tasks.append(known["tasks"])
        now = await self.sample()
        for _ in range(STEADY_LOOKS):
            if now.same_parts(last):
                break
            # A task of a moment, such as one that asks the database.
            await asyncio.sleep(SAMPLE_SECONDS)
            now = await self.sample()
        return dataclasses.replace(now, held=known["held"] - known["pages"], pages=known["pages"])

    async def _collected(self) -> Json:
        """Have memory given back; what the server then tells of itself."""
        told = self.folder / TOLD
        told.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                await asyncio.sleep(0.1)
                with contextlib.suppress(FileNotFoundError):
                    known: Json = json.loads(told.read_text(encoding="utf-8"))
                    return known

    async def _watch(self, until: float) -> None:
        while time.monotonic() < until:
            self.samples.append(await self.sample())
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _work(self, until: float, kinds: tuple[Behaviour, ...]) -> None:
        while time.monotonic() < until:
            what = self.chance.choice(kinds)
            name = what.__name__.removeprefix("_")
            try:
                async with asyncio.timeout(90):
                    await what(self)
            except Exception as error:
                self.failed[f"{name}: {str(error) or type(error).__name__}"] += 1
            else:
                self.done[name] += 1


class Client:
    """A candidate: a socket and a leg."""

    def __init__(self, soak: Soak, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.soak = soak
        self.socket = socket
        self.udp: tuple[str, int] | None = None
        """Where the server takes packets."""
        self._leg: Leg | None = None
        self._port: UdpPort | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def hear(self, kind: str) -> Json:
        """The next message of this type; others are passed over."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                message: Json = await self.socket.receive_json()
                if message["type"] == kind:
                    return message
                if message["type"] == "error":
                    # Of an offer, the code is the same whatever was wrong with it.
                    raise RuntimeError(message.get("reason", message["code"]))

    async def connect(self) -> None:
        """Offer, and wait for the connection."""
        await self.drop()
        self._up.clear()
        self._port = await UdpPort.open("127.0.0.1")
        self._leg = Leg("soak", self._port, self)
        offer = await self._leg.offer()
        await self.socket.send_json({"type": "sdp_offer", "offer": {"type": "offer", "sdp": offer}})
        answer = (await self.hear("sdp_answer"))["answer"]["sdp"]
        for line in answer.splitlines():
            if line.startswith("a=candidate:"):
                self.udp = line.split()[4], int(line.split()[5])
        await self._leg.accept(answer)
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._up.wait()
        self._speaking = asyncio.create_task(self._speak(self._leg), name="speak")

    async def live(self) -> None:
        """Wait until the interview has begun: its voice service is connected too."""
        while (await self.hear("state"))["phase"] != "live":
            pass

    async def stay(self) -> None:
        """Be there for a while."""
        await asyncio.sleep(self.soak.chance.uniform(1.0, 6.0))

    async def end(self) -> None:
        """End the interview in order."""
        await self.socket.send_json({"type": "end_session"})
        await self.hear("session_ended")

    async def drop(self) -> None:
        """Close the leg."""
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait([self._speaking])
        if self._leg is not None:
            await self._leg.close()
        if self._port is not None:
            self._port.close()
        self._leg = self._port = self._speaking = None

    def vanish(self) -> None:
        """Be gone without a word."""
        if self._port is not None:
            self._port.close()

    async def _speak(self, leg: Leg) -> None:
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        while True:
            leg.send_audio(number, number * FRAME_SAMPLES, SILENCE)
            number += 1
            await asyncio.sleep(began + number * FRAME_SECONDS - loop.time())

    def leg_connected(self, leg: Leg) -> None:
        """Note it."""
        self._up.set()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """It is closed by who made it."""

    def channel_opened(self, leg: Leg) -> None:
        """Nothing is said on it."""

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """What the interviewer says is not listened to."""

    def channel_closed(self, leg: Leg) -> None:
        """It is closed by who made it."""


@contextlib.asynccontextmanager
async def _client(soak: Soak) -> AsyncIterator[Client]:
    async with soak.http.ws_connect(f"{soak.url}/ws", max_msg_size=0) as opened:
        client = Client(soak, opened)
        try:
            await client.hear("session")
            yield client
        finally:
            await client.drop()


# -- what clients do


async def _interview(soak: Soak) -> None:
    """As it should be."""
    async with _client(soak) as client:
        await client.connect()
        await client.stay()
        await client.end()


async def _return(soak: Soak) -> None:
    """Lose the connection and come back, twice."""
    async with _client(soak) as client:
        await client.connect()
        # Before that an open client cannot come back: it would be SESSION_BUSY.
        await client.live()
        for _ in range(2):
            client.vanish()
            await client.connect()
            await asyncio.sleep(1.0)
        await client.end()


async def _close_page(soak: Soak) -> None:
    """Close leg and socket in order, in the middle of an interview."""
    async with _client(soak) as client:
        await client.connect()
        await client.stay()
        await client.drop()


async def _vanish(soak: Soak) -> None:
    """Be gone without a word: media and socket are cut."""
    async with _client(soak) as client:
        await client.connect()
        await client.stay()
        client.vanish()
        transport = client.socket.get_extra_info("socket")
        assert transport is not None
        # No goodbye on TCP either.
        raw = transport.dup() if hasattr(transport, "dup") else None
        if raw is not None:
            raw.shutdown(socket.SHUT_RDWR)
            raw.close()


async def _cut_while_connecting(soak: Soak) -> None:
    """Leave between the offer and the answer."""
    async with _client(soak) as client:
        port = await UdpPort.open("127.0.0.1")
        leg = Leg("soak", port, client)
        try:
            offer = await leg.offer()
            offered = {"type": "sdp_offer", "offer": {"type": "offer", "sdp": offer}}
            await client.socket.send_json(offered)
            await asyncio.sleep(soak.chance.uniform(0.0, 0.2))
        finally:
            await leg.close()
            port.close()


async def _refused_offer(soak: Soak) -> None:
    """Offers that cannot be answered, by socket and over HTTP."""
    async with _client(soak) as client:
        for text in ("", "v=0\r\n", "v=0\r\nm=audio 9 X 0\r\n", "x" * 70_000):
            await client.socket.send_json({"type": "sdp_offer", "offer": text})
            async with asyncio.timeout(ANSWER_SECONDS):
                assert (await client.socket.receive_json())["type"] == "error"
            async with soak.http.post(
                f"{soak.url}/api/sdp-exchange", json={"sdpOffer": text}
            ) as answer:
                assert 400 <= answer.status < 500


async def _flood_of_messages(soak: Soak) -> None:
    """Send until the server has had enough."""
    async with _client(soak) as client:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            for _ in range(2000):
                await client.socket.send_str('{"type": "nonsense"}')
        async with asyncio.timeout(ANSWER_SECONDS):
            async for _ in client.socket:
                pass
        assert client.socket.closed


async def _flood_of_datagrams(soak: Soak) -> None:
    """Throw noise at the media port in the middle of an interview."""
    async with _client(soak) as client:
        await client.connect()
        assert client.udp is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            for number in range(2000):
                noise = soak.chance.randbytes(soak.chance.randrange(1, 400))
                with contextlib.suppress(BlockingIOError):
                    stranger.sendto(noise, client.udp)
                if number % 50 == 0:
                    await asyncio.sleep(0.001)
        await client.end()


async def _slow_request(soak: Soak) -> None:
    """Begin a request and never finish it."""
    host, _, port = soak.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: ")
    async with asyncio.timeout(ANSWER_SECONDS):
        assert await reader.read() == b""
    writer.close()


Behaviour = Callable[[Soak], Awaitable[None]]
BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    *(_interview, _interview, _return, _close_page, _vanish, _cut_while_connecting),
    *(_refused_offer, _flood_of_messages, _flood_of_datagrams, _slow_request),
)


# -- the server's side


async def _serve() -> None:
    """The server as it is, which gives memory back when it is asked to (SIGUSR2)."""
    from interview_peer import app
    from interview_peer.settings import load_settings

    libc = ctypes.CDLL(None)

    def give_back() -> None:
        # Lines of every source file that a traceback ever went through.
        linecache.clearcache()
        gc.collect()
        libc.malloc_trim(0)
        work = Counter(
            str(getattr(task.get_coro(), "__qualname__", "?")) for task in asyncio.all_tasks()
        )
        draft = Path(f"{TOLD}.draft")
        known = {"tasks": work, "held": held_bytes(), "pages": page_cache_bytes()}
        draft.write_text(json.dumps(known), encoding="utf-8")
        draft.rename(TOLD)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, give_back)
    await app.serve(load_settings())


@contextlib.asynccontextmanager
async def _process(
    *arguments: str, log: Path, environment: dict[str, str]
) -> AsyncIterator[tuple[int, str]]:
    """A process that says when it is ready; its number and its address."""
    ours = ("INTERVIEW_", "OPENAI_", "LOG_LEVEL", "SIMULATION_MODE", "PORT", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            cwd=log.parent,
            env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        if "ready: " not in line:
            raise SystemExit(f"{arguments[0]} did not start; see {log}")
        yield process.pid, line.rpartition("ready: ")[2].strip().rstrip("/")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


# -- judging and telling


def faults_of(first: Sample, last: Sample) -> list[str]:
    """A sentence for each thing of which more is left than there was."""
    found = []
    room = max(MEMORY_BYTES, int(first.memory * MEMORY_SHARE))
    names = NAME_BYTES * (last.finished - first.finished)
    for name, before, after, more in (
        ("sessions", first.sessions, last.sessions, 0),
        # However many the first look gave up waiting for.
        ("recordings that wait", 0, last.unfinished, 0),
        ("happenings that wait", 0, last.untold, 0),
        ("tasks", first.tasks, last.tasks, 0),
        ("threads", first.threads, last.threads, LENDING_THREADS),
        ("descriptors", first.descriptors, last.descriptors, 0),
        ("bytes of memory", first.memory, last.memory, room),
        ("bytes held by objects", first.held, last.held, HELD_BYTES + names),
    ):
        if after > before + more:
            found.append(f"{after - before} {name} more than at the beginning")
    if last.pages > PAGES_BYTES:
        found.append(f"{last.pages} bytes of the database's pages in memory")
    return found


def odd_visits(done: Counter[str], failed: Counter[str]) -> list[str]:
    """A sentence for each sort of visit that too often did not come out as it should have."""
    odd: Counter[str] = Counter()
    for name, count in failed.items():
        odd[name.partition(":")[0]] += count
    return [
        f"{count} of {count + done[name]} visits of the sort {name.replace('_', ' ')} went wrong"
        for name, count in sorted(odd.items())
        if count > max(1, ODD_SHARE * (count + done[name]))
    ]


def page(soak: Soak, first: Sample, last: Sample, minutes: float) -> str:
    """The section of the document."""
    faults = [*faults_of(first, last), *odd_visits(soak.done, soak.failed)]
    every = max(1, len(soak.samples) // 12)
    rows = [("first", first), *(("", one) for one in soak.samples[::every]), ("last", last)]
    table = "\n".join(
        f"| {name} | {one.at / 60:.1f} | {one.interviews} | {one.tasks} | {one.threads} | "
        f"{one.descriptors} | {one.memory / 1e6:.1f} | "
        f"{f'{one.held / 1e6:.2f} | {one.pages / 1e6:.2f}' if one.held else ' | '} |"
        for name, one in rows
    )
    count = sum(soak.done.values())
    done = "\n".join(f"| {name.replace('_', ' ')} | {n} |" for name, n in soak.done.most_common())
    odd = ", ".join(f"{name} ({n})" for name, n in sorted(soak.failed.items())) or "none"
    verdict = "; ".join(faults) if faults else "everything is back where it was"
    today = datetime.now(UTC).date().isoformat()
    return f"""What a server holds after {minutes:g} minutes of interviews that come, go and break,
against what it held before. Written by `make soak` on {today}: {os.cpu_count()} cores, {WORKERS}
clients at once; server, voice service (the simulator) and clients are a process each.

**Result: {verdict}.** {count} visits; visits that did not come out as planned: {odd}.

Tasks, sessions and descriptors must be no more than before, threads no more than the event loop's
own pool may add. Once collected and trimmed, what objects take must be within
{HELD_BYTES / 1e6:g} MB and {NAME_BYTES / 1e3:g} kB for each of the
{last.finished - first.finished} recordings that were finished meanwhile (see
[what may grow](#what-objects-take-and-what-of-it-may-grow)), SQLite's pages within
{PAGES_BYTES / 1e6:.2f} MB, and resident memory, which also has what the allocators keep of the
highest load, within {MEMORY_SHARE:.0%} or {MEMORY_BYTES / 1e6:g} MB. Of no sort of visit more
than {ODD_SHARE:.0%} may come out otherwise than planned; one always may. The first row is
taken after a warm-up: each sort of visit by all clients at once, then mixed. `objects` and
`database` are parts of memory, in MB.

| | minute | interviews | tasks | threads | descriptors | memory (MB) | objects | database |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

What the clients did:

| visit | times |
| --- | --- |
{done}
"""


async def soak(minutes: float, seed: int, write: bool) -> int:
    """Run it; the exit code."""
    with tempfile.TemporaryDirectory(prefix="interview_peer_soak_") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            start = stack.enter_async_context
            _, service = await start(
                _process(
                    *("interview_peer", "simulate", "--port", "0"),
                    log=folder / "simulator.log",
                    environment={},
                )
            )
            pid, url = await start(
                _process(
                    *("bench.soak", "--serve"),
                    log=folder / "server.log",
                    environment={
                        "PORT": "0",
                        "OPENAI_API_KEY": "sk-soak",
                        "OPENAI_BASE_URL": service,
                        "INTERVIEW_ALLOW_ANONYMOUS": "true",
                        "INTERVIEW_UDP_HOST": "127.0.0.1",
                        "INTERVIEW_UDP_PORT": "0",
                        "INTERVIEW_DATA_DIR": str(folder / "data"),
                        "INTERVIEW_HOLD_SECONDS": "3",
                        "INTERVIEW_CONNECT_SECONDS": "10",
                        "INTERVIEW_SESSION_KEEP_SECONDS": "1",
                        "INTERVIEW_REQUEST_SECONDS": "3",
                        "INTERVIEW_REQUESTS_PER_SECOND": "0",
                        "INTERVIEW_REQUESTS_PER_MINUTE": "0",
                        "INTERVIEW_OFFERS_PER_MINUTE": "0",
                        "INTERVIEW_SOCKETS_PER_MINUTE": "0",
                        "INTERVIEW_DRAIN_SECONDS": "0",
                        "LOG_LEVEL": "error",
                        # Of glibc's books: freed pieces that each thread keeps (up to 0.23 MB)
                        # count as in use there, and nothing makes it give them back.
                        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
                    },
                )
            )
            connector = aiohttp.TCPConnector(force_close=True)
            http = await start(aiohttp.ClientSession(connector=connector))
            run = Soak(
                url.replace("localhost", "127.0.0.1"), pid, random.Random(seed), http, folder
            )
            await run.warm_up(WARM_UP_SECONDS)
            first = await run.quiet()
            print(f"warm: {json.dumps(vars_of(first))}", flush=True)  # noqa: T201
            run.samples.clear()
            run.done.clear()
            run.failed.clear()
            await run.run(minutes * 60)
            last = await run.quiet()
            print(f"over: {json.dumps(vars_of(last))}", flush=True)  # noqa: T201
    faults = [*faults_of(first, last), *odd_visits(run.done, run.failed)]
    if write:
        sections.write("Soak", page(run, first, last, minutes))
    more = Counter(run.tasks[-1]) - Counter(run.tasks[0])
    for line in (
        *faults,
        f"tasks beyond: {dict(more)}",
        f"visits: {dict(run.done)}",
        f"odd: {dict(run.failed)}",
    ):
        print(line, flush=True)  # noqa: T201
    return 1 if faults or not run.done["interview"] else 0


def vars_of(sample: Sample) -> Json:
    """A sample as JSON."""
    return {name: getattr(sample, name) for name in sample.__dataclass_fields__}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-page", action="store_true", help="leave docs/reliability.md alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from interview_peer import logs
        from interview_peer.media.meters import MediaLoop

        logs.configure("error")
        with asyncio.Runner(loop_factory=MediaLoop) as runner:
            runner.run(_serve())
        return
    sys.exit(asyncio.run(soak(options.minutes, options.seed, not options.no_page)))


if __name__ == "__main__":
    main()
