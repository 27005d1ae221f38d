"""Whether new interviews are welcome: what speaks against it, and what offers are told then."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from interview_peer.errors import StateUnavailable
from interview_peer.state.database import Database
from interview_peer.storage import room
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually


async def reasons(caller: Caller) -> list[str]:
    reply = await caller.get("/readyz")
    told = reply.json()
    assert (reply.status, told["status"]) == (
        (503, "not_ready") if told["reasons"] else (200, "ready")
    )
    return list(told["reasons"])


async def eventually_for(caller: Caller, *codes: str) -> None:
    await eventually(
        lambda: reasons(caller), within=5, what=str(codes), good=lambda seen: seen == [*codes]
    )


async def test_a_full_server_is_not_ready_and_refuses_in_each_form(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, max_interviews=1) as server,
        calling(server.url) as first,
        calling(server.url) as second,
    ):
        await eventually_for(second)
        await first.open()
        await first.connect()
        assert await reasons(second) == ["AT_CAPACITY"]
        offer = await second.offer()
        flat = await second.post("/api/sdp-exchange", json={"sdpOffer": offer})
        assert (flat.status, flat.json()["code"]) == (503, "AT_CAPACITY")
        assert int(flat.headers["retry-after"]) > 0
        own = await second.post(
            "/v1/realtime/calls", data=offer, headers={"Content-Type": "application/sdp"}
        )
        assert (own.status, own.json()["error"]["code"]) == (503, "rate_limit_exceeded")
        assert int(own.headers["retry-after"]) > 0
        await first.send({"type": "end_session"})
        await first.message("session_ended")
        assert await reasons(second) == []


async def test_a_hundred_offers_to_a_full_server_are_refused_and_its_interview_goes_on(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, max_interviews=1) as server,
        calling(server.url) as first,
        calling(server.url) as crowd,
    ):
        await first.open()
        await first.connect()
        body = {"sdpOffer": await crowd.offer()}
        replies = await asyncio.gather(
            *(crowd.post("/api/sdp-exchange", json=body) for _ in range(100))
        )
        assert {(one.status, one.json()["code"]) for one in replies} == {(503, "AT_CAPACITY")}
        assert all(int(one.headers["retry-after"]) > 0 for one in replies)
        assert server.interviews.running == 1
        await first.sound(5)
        await first.send({"type": "end_session"})
        assert (await first.message("session_ended"))["reason"] == "client_request"
        # And there is room again: nothing of them was kept.
        assert await reasons(crowd) == []


async def test_a_disk_without_room_lets_none_begin_and_disturbs_none_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.05)
    free = 10**12
    real = shutil.disk_usage

    def usage(folder: Path) -> object:
        return real(folder)._replace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    async with (
        serving(tmp_path, min_free_mb=100) as server,
        calling(server.url) as first,
        calling(server.url) as second,
    ):
        await eventually_for(second)
        await first.open()
        await first.connect()
        free = 99_999_999
        await eventually_for(second, "DISK_FULL")
        refused = await second.post("/api/sdp-exchange", json={"sdpOffer": await second.offer()})
        assert (refused.status, refused.json()["code"]) == (503, "DISK_FULL")
        assert int(refused.headers["retry-after"]) > 0
        # Whoever is in may come back, and is still recorded.
        await first.drop()
        await first.phase("detached")
        await first.connect()
        free = 100_000_000
        await eventually_for(second)
        await second.connect_by_http()
        await first.send({"type": "end_session"})
        await first.message("session_ended")
    assert (server.interviews._around.data_dir / "interviews" / first.session_id).is_dir()


async def test_a_folder_that_takes_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.05)

    def refuse(folder: Path) -> None:
        raise OSError(30, "Read-only file system")

    async with serving(tmp_path, min_free_mb=1) as server, calling(server.url) as caller:
        await eventually_for(caller)
        monkeypatch.setattr(room, "probe", refuse)
        await eventually_for(caller, "DISK_UNUSABLE")
        monkeypatch.undo()


async def test_a_database_that_is_away_is_asked_once_for_all_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def away(self: Database, patience: float | None = None) -> None:
        nonlocal asked
        asked += 1
        raise StateUnavailable

    async with serving(tmp_path) as server, calling(server.url) as caller:
        await eventually_for(caller)
        monkeypatch.setattr(Database, "ping", away)
        await eventually_for(caller, "STATE_UNAVAILABLE")
        for _ in range(20):
            await reasons(caller)
        assert asked <= 2
        monkeypatch.undo()
        await eventually_for(caller)


async def test_what_is_not_recovered_yet_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await eventually_for(caller)
        server.state.recovered.clear()
        assert await reasons(caller) == ["RECOVERING"]
