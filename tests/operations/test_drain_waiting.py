"""Who waits for an interview while the server is emptied or ends: told so, and not lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator
from tests.support.server import ServerProcess, running_server, running_simulator

GOING_AWAY = 1001
SERVICE_KEY = "sk-of-the-service"


@contextlib.asynccontextmanager
async def live(tmp_path: Path) -> AsyncIterator[tuple[dict[str, str], ServerProcess]]:
    """Settings of a server that lets in the invited alone, and the voice service that it calls."""
    async with running_simulator(tmp_path / "service", SERVICE_KEY) as service:
        yield (
            {
                "SIMULATION_MODE": "false",
                "OPENAI_BASE_URL": service.url,
                "OPENAI_API_KEY": SERVICE_KEY,
                "INTERVIEW_ALLOW_ANONYMOUS": "false",
                "INTERVIEW_ADMIN_KEY": KEY,
                "INTERVIEW_JOIN_SECRET": "a-join-secret-of-more-than-32-characters",
            },
            service,
        )


async def come(caller: Caller, made: Json) -> None:
    """Open a socket by the invitation."""
    await caller.open_bare(f"/ws/{made['id']}")
    await caller.send({"type": "init", "sessionId": made["id"], "token": made["join_token"]})
    await caller.message("session")


async def turned_away(caller: Caller) -> None:
    """The socket says why, and is closed in order."""
    assert await caller.error() == "DRAINING"
    await caller.socket_closed()
    assert caller.close_code == GOING_AWAY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_ends_tells_whoever_waits_and_takes_no_longer_for_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with live(tmp_path) as (settings, _):
        async with (
            running_server(tmp_path, INTERVIEW_DRAIN_SECONDS="600", **settings) as server,
            calling(server.url) as reading,
            calling(server.url) as unknown,
        ):
            made = await Operator(reading).make(consent="required")
            await come(reading, made)
            await reading.message("consent_required")
            await unknown.open_bare()
            # One that does not even answer that its connection is closed.
            deaf = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
            deaf[1].write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await deaf[0].readuntil(b"\r\n\r\n")
            began = time.monotonic()
            server.process.send_signal(number)
            await asyncio.gather(turned_away(reading), turned_away(unknown))
            async with asyncio.timeout(10):
                assert await server.process.wait() == 0, server.tail()
            assert time.monotonic() - began < 5
            server.killed = True
            deaf[1].close()
        async with (
            running_server(tmp_path, **settings) as again,
            calling(again.url) as back,
        ):
            # What was not decided can be decided now.
            await come(back, made)
            asked = await back.message("consent_required")
            await back.send({"type": "consent", "agreed": True, "version": asked["version"]})
            assert (await back.message("consent"))["agreed"] is True
            await back.connect()


async def test_while_the_server_is_emptied_nobody_is_asked_for_what_cannot_begin(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, drain_seconds=600) as server,
        calling(server.url) as running,
        calling(server.url) as reading,
        calling(server.url) as agreed,
    ):
        operator = Operator(running)
        await running.open()
        await running.connect()
        wanted = await operator.make(consent="required")
        await come(reading, wanted)
        await reading.message("consent_required")
        given = await operator.make()
        await come(agreed, given)
        assert (await operator.ask("POST", "/api/drain")).status == 202
        await asyncio.gather(turned_away(reading), turned_away(agreed))
        # Coming again changes nothing, and asks nothing.
        await come(reading, wanted)
        await turned_away(reading)
        asked = [one for one in reading.messages.items if one["type"] == "consent_required"]
        assert asked == []
        # Who is being interviewed is not disturbed, and may come back.
        await running.leave()
        await running.open(f"/ws/{running.session_id}")
        assert await running.known_phase() == "live"
        shown = [(await operator.show(one))["phase"] for one in (wanted, given)]
        assert shown == ["consent", "created"]
        assert server.interviews.running == 1
