"""Who may wait without a token: so many of one address, and what counts as one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from interview_peer.app import Server
from interview_peer.errors import AtCapacity, TooManyConnections
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.types import Json
from interview_peer.web.waiting_room import WaitingRoom
from tests.support.inprocess import live, serving
from tests.support.waiting import eventually

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
FORWARDED = "X-Forwarded-For"


@contextlib.asynccontextmanager
async def closed(tmp_path: Path, **settings: Any) -> AsyncIterator[Server]:
    """A server that lets in nobody without a token."""
    simulator = await start_simulator(SimulatorSettings())
    asked = live(simulator.base_url, join_secret=JOIN_SECRET, **settings)
    try:
        async with serving(tmp_path, **{**asked, "allow_anonymous": False}) as server:
            yield server
    finally:
        await simulator.close()


class Crowd:
    """Sockets that show no token, each from an address of its own choosing."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self._server = server
        self._http = http
        self._waiting: list[aiohttp.ClientWebSocketResponse] = []

    async def come(self, said: str | None = None, header: str = FORWARDED) -> str | None:
        """One more; the code it is turned away with, None if it waits."""
        before = (await self.figures())["now"]
        url = self._server.url.replace("http", "ws", 1) + "/ws"
        headers = {} if said is None else {header: said}
        socket = await self._http.ws_connect(url, headers=headers)
        refused: list[Json] = []

        async def settled() -> bool:
            with contextlib.suppress(TimeoutError):
                refused.append(await socket.receive_json(timeout=0.02))
            return bool(refused) or (await self.figures())["now"] > before

        await eventually(settled, within=5, what="let in or turned away", good=bool)
        self._waiting.append(socket)
        return str(refused[0]["code"]) if refused else None

    async def leave(self) -> None:
        """All go."""
        for socket in self._waiting:
            await socket.close()
        self._waiting.clear()

        async def left() -> int:
            return int((await self.figures())["now"])

        await eventually(left, within=5, what="none", good=lambda now: now == 0)

    async def figures(self) -> Json:
        """What operators see."""
        async with self._http.get(f"{self._server.url}/healthz") as answer:
            told: Json = (await answer.json())["without_token"]
            return told


async def test_one_address_takes_only_its_own_places(tmp_path: Path) -> None:
    proxies: Json = {"trusted_proxies": ("127.0.0.0/8",), "waiting_per_address": 2}
    async with closed(tmp_path, **proxies) as server, aiohttp.ClientSession() as http:
        crowd = Crowd(server, http)
        codes = [await crowd.come("198.51.100.1") for _ in range(4)]
        assert codes == [None, None, "TOO_MANY_CONNECTIONS", "TOO_MANY_CONNECTIONS"]
        # What the caller itself put before the proxy's word changes nothing.
        assert await crowd.come("203.0.113.1, 198.51.100.1") == "TOO_MANY_CONNECTIONS"
        assert await crowd.come("198.51.100.2") is None
        # A household has a whole network of IPv6.
        assert [await crowd.come(f"2001:db8::{n}") for n in (1, 2)] == [None, None]
        assert await crowd.come("2001:db8::3") == "TOO_MANY_CONNECTIONS"
        assert await crowd.figures() == {"now": 5, "refused": 4}
        await crowd.leave()
        assert await crowd.come("198.51.100.1") is None


async def test_a_header_is_believed_of_nobody_unless_the_setting_names_him(tmp_path: Path) -> None:
    async with (
        closed(tmp_path, waiting_per_address=1, trusted_proxies=("10.0.0.0/8",)) as server,
        aiohttp.ClientSession() as http,
    ):
        crowd = Crowd(server, http)
        assert await crowd.come("198.51.100.1") is None
        assert await crowd.come("198.51.100.2") == "TOO_MANY_CONNECTIONS"


@pytest.mark.parametrize(("trusted", "told"), [("10.0.0.0/8", 1), ("127.0.0.0/8", 0)])
async def test_a_proxy_that_nobody_named_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trusted: str, told: int
) -> None:
    async with (
        closed(tmp_path, trusted_proxies=(trusted,)) as server,
        aiohttp.ClientSession() as http,
    ):
        for headers in ({}, {FORWARDED: "198.51.100.1"}, {FORWARDED: "198.51.100.2"}):
            async with http.get(f"{server.url}/health", headers=headers) as answer:
                assert answer.status == 200
    found = [one for one in caplog.records if "a proxy that is not trusted" in one.message]
    assert len(found) == told
    assert all(vars(one)["setting"] == "INTERVIEW_TRUSTED_PROXIES" for one in found)


async def test_the_header_is_the_one_that_the_setting_names(tmp_path: Path) -> None:
    settings: Json = {
        "waiting_per_address": 1,
        "trusted_proxies": ("127.0.0.0/8",),
        "proxy_header": "Fly-Client-IP",
    }
    async with closed(tmp_path, **settings) as server, aiohttp.ClientSession() as http:
        crowd = Crowd(server, http)
        assert await crowd.come("198.51.100.1", "Fly-Client-IP") is None
        assert await crowd.come("198.51.100.2", "Fly-Client-IP") is None
        assert await crowd.come("198.51.100.1", "Fly-Client-IP") == "TOO_MANY_CONNECTIONS"
        assert await crowd.come("198.51.100.3") is None
        assert await crowd.come("198.51.100.4") == "TOO_MANY_CONNECTIONS"


async def test_requests_are_counted_by_the_address_that_the_proxy_tells(tmp_path: Path) -> None:
    settings: Json = {"trusted_proxies": ("127.0.0.0/8",), "admin_key": "operators-key-1"}
    async with serving(tmp_path, **settings) as server, aiohttp.ClientSession() as http:

        async def ask(address: str) -> int:
            # A kept key is asked of the database; a wrong one counts against its address.
            headers = {"Authorization": "Bearer ipk_wrong", FORWARDED: address}
            async with http.get(f"{server.url}/api/interviews", headers=headers) as answer:
                return answer.status

        first = [await ask("198.51.100.1") for _ in range(15)]
        assert (first[0], first[-1]) == (401, 429)
        assert await ask("198.51.100.2") == 401


def test_all_together_have_a_bound_too() -> None:
    room = WaitingRoom(2, most=3)
    for who, address in enumerate(("192.0.2.1", "192.0.2.1", "192.0.2.2")):
        room.enter(who, address)
    with pytest.raises(TooManyConnections):
        room.enter(3, "192.0.2.1")
    with pytest.raises(AtCapacity):
        room.enter(4, "192.0.2.3")
    for who in (0, 0, 4):
        room.leave(who)
    room.enter(5, "192.0.2.3")
    assert (len(room), room.statistics()) == (3, {"now": 3, "refused": 2})
