"""Interviews leave tasks, threads and descriptors as they were."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from interview_peer.app import Server
from tests.support.caller import Caller, calling
from tests.support.inprocess import Traces, nothing_left, serving, traces
from tests.support.waiting import eventually

# Twenty in a row on a busy machine.
pytestmark = pytest.mark.timeout(180)

Way = Callable[[Caller], Awaitable[None]]


async def goodbye(caller: Caller) -> None:
    """Begin over the socket, end over it."""
    await caller.open()
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    await caller.socket_closed()


async def hang_up(caller: Caller) -> None:
    """Begin and end as OpenAI's clients do."""
    reply = await caller.post(
        "/v1/realtime/calls",
        data=(await caller.offer()).encode(),
        headers={"Content-Type": "application/sdp"},
    )
    await caller.accept(reply.text)
    await caller.ready()
    await caller.post(reply.headers["location"] + "/hangup")
    await caller.media_lost.wait()


async def drop(caller: Caller) -> None:
    """Close the page: peer connection and socket."""
    await caller.open()
    await caller.connect()
    await caller.drop()
    await caller.message("session_ended")


async def hasty(caller: Caller) -> None:
    """End before anything is connected."""
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")


async def half_way(caller: Caller) -> None:
    """End between answer and connection."""
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    answer = await caller.message("sdp_answer")
    await caller.accept(answer["answer"]["sdp"])
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")


async def come_back(caller: Caller) -> None:
    """Return twice, once after closing and once while the old leg stands."""
    await caller.open()
    await caller.connect()
    await caller.drop()
    await caller.phase("detached")
    await caller.connect()
    await caller.connect_by_http(sessionId=caller.session_id)
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")


async def settled(server: Server) -> Traces:
    """What there is once no interview runs and nothing changes any more."""

    async def look() -> Traces | None:
        busy = server.interviews.running or server.finishing.busy
        return None if busy else traces()

    # Finishing goes behind everything else on the machine.
    seen = await eventually(look, within=90, what="no interview", good=lambda one: one is not None)
    assert seen is not None
    await asyncio.wait_for(server.state.chronicle.drained(), 10)
    return await eventually(
        lambda: asyncio.sleep(0, traces()),
        within=5,
        what="no write under way",
        good=lambda now: "Database._once" not in now.tasks,
    )


@pytest.mark.parametrize("way", [goodbye, hang_up, drop, hasty, half_way, come_back])
async def test_twenty_interviews_in_a_row_leave_everything_as_it_was(
    tmp_path: Path, way: Way
) -> None:
    # Only who waits for the end of the hold wants it short.
    async with serving(tmp_path, hold_seconds=0.1 if way is drop else 10) as server:
        # The first one brings what stays: the storage thread, the loop's helpers.
        async with calling(server.url) as caller:
            await goodbye(caller)
        before = await settled(server)
        for _ in range(20):
            async with calling(server.url) as caller:
                await asyncio.wait_for(way(caller), 30)
        await settled(server)
        await nothing_left(before)

        async def look() -> Traces:
            return traces()

        await eventually(look, within=5, what="the same", good=lambda now: now == before)


async def test_many_at_once_leave_everything_as_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path, hold_seconds=3) as server:
        async with calling(server.url) as caller:
            await goodbye(caller)
        before = await settled(server)

        async def one(way: Way) -> None:
            async with calling(server.url) as caller:
                await way(caller)

        ways = [goodbye, hang_up, drop, hasty, half_way, come_back] * 3
        await asyncio.gather(*(one(way) for way in ways))
        await settled(server)
        await nothing_left(before)


async def test_the_last_interview_does_not_stay_in_memory_until_the_next(tmp_path: Path) -> None:
    async with serving(tmp_path, record_keep_seconds=0.1) as server:
        async with calling(server.url) as caller:
            await caller.open()
            await caller.connect()
            last = weakref.ref(server.interviews.find(caller.session_id))
            await caller.send({"type": "end_session"})
            await caller.message("session_ended")
        await settled(server)

        async def gone() -> bool:
            gc.collect()
            # Not the interview itself: what looks for it would keep it.
            return last() is None

        await eventually(gone, within=20, what="forgotten")


async def test_a_server_leaves_nothing_however_it_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path / "first") as server, calling(server.url) as caller:
        await goodbye(caller)
    before = traces()
    async with contextlib.AsyncExitStack() as callers:
        async with serving(tmp_path / "second") as server:
            live, detached, connecting = [
                await callers.enter_async_context(calling(server.url)) for _ in range(3)
            ]
            for caller in (live, detached, connecting):
                await caller.open()
            await live.connect()
            await detached.connect()
            await detached.drop()
            await detached.phase("detached")
            await connecting.send({"type": "sdp_offer", "offer": await connecting.offer()})
            await connecting.phase("connecting")
        for caller in (live, detached, connecting):
            assert (await caller.message("session_ended"))["reason"] == "server_shutdown"
    await nothing_left(before)
    after = traces()
    assert (after.tasks, after.descriptors) == (before.tasks, before.descriptors)
