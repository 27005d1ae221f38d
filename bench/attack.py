"""``python -m bench.attack``: what running interviews feel of an attack on their server.

The same interviews are measured in a quiet window and in one in which another process floods the
server with offers, sockets, messages, pings, frames that never become a message, bodies in the
smallest chunks, connections that read no answer, connections that ask for pages without end, events
of a candidate and forged STUN, from addresses of its own. The server has its limits as they are by
default. Windows alternate, so that what changes on the machine favours neither; figures are
medians. ``waited`` is the time that the server's threads waited for its core, for each other too,
as a share of the window: where that of a quiet window is more than a few per cent, the figures say
nothing of the attack.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import aiohttp
from yarl import URL

from interview_peer.errors import InterviewPeerError
from interview_peer.media.leg import ChannelClosed, Leg
from interview_peer.media.udp import UdpPort
from interview_peer.types import Json

from . import machine, sections, subjects
from .goals import Goal, summary
from .subjects import ROOT, BenchFailed, Generator, Place

HEADING: Final = "While under attack"
SETTLE_SECONDS: Final = 1.2
ATTACKER: Final = "127.0.0.9"
CANDIDATE: Final = "127.0.0.10"
"""Whose offers are counted apart, so that the flood of offers does not keep it out."""
READER: Final = "127.0.0.11"
"""Who asks for pages: requests of one address wait for each other, and others are to come in."""
FORGED: Final = tuple(f"127.0.{n // 8 + 1}.{n % 8 + 2}" for n in range(40))
OFFERS_PER_SECOND: Final = 20
SOCKETS_PER_SECOND: Final = 20
DATAGRAMS_PER_SECOND: Final = 2000
EVENTS_PER_SECOND: Final = 2400
PINGS: Final = b"\x89\x80\0\0\0\0" * 20_000
BEGUN: Final = b"\x01\x80\0\0\0\0"
CONTINUED: Final = b"\x00\x80\0\0\0\0" * 20_000
"""Empty frames of a text message that has begun and never ends."""
CHUNKED: Final = b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS: Final = b"1\r\na\r\n" * 20_000
UNREAD: Final = 200
"""Connections that ask and read nothing."""
UNREAD_PER_SECOND: Final = 100
UNREAD_SECONDS: Final = 20.0
"""Longer than the server keeps them."""
ASKED: Final = b"GET /api/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 300
PAGES: Final = 400
"""Connections that ask for a page, read it, and ask again."""
PAGE: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FLOODS: Final = (
    *("offers", "sockets", "messages", "pings", "continuation frames", "chunks"),
    *("answers that nobody reads", "pages", "events", "datagrams"),
)
"""What an attacker does, by names of its own; of each there must have been some."""
TICK_SECONDS: Final = 0.02
P99_GOAL_MS: Final = 5.0
"""Added delay that an attack may bring the slowest hundredth of packets to."""

OFFER: Final = "\r\n".join(
    (
        *("v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0"),
        *("m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:0", "a=sendrecv"),
        *("a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx", "a=setup:actpass"),
        "a=fingerprint:sha-256 " + ":".join(f"{byte:02X}" for byte in range(32)),
        *("a=rtcp-mux", "a=rtpmap:111 opus/48000/2", ""),
    )
)


# -- the attacker


class Attack:
    """Floods one server until it is cancelled, each at its own rate."""

    def __init__(
        self, url: str, http: aiohttp.ClientSession, candidate: aiohttp.ClientSession
    ) -> None:
        self._url = url
        self._http = http
        self._candidate = candidate
        self._chance = random.Random(1)
        self.done: Counter[str] = Counter()
        """How often each flood came as far as to cost the server something."""

    async def run(self) -> None:
        """All of them at once, once it is known where packets go."""
        port = await self._media_port()
        print("ready", flush=True)  # noqa: T201
        async with asyncio.TaskGroup() as group:
            group.create_task(self._at(OFFERS_PER_SECOND, self._offer), name="offers")
            group.create_task(self._at(SOCKETS_PER_SECOND, self._socket), name="sockets")
            group.create_task(self._messages(), name="messages")
            group.create_task(self._again(self._ping), name="pings")
            group.create_task(self._again(self._continue), name="continuation frames")
            group.create_task(self._again(self._chunks), name="chunks")
            for number in range(UNREAD):
                group.create_task(self._unread(number), name="answers that nobody reads")
            for _ in range(PAGES):
                group.create_task(self._pages(), name="pages")
            group.create_task(self._events(), name="events")
            group.create_task(self._datagrams(port), name="datagrams")

    async def _media_port(self) -> tuple[str, int]:
        headers = {"Content-Type": "application/sdp"}
        calls = f"{self._url}/v1/realtime/calls"
        async with self._http.post(calls, data=OFFER, headers=headers) as answer:
            text, place = await answer.text(), answer.headers.get("Location", "")
        for line in text.splitlines():
            if line.startswith("a=candidate:"):
                async with self._http.post(f"{self._url}{place}/hangup") as over:
                    await over.read()
                return line.split()[4], int(line.split()[5])
        raise SystemExit(f"the server answered {answer.status}")

    async def _at(self, per_second: float, what: Callable[[], Awaitable[None]]) -> None:
        """Begin one after the other, whatever becomes of those before."""
        running: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(1 / per_second)
            if len(running) < 200:
                task = asyncio.create_task(self._tried(what), name="one of a flood")
                running.add(task)
                task.add_done_callback(running.discard)

    async def _tried(self, what: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(5):
                await what()

    async def _offer(self) -> None:
        headers = {"Content-Type": "application/sdp"}
        calls = f"{self._url}/v1/realtime/calls"
        async with self._http.post(calls, data=OFFER, headers=headers) as answer:
            await answer.read()
            self.done["offers"] += 1

    async def _socket(self) -> None:
        async with self._http.ws_connect(f"{self._url}/ws") as opened:
            await opened.receive()
            self.done["sockets"] += 1

    async def _messages(self) -> None:
        while True:
            await self._tried(self._shout)
            await asyncio.sleep(0.5)

    async def _shout(self) -> None:
        async with self._http.ws_connect(f"{self._url}/ws") as opened:
            for _ in range(1000):
                await opened.send_str('{"type": "nonsense"}')
                self.done["messages"] += 1

    async def _again(self, what: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._tried(what)
            await asyncio.sleep(0.5)

    async def _ping(self) -> None:
        """Empty pings, thousands in one piece: no frames are smaller."""
        await self._frames("pings", b"", PINGS)

    async def _continue(self) -> None:
        await self._frames("continuation frames", BEGUN, CONTINUED)

    async def _frames(self, name: str, first: bytes, block: bytes) -> None:
        async with self._http.ws_connect(f"{self._url}/ws") as opened:
            transport = opened.get_extra_info("socket")
            assert transport is not None
            loop = asyncio.get_running_loop()
            line = transport.dup()
            try:
                await loop.sock_sendall(line, first)
                for _ in range(20):
                    # What the server does not take any more is counted too: it was begun.
                    self.done[name] += 1
                    await loop.sock_sendall(line, block)
            finally:
                line.close()

    async def _chunks(self) -> None:
        """A body without end, in the smallest chunks, until the server has had enough."""
        loop = asyncio.get_running_loop()
        with await self._connected() as line:
            await loop.sock_sendall(line, CHUNKED)
            while True:
                self.done["chunks"] += 1
                await loop.sock_sendall(line, CHUNKS)

    async def _unread(self, number: int) -> None:
        await asyncio.sleep(number / UNREAD_PER_SECOND)
        while True:
            with contextlib.suppress(OSError), await self._connected() as line:
                await asyncio.get_running_loop().sock_sendall(line, ASKED)
                self.done["answers that nobody reads"] += 1
                await asyncio.sleep(UNREAD_SECONDS)
            await asyncio.sleep(0.5)

    async def _pages(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError), await self._connected(READER) as line:
                await loop.sock_sendall(line, PAGE)
                while await loop.sock_recv(line, 65536):
                    # Asked anew with each piece of an answer: more often than it is answered.
                    self.done["pages"] += 1
                    await loop.sock_sendall(line, PAGE)
            await asyncio.sleep(0.5)

    async def _connected(self, address: str = ATTACKER) -> socket.socket:
        """A connection of bytes alone, with little room for what it is sent."""
        place = URL(self._url)
        line = socket.socket()
        try:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.bind((address, 0))
            line.setblocking(False)
            await asyncio.get_running_loop().sock_connect(line, (place.host or "", place.port or 0))
        except BaseException:
            line.close()
            raise
        return line

    async def _events(self) -> None:
        while True:
            with contextlib.suppress(InterviewPeerError, ChannelClosed):
                await self._tried(self._flood_channel)
            await asyncio.sleep(0.5)

    async def _flood_channel(self) -> None:
        """Connect as a candidate does, and send events until the server ends it."""
        ear = _Ear()
        leg = Leg("attacker", await UdpPort.open("127.0.0.1"), ear, own_port=True)
        calls, place = f"{self._url}/v1/realtime/calls", ""
        headers = {"Content-Type": "application/sdp"}
        try:
            offer = await leg.offer()
            async with self._candidate.post(calls, data=offer, headers=headers) as answer:
                place = answer.headers.get("Location", "")
                if not place:
                    return
                await leg.accept(await answer.text())
            await ear.opened.wait()
            while not leg.lost:
                for _ in range(int(EVENTS_PER_SECOND * TICK_SECONDS)):
                    leg.send_text('{"type": "nonsense"}')
                    self.done["events"] += 1
                await asyncio.sleep(TICK_SECONDS)
        finally:
            await leg.close()
            if place:
                async with self._candidate.post(f"{self._url}{place}/hangup") as over:
                    await over.read()

    async def _datagrams(self, port: tuple[str, int]) -> None:
        senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in FORGED]
        for sender, host in zip(senders, FORGED, strict=True):
            sender.bind((host, 0))
            sender.setblocking(False)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.done["datagrams"] += 1
            for number in range(int(DATAGRAMS_PER_SECOND * TICK_SECONDS)):
                # A binding request for nobody: header, cookie, transaction, user name.
                name = secrets.token_hex(11).encode() + b":abcd"
                body = b"\x00\x06" + len(name).to_bytes(2) + name + bytes(-len(name) % 4)
                head = b"\x00\x01" + len(body).to_bytes(2) + b"\x21\x12\xa4\x42"
                with contextlib.suppress(BlockingIOError):
                    sender = senders[number % len(senders)]
                    sender.sendto(head + self._chance.randbytes(12) + body, port)


class _Ear:
    """Listens for an attacker's leg: when events can flow."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    def leg_connected(self, leg: Leg) -> None:
        """Nothing to do before the channel is open."""

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """The leg itself knows."""

    def channel_opened(self, leg: Leg) -> None:
        """Events can flow."""
        self.opened.set()

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """What is told to an attacker is not listened to."""

    def channel_closed(self, leg: Leg) -> None:
        """The leg closes as well."""


async def _attack(url: str) -> None:
    def of(address: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0, force_close=True)
        return aiohttp.ClientSession(connector=connector)

    async with of(ATTACKER) as http, of(CANDIDATE) as candidate:
        attack = Attack(url.replace("localhost", "127.0.0.1"), http, candidate)

        def end() -> None:
            print(json.dumps(attack.done), flush=True)  # noqa: T201
            os._exit(0)

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        await attack.run()


@contextlib.contextmanager
def attacking(url: str, core: int) -> Iterator[Counter[str]]:
    """An attacker in a process of its own, at work; what it did is known afterwards.

    Raises ``BenchFailed`` where it does not begin, or did not go on for as long as this lasts.
    """
    done: Counter[str] = Counter()
    command = [sys.executable, "-m", "bench.attack", "--attack", url]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchFailed("the attacker did not begin")
        yield done
        process.terminate()
        try:
            # It says nothing where it had ended before: what was measured then was no attack.
            done.update(json.loads(process.stdout.readline()))
        except ValueError:
            raise BenchFailed("the attacker ended before it was to") from None
    finally:
        process.kill()
        process.communicate()


# -- measuring


def run(calls: int, seconds: float, repeat: int) -> tuple[dict[bool, list[Json]], int]:
    """The windows, quiet and under attack, and how many connections were lost in all of them."""
    cores = machine.cores()
    realtime = subjects.may_run_realtime()
    server, load = Place(cores[0], realtime), Place(cores[-1], realtime)
    windows: dict[bool, list[Json]] = {False: [], True: []}
    done: Counter[str] = Counter()
    with (
        subjects.load_generator("relay", load) as generator,
        subjects.our_server(generator.far_end or "", server, limited=True) as subject,
    ):
        generator.ask("subject", url=subject.url, pid=subject.pid, health=True)
        generator.ask("ramp", calls=calls)
        for _ in range(repeat):
            windows[False].append(_window(generator, seconds, server.core))
            with attacking(subject.url, cores[len(cores) // 2]) as did:
                windows[True].append(_window(generator, seconds, server.core))
            done += did
        legs = int(generator.ask("ramp", calls=calls)["lost_legs"])
    check(done)
    return windows, legs


def check(done: Counter[str]) -> None:
    """Raise ``BenchFailed`` where a flood never came to anything: nothing is known of it then."""
    missing = [name for name in FLOODS if not done[name]]
    if missing:
        raise BenchFailed(f"of the attack nothing came of: {', '.join(missing)}")


def _window(generator: Generator, seconds: float, core: int) -> Json:
    return generator.ask("measure", seconds=seconds, settle=SETTLE_SECONDS, events=0.0, core=core)


def figures(windows: list[Json]) -> Json:
    """Medians over windows: delays of the slower direction, what was lost, processor time."""

    def delay(index: int) -> float:
        slower = [max(known[index] for known in one["delays_ms"] if known) for one in windows]
        return float(statistics.median(slower))

    return {
        "p50_ms": delay(0),
        "p99_ms": delay(2),
        "lost": sum(sum(one["sent"]) - sum(one["received"]) for one in windows),
        "dropped": sum(one["kernel_drops"] for one in windows),
        "cpu": statistics.median(one["cpu"] for one in windows),
        "waited": statistics.median(one["waited"] for one in windows),
    }


def goals(attacked: Json, legs: int) -> list[Goal]:
    """What an attack may cost at most, beside what it did."""
    return [
        Goal.at_most("added delay p99, ms", P99_GOAL_MS, attacked["p99_ms"], "{:.2f}"),
        Goal.at_most("packets lost", 0, attacked["lost"], "{:.0f}"),
        Goal.at_most("connections lost", 0, legs, "{:.0f}"),
    ]


def page(calls: int, rows: list[str], found: list[Goal]) -> str:
    """The section of the document."""
    today = datetime.now(UTC).date().isoformat()
    table = "\n".join(rows)
    judged = "\n".join(
        f"| {one.name} | {one.limit} | {one.measured} | {'reached' if one.reached else 'MISSED'} |"
        for one in found
    )
    priority = " Server and generator ran before other processes (real-time priority)."
    return f"""
{calls} interviews on one server while another process floods it: {OFFERS_PER_SECOND} offers and
{SOCKETS_PER_SECOND} WebSockets a second, one WebSocket that sends as fast as it can, one
that sends empty pings, thousands at once, one that sends a message of empty frames without end,
a request whose body has chunks of one byte, {UNREAD} connections that ask 300 times and read
nothing, {PAGES} connections that ask for the page again and again, a candidate that sends
{EVENTS_PER_SECOND} events a second on its data channel and connects anew whenever it is cut off,
and {DATAGRAMS_PER_SECOND} forged STUN requests a second from {len(FORGED)} addresses. Written by
`python -m bench.attack`, a part of `make bench`, on {today}: {os.cpu_count()} cores, the attacker
and the load generator beside the server.{priority if subjects.may_run_realtime() else ""}

Added delay of the slower direction in milliseconds, packets lost, datagrams of all sorts that the
kernel dropped before the server's full sockets (`net.core.rmem_max` bounds their room), the share
of a core that the server used, and the share of time in which threads of it waited for that core,
for other processes or for each other.

| | p50 | p99 | lost | dropped by the kernel | core used | waited |
| --- | --- | --- | --- | --- | --- | --- |
{table}

While under attack, **{summary(found)}**

| goal | limit | measured | |
| --- | --- | --- | --- |
{judged}
"""


def main() -> int:
    """Measure and print; exit code 1 where an attack is felt more than it may be."""
    parser = argparse.ArgumentParser(prog="python -m bench.attack", description=__doc__)
    parser.add_argument("--calls", type=int, default=20, help="interviews that run  [20]")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one window of each sort")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(_attack(options.attack))
        return 0
    try:
        repeat = 1 if options.quick else options.repeat
        windows, legs = run(options.calls, options.seconds, repeat)
    except BenchFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    told = [f"{options.calls} interviews      p50 ms   p99 ms   lost   full   core used   waited"]
    rows = []
    for attacked, name in ((False, "quiet"), (True, "while under attack")):
        known = figures(windows[attacked])
        cells = (
            *(f"{known['p50_ms']:.2f}", f"{known['p99_ms']:.2f}", f"{known['lost']}"),
            f"{known['dropped']}",
            *(f"{known['cpu']:.0%}", f"{known['waited']:.0%}"),
        )
        told.append(f"{name:<20}" + "  ".join(f"{cell:>8}" for cell in cells))
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    found = goals(figures(windows[True]), legs)
    told += [f"connections lost: {legs}", summary(found)]
    sys.stdout.write("\n".join(told) + "\n")
    if not options.quick:
        sections.write(HEADING, page(options.calls, rows, found))
    return 0 if all(one.reached for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
