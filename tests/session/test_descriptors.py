"""A server that runs out of files and sockets: what it says, and whom it spares."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.caller import Caller, calling
from tests.support.server import COMMAND, ServerProcess, clean_environment, running
from tests.support.waiting import eventually

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
"""
WARNING = "too few files and sockets can be opened"


@contextlib.asynccontextmanager
async def limited_server(folder: Path, soft: int, hard: int) -> AsyncIterator[ServerProcess]:
    """A simulating server that was started with these limits of open files."""
    limits = [sys.executable, "-c", LIMITED, str(soft), str(hard)]
    serve = [*COMMAND, "serve", "--simulation", "--port", "0", "--data-dir", str(folder / "data")]
    environment = clean_environment(
        INTERVIEW_UDP_HOST="127.0.0.1",
        INTERVIEW_UDP_PORT="0",
        # Interviews are held for browsers that are gone, for ten seconds, and waited for.
        INTERVIEW_DRAIN_SECONDS="0",
    )
    async with running([*limits, *serve], folder, environment, folder / "data") as server:
        yield server


async def until_said(server: ServerProcess, pattern: str) -> None:
    """Wait for a line of the log."""

    async def look() -> bool:
        return re.search(pattern, server.tail(400)) is not None

    await eventually(look, within=5, what=pattern)


async def figure(server: ServerProcess, name: str) -> int:
    """One of ``GET /healthz``'s figures of descriptors."""
    _, body = await server.get("/healthz")
    return int(body["media"]["descriptors"][name])


async def test_the_limit_is_raised_at_the_start_and_told(tmp_path: Path) -> None:
    async with limited_server(tmp_path, 128, 2048) as server:
        await until_said(server, r" listening .* descriptors=2048 ")
        assert await figure(server, "limit") == 2048
        assert 0 < await figure(server, "open") < 128


async def goes_on(caller: Caller) -> None:
    """Fail unless events pass to the model and back, and no leg was lost."""
    caller.say({"type": "session.update", "session": {"type": "realtime"}})
    await caller.event("session.updated")
    assert not caller.media_lost.is_set()


async def begins(caller: Caller) -> bool:
    """Offer; whether an interview came of it, and not the refusal that is told here."""
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    said = await caller.messages.take(
        lambda one: one["type"] in ("sdp_answer", "error"), "an answer"
    )
    if said["type"] == "error":
        assert said["reason"] == "OUT_OF_DESCRIPTORS", said
        assert said["message"].endswith("Please try again in a minute.")
        return False
    await caller.accept(said["answer"]["sdp"])
    await caller.ready()
    return True


async def fill(server: ServerProcess, stack: contextlib.AsyncExitStack) -> list[Caller]:
    """Begin interviews until one is refused; that one is the last."""
    callers: list[Caller] = []
    while len(callers) < 30:
        callers.append(await stack.enter_async_context(calling(server.url)))
        await callers[-1].open()
        if not await begins(callers[-1]):
            return callers
    pytest.fail("the limit was never reached")


async def test_without_descriptors_interviews_are_refused_and_running_ones_go_on(
    tmp_path: Path,
) -> None:
    async with limited_server(tmp_path, 84, 84) as server, contextlib.AsyncExitStack() as stack:
        await until_said(
            server, "fewer files and sockets can be open than INTERVIEW_MAX_INTERVIEWS"
        )
        *running_ones, refused = await fill(server, stack)
        assert len(running_ones) >= 3
        first, *others = running_ones
        for _ in range(3):
            assert not await begins(refused)
        assert await figure(server, "refused") == 4
        assert server.tail(400).count(WARNING) == 1

        # Those that run are not touched.
        for caller in running_ones:
            await goes_on(caller)
        # Others end, whole, and their room is another's.
        for caller in others:
            await caller.send({"type": "end_session"})
            await caller.message("session_ended")
            folder = server.folder(caller.session_id)
            assert await asyncio.to_thread((folder / "transcript.json").is_file)
        await eventually(lambda: begins(refused), within=10, what="room for another")
        await goes_on(first)


async def test_connections_that_take_every_descriptor_end_nothing(tmp_path: Path) -> None:
    async with limited_server(tmp_path, 90, 90) as server, contextlib.AsyncExitStack() as stack:
        talking = await stack.enter_async_context(calling(server.url))
        await talking.open()
        await talking.connect()
        waiting = await stack.enter_async_context(calling(server.url))
        await waiting.open()
        host, port = server.url.removeprefix("http://").split(":")

        idle = [socket.create_connection((host, int(port)), 5) for _ in range(100)]
        await until_said(server, WARNING)
        assert not await begins(waiting)
        await goes_on(talking)
        assert "Traceback" not in server.tail(400)
        assert server.tail(400).count(WARNING) == 1

        for one in idle:
            one.close()
        await eventually(
            lambda: figure(server, "open"),
            within=10,
            what="room",
            good=lambda count: count < 50,
        )
        assert await begins(waiting)
        await goes_on(talking)
