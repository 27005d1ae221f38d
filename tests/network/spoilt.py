"""The network between one page and the server, which a test may spoil."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from playwright.async_api import Error, WebSocketRoute

from tests.support.lossy_link import Address, Impairment, LossyLink

T = TypeVar("T")

_UDP_CANDIDATE = re.compile(r"(?mi)^a=candidate:\S+ \d+ udp \d+ (\S+) (\d+)")


async def _close(server: WebSocketRoute) -> None:
    with contextlib.suppress(Error):
        await server.close()


class Network:
    """What lies between one page and the server; how it is spoilt outlives a connection.

    Each answer that the server gives gets a link of its own, as each new socket of a browser gets
    a mapping of its own in a NAT. The links run in a thread of their own, so that the work of
    the test does not hold the datagrams up.
    """

    def __init__(self, seed: int) -> None:
        self.up = Impairment()
        self.down = Impairment()
        self.links: list[LossyLink] = []
        self._seed = seed
        self._signalling: set[asyncio.Task[None]] = set()
        self._dead_sockets = 0
        """So many of the page's first signalling sockets carry nothing any more."""
        self._sockets = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="network")
        self._thread.start()

    async def close(self) -> None:
        """Close every link and end the thread."""
        for task in self._signalling:
            task.cancel()
        await asyncio.gather(*self._signalling, return_exceptions=True)
        for link in self.links:
            self._loop.call_soon_threadsafe(link.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        self._loop.run_forever()
        # One more round, for what closing a socket leaves to it.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def spoil(
        self,
        *,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        reorder: bool = False,
        outage: bool = False,
    ) -> None:
        """Do this to both directions, and nothing else."""
        for way in (self.up, self.down):
            way.loss, way.delay, way.jitter = loss, delay, jitter
            way.reorder, way.outage = reorder, outage

    async def rebind(self) -> None:
        """Give the newest connection a new source port towards the server."""
        await self._do(self.links[-1].rebind())

    def leave(self, *, with_signalling: bool) -> None:
        """Take the page to another network: what it has open is dead for good, silently.

        What it opens from now on works. ``with_signalling`` takes its WebSockets too, which
        nobody is told of, as with a TCP connection whose far end is gone.
        """
        self.links[-1].up = self.links[-1].down = Impairment(outage=True)
        if with_signalling:
            self._dead_sockets = self._sockets

    @property
    def server(self) -> Address:
        """The server's one UDP port."""
        return self.links[-1].target

    def relay(self, socket: WebSocketRoute) -> None:
        """Pass signalling on, with a link's address in place of the server's."""
        server = socket.connect_to_server()
        order = asyncio.Lock()
        self._sockets += 1
        number = self._sockets

        def is_dead() -> bool:
            return number <= self._dead_sockets

        async def deliver(text: str | bytes) -> None:
            async with order:
                message = json.loads(text)
                if message.get("type") == "sdp_answer":
                    message["answer"]["sdp"] = await self._through(message["answer"]["sdp"])
                socket.send(json.dumps(message))

        def told(text: str | bytes) -> None:
            if is_dead():
                return
            task = asyncio.create_task(deliver(text), name="pass on signalling")
            self._signalling.add(task)
            task.add_done_callback(self._signalling.discard)

        def said(text: str | bytes) -> None:
            if not is_dead():
                server.send(text)

        def hung_up(code: int | None, reason: str | None) -> None:
            if not is_dead():
                task = asyncio.create_task(_close(server), name="hang up signalling")
                self._signalling.add(task)
                task.add_done_callback(self._signalling.discard)

        server.on_message(told)
        socket.on_message(said)
        socket.on_close(hung_up)

    async def _through(self, sdp: str) -> str:
        found = _UDP_CANDIDATE.search(sdp)
        assert found is not None, sdp
        seed = self._seed + len(self.links)
        link = await self._do(LossyLink.open((found[1], int(found[2])), seed=seed))
        link.up, link.down = self.up, self.down
        self.links.append(link)
        return link.through(sdp)

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
