"""The whole server inside the test's own process, on loopback and free ports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from interview_peer.app import Server, running
from interview_peer.settings import Settings

Traces = tuple[list[str], list[str], int]


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
    }
    try:
        async with running(Settings(**{**chosen, **settings})) as server:
            yield server
    finally:
        # The server freezes what it was made of, for a life as long as the process's.
        gc.unfreeze()


def live(base_url: str, key: str = "sk-test-of-no-worth", **settings: Any) -> dict[str, Any]:
    """The settings of a live server whose voice service is at ``base_url``."""
    return {
        "simulation": False,
        "openai_api_key": key,
        "openai_base_url": base_url,
        **settings,
    }


def traces() -> Traces:
    """What could be left over: names of tasks, names of threads, number of open descriptors."""
    gc.collect()
    tasks = sorted(task.get_name() for task in asyncio.all_tasks() if not task.done())
    threads = sorted(thread.name for thread in threading.enumerate())
    return tasks, threads, len(os.listdir("/proc/self/fd"))
