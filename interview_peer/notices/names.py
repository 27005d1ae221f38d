"""Looks up the names of receivers and of the voice service, in threads of its own.

The system's lookup cannot be cut off: a name server that is silent holds its thread for many
seconds longer than an attempt waits. In the event loop's own few threads that would hold up files,
and the names of everybody else. So lookups have their own, and a name is never looked up twice at
a time.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS: Final = 64
"""Names that can hang at the same time before others wait; a thread is made when it is needed."""

_Asked = tuple[str, int, int]


class Names(AbstractResolver):
    """A resolver for connectors. Belongs to the event loop."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="names")
        self._asked: dict[_Asked, asyncio.Future[Any]] = {}
        """Lookups that are under way, also such as nobody waits for any more."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises ``OSError`` if it has none."""
        asked = (host, port, int(family))
        answer = self._asked.get(asked)
        if answer is None:
            look = functools.partial(
                socket.getaddrinfo,
                host,
                port,
                family,
                socket.SOCK_STREAM,
                0,
                socket.AI_ADDRCONFIG,
            )
            answer = asyncio.get_running_loop().run_in_executor(self._threads, look)
            self._asked[asked] = answer
            answer.add_done_callback(functools.partial(self._answered, asked))
        # Others may wait for the same answer, or come for it later.
        found = await asyncio.shield(answer)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Begin no more lookups; those under way end by themselves. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self, asked: _Asked, answer: asyncio.Future[Any]) -> None:
        del self._asked[asked]
        if not answer.cancelled():
            # Taken note of, for lookups that nobody waits for any more.
            answer.exception()
