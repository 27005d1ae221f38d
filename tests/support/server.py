"""Starts ``interview-peer`` commands as processes of their own and stops them properly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from interview_peer.types import Json

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "interview_peer")
READY = re.compile(r"^interview_peer(?:'s simulator)? is ready: (\S+)")
READY_WITHIN = 60.0
STOPS_WITHIN = 50.0
"""A little longer than a server gives itself: after the interviews' end it waits for their records,
mixes and notices, 44 s at most. On a busy machine a mix alone takes fifteen."""
_OWN = ("INTERVIEW_", "OPENAI_", "DATABASE_URL", "LOG_LEVEL", "SIMULATION_MODE", "PORT", "AWS_")
_MAKES = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS")
"""What a make around the tests passes on, and another make would obey."""


class ServerProcess:
    """One running command. ``url`` is what its ready line named, without a final slash."""

    def __init__(self, process: asyncio.subprocess.Process, data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.url = ""
        self.lines: deque[str] = deque(maxlen=5000)
        self.killed = False

    async def kill(self) -> None:
        """End it as a crash would, without a word; nothing more is asked of it then."""
        self.killed = True
        self.process.kill()
        await self.process.wait()

    @property
    def socket_url(self) -> str:
        """The address of the signalling WebSocket."""
        return self.url.replace("http", "ws", 1) + "/ws"

    def tail(self, count: int = 60) -> str:
        """The last lines of its output, for the message of a failing test."""
        return "\n".join(list(self.lines)[-count:])

    def folder(self, session_id: str) -> Path:
        """Where the files of an interview are."""
        return self.data_dir / "interviews" / session_id

    async def get(self, path: str) -> tuple[int, Json]:
        """Status and JSON body of a GET."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
            http.get(self.url + path) as response,
        ):
            return response.status, await response.json(content_type=None)

    async def phase(self, session_id: str) -> str:
        """The interview's phase as ``GET /api/sessions/{id}`` tells it; "unknown" after a 404."""
        status, body = await self.get(f"/api/sessions/{session_id}")
        return str(body.get("phase")) if status == 200 else "unknown"


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of ours or of make's, plus `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN) and name not in _MAKES
    }
    # As a person reads it: pipes would get JSON.
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "INTERVIEW_LOG_FORMAT": "text"}
    return {**kept, **ours, **settings}


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    data_dir: Path,
) -> AsyncIterator[ServerProcess]:
    """Run `command` in `folder` until it is ready; afterwards SIGTERM, and the exit code must be 0.

    Its folder is not the checkout, so that no ``.env`` and no data of the developer is touched.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    server = ServerProcess(process, data_dir)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    readers = [
        asyncio.create_task(_read(stream, server, ready))
        for stream in (process.stdout, process.stderr)
        if stream is not None
    ]
    ended = asyncio.create_task(process.wait())
    try:
        waiting: list[asyncio.Future[Any]] = [ready, ended]
        await asyncio.wait(waiting, timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise AssertionError(f"{' '.join(command)} did not get ready:\n{server.tail()}")
        server.url = ready.result().rstrip("/")
        yield server
        if not server.killed:
            await _stop(server)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(ended, *readers)


@contextlib.asynccontextmanager
async def running_server(folder: Path, **settings: str) -> AsyncIterator[ServerProcess]:
    """A server in simulation on free ports, its data in ``folder/data``.

    `settings` are environment settings on top; ``SIMULATION_MODE="false"`` makes it a live one,
    open to all like the other unless they say otherwise.
    """
    data_dir = folder / "data"
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir)]
    if settings.get("SIMULATION_MODE") != "false":
        arguments.append("--simulation")
    base = {
        "INTERVIEW_UDP_HOST": "127.0.0.1",
        "INTERVIEW_UDP_PORT": "0",
        "INTERVIEW_ALLOW_ANONYMOUS": "true",
        # A test that stops a server does not wait for its interviews.
        "INTERVIEW_DRAIN_SECONDS": "0",
        # Nor does it depend on how full the machine's disk is.
        "INTERVIEW_MIN_FREE_MB": "0",
        # Every caller of a test has the same address.
        "INTERVIEW_REQUESTS_PER_SECOND": "0",
        "INTERVIEW_REQUESTS_PER_MINUTE": "0",
        "INTERVIEW_OFFERS_PER_MINUTE": "0",
        "INTERVIEW_OFFERS_PER_INTERVIEW": "0",
        "INTERVIEW_SOCKETS_PER_MINUTE": "0",
    }
    environment = clean_environment(**{**base, **settings})
    async with running([*COMMAND, *arguments], folder, environment, data_dir) as server:
        yield server


@contextlib.asynccontextmanager
async def running_simulator(folder: Path, key: str) -> AsyncIterator[ServerProcess]:
    """The simulated voice service in a process of its own; takes `key` alone."""
    command = [*COMMAND, "simulate", "--port", "0"]
    environment = clean_environment(OPENAI_API_KEY=key)
    async with running(command, folder, environment, folder) as simulator:
        yield simulator


async def _read(
    stream: asyncio.StreamReader, server: ServerProcess, ready: asyncio.Future[str]
) -> None:
    async for raw in stream:
        line = raw.decode(errors="replace").rstrip()
        server.lines.append(line)
        match = READY.match(line)
        if match and not ready.done():
            ready.set_result(match.group(1))


async def _stop(server: ServerProcess) -> None:
    if server.process.returncode is None:
        server.process.send_signal(signal.SIGTERM)
    try:
        code = await asyncio.wait_for(server.process.wait(), STOPS_WITHIN)
    except TimeoutError:
        raise AssertionError(f"did not stop after SIGTERM:\n{server.tail()}") from None
    assert code == 0, f"exit code {code} after SIGTERM:\n{server.tail()}"
