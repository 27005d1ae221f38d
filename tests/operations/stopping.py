"""How a process is stopped, and how one sees that it was."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from tests.support.server import ServerProcess
from tests.support.waiting import eventually


async def ended(server: ServerProcess, within: float = 60.0) -> int:
    """The exit code of a server that ends by itself."""

    async def look() -> int | None:
        # Waiting for a process waits for its pipes as well, which its children may hold.
        return server.process.returncode

    code = await eventually(
        look, within=within, what="the end of the server", good=lambda code: code is not None
    )
    assert code is not None
    server.killed = True
    return code


def stopped(process: int) -> None:
    """Wait until a process is, by SIGSTOP."""
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


def fill(pipe: int) -> None:
    """Write until it takes no more, then have writers wait as ever."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)
