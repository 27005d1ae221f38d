"""The network between one page and the server, which a test may spoil."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from playwright.async_api import WebSocketRoute

from tests.support.lossy_link import Address, Impairment, LossyLink

T = TypeVar("T")

_UDP_CANDIDATE = re.compile(r"(?mi)^a=candidate:\S+ \d+ udp \d+ (\S+) (\d+)")


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

    @property
    def server(self) -> Address:
        """The server's one UDP port."""
        return self.links[-1].target

    def relay(self, socket: WebSocketRoute) -> None:
        """Pass signalling on, with a link's address in place of the server's."""
        server = socket.connect_to_server()
        order = asyncio.Lock()

        async def deliver(text: str | bytes) -> None:
            async with order:
                message = json.loads(text)
                if message.get("type") == "sdp_answer":
                    message["answer"]["sdp"] = await self._through(message["answer"]["sdp"])
                socket.send(json.dumps(message))

        def told(text: str | bytes) -> None:
            task = asyncio.create_task(deliver(text), name="pass on signalling")
            self._signalling.add(task)
            task.add_done_callback(self._signalling.discard)

        server.on_message(told)

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
