"""The whole server inside the test's own process, on loopback and free ports."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp

from interview_peer.app import Server, running
from interview_peer.settings import Settings

from .caller import Caller
from .waiting import eventually


@dataclass(frozen=True)
class Traces:
    """What a process holds: tasks, threads, and how many open descriptors."""

    tasks: Counter[str]
    threads: Counter[str]
    descriptors: int

    def beyond(self, before: Traces) -> str:
        """What there is more of than before; empty if nothing."""
        more = {**(self.tasks - before.tasks), **(self.threads - before.threads)}
        if self.descriptors > before.descriptors:
            more["descriptors"] = self.descriptors - before.descriptors
        return ", ".join(f"{count} x {what}" for what, count in more.items())


@contextlib.asynccontextmanager
async def serving(data_dir: Path, **settings: Any) -> AsyncIterator[Server]:
    """A running server, in simulation unless ``settings`` say otherwise."""
    chosen: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "udp_host": "127.0.0.1",
        "udp_port": 0,
        "data_dir": data_dir,
        "simulation": True,
        # No test depends on how full the machine's disk is.
        "min_free_mb": 0,
        # Every caller of a test has the same address.
        "requests_per_second": 0,
        "requests_per_minute": 0,
        "offers_per_minute": 0,
        "offers_per_interview": 0,
        "sockets_per_minute": 0,
        "messages_per_second": 0,
    }
    # No connection to the voice service stays open for reuse, so that descriptors can be counted.
    unpooled = functools.partial(aiohttp.TCPConnector, force_close=True)
    try:
        with (
            mock.patch("aiohttp.client.TCPConnector", unpooled),
            mock.patch("interview_peer.app.TCPConnector", unpooled),
        ):
            async with running(Settings(**{**chosen, **settings})) as server:
                yield server
    finally:
        # The server freezes what it was made of, for a life as long as the process's.
        gc.unfreeze()


def live(base_url: str, key: str = "sk-test-of-no-worth", **settings: Any) -> dict[str, Any]:
    """The settings of a live server, open to all, whose voice service is at ``base_url``."""
    return {
        "simulation": False,
        "allow_anonymous": True,
        "openai_api_key": key,
        "openai_base_url": base_url,
        **settings,
    }


def traces() -> Traces:
    """What could be left over: tasks and threads by what they run, and the open descriptors."""
    gc.collect()
    tasks = Counter(_work(task) for task in asyncio.all_tasks() if not task.done())
    names = [thread.name for thread in threading.enumerate()]
    # Those of the event loop's own small pool, for looking up addresses, come as they are needed.
    threads = Counter(name for name in names if not name.startswith("asyncio_"))
    return Traces(tasks, threads, len(os.listdir("/proc/self/fd")))


async def recorded(server: Server, caller: Caller) -> None:
    """Wait until the files of this caller's interview are open, so that they can be counted."""
    path = server.interviews.find(caller.session_id)._recording.folder.path

    async def look() -> int:
        return await asyncio.to_thread(lambda: len(list(path.glob("[!.]*.*"))))

    await eventually(look, within=5, what="three files", good=lambda count: count == 3)


async def nothing_left(before: Traces, within: float = 10.0) -> None:
    """Wait until there is no task, thread or descriptor beyond those of ``before``."""

    async def look() -> str:
        return traces().beyond(before)

    await eventually(look, within=within, what="nothing left over", good=lambda more: not more)


def _work(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", task))
