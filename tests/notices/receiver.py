"""A receiver on loopback that answers as it is told, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from interview_peer.types import Json
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Got:
    """One request."""

    id: str
    headers: dict[str, str]
    body: bytes
    order: int
    path: str
    cut: Callable[[], None] | None = None
    """Cuts the connection instead of an answer."""
    request: web.Request | None = field(default=None, compare=False, repr=False)

    @property
    def notice(self) -> Json:
        """The body, decoded."""
        decoded: Json = json.loads(self.body)
        return decoded

    @property
    def sequence(self) -> int:
        """The notice's place in its interview."""
        return int(self.notice["data"]["sequence"])

    @property
    def interview(self) -> str:
        """Which interview it is of."""
        return str(self.notice["data"]["interview_id"])


Answer = Callable[[Got], Awaitable[web.StreamResponse]]


async def ok(got: Got) -> web.StreamResponse:
    """An ordinary answer."""
    return web.Response(status=204)


def status(code: int, **headers: str) -> Answer:
    """Always this status."""

    async def answer(got: Got) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


async def never(got: Got) -> web.StreamResponse:
    """No answer at all, until the other side gives up."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


@dataclass
class Receiver:
    """Takes POSTs to any path; ``answer`` decides, ``got`` remembers in order of arrival."""

    answer: Answer = ok
    got: list[Got] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    open_ids: list[str] = field(default_factory=list)
    twice_at_once: list[str] = field(default_factory=list)
    port: int = 0
    _runner: Any = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The id of each request, in order of arrival."""
        return [got.id for got in self.got]

    async def start(self, port: int = 0) -> Receiver:
        """Listen."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        """Listen no more; open requests are cut."""
        await self._runner.cleanup()

    async def has(self, count: int, within: float = 10.0) -> None:
        """Wait until so many requests came."""

        async def look() -> int:
            return len(self.got)

        what = f"{count} requests"
        await eventually(look, within=within, what=what, good=lambda seen: seen >= count)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        identity = request.headers.get("webhook-id", "")
        cut = request.transport.abort if request.transport is not None else None
        headers = dict(request.headers)
        got = Got(identity, headers, body, len(self.got), request.path, cut, request)
        self.got.append(got)
        if identity in self.open_ids:
            self.twice_at_once.append(identity)
        self.open_ids.append(identity)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            return await self.answer(got)
        finally:
            self.open_now -= 1
            self.open_ids.remove(identity)
