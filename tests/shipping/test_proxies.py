"""The configurations of ``deploy/`` for proxies, in the programs that they are for."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from interview_peer.app import Server
from interview_peer.settings.limits import LimitSettings
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.web import http, passing
from tests.support.caller import Caller
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.ports import HOST, free_port
from tests.support.proxies import NAME, PROXIES, Before, Proxy
from tests.support.server import ROOT
from tests.support.waiting import eventually

CAREERS = "https://careers.example.org"
BROKEN_OFF = 502
"""What proxies say while nobody is behind them."""


@pytest.fixture(params=PROXIES)
def before(request: pytest.FixtureRequest) -> Before:
    """Puts the proxy that is being tested before a server."""
    return PROXIES[request.param]


@contextlib.asynccontextmanager
async def served(folder: Path, port: int = 0, **settings: Any) -> AsyncIterator[Server]:
    """A live server that lets in invited candidates alone and believes the proxy."""
    simulator = await start_simulator(SimulatorSettings())
    chosen = {
        **live(simulator.base_url),
        "allow_anonymous": False,
        "admin_key": KEY,
        "join_secret": "a-join-secret-of-more-than-32-characters",
        "trusted_proxies": (f"{HOST}/32",),
    }
    try:
        async with serving(folder / "data", **{**chosen, **settings}, port=port) as server:
            yield server
    finally:
        await simulator.close()


def place(server: Server) -> str:
    """Its address and port."""
    return server.url.partition("://")[2]


async def opens(caller: Caller, path: str = "/ws", **headers: str) -> int:
    """The status that a WebSocket is answered with."""
    url = caller.url.replace("http", "ws", 1) + path
    try:
        async with caller._http.ws_connect(url, headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status


async def test_interviews_are_held_followed_and_heard_through_it(
    tmp_path: Path, before: Before
) -> None:
    public = f"https://{NAME}"
    async with (
        served(tmp_path, public_url=public, allowed_origins=(CAREERS,)) as server,
        before(tmp_path / "proxy", place(server)) as proxy,
        proxy.calling("127.0.0.2") as caller,
        proxy.calling("127.0.0.3") as by_sdk,
    ):
        await _pages_and_origins(proxy, caller, public)
        operator = Operator(caller)
        made = await operator.make()
        assert made["join_url"].startswith(f"{public}/i/{made['id']}#t=")

        path = f"{PATH}/{made['id']}"
        key = {"Authorization": f"Bearer {KEY}"}
        async with caller._http.get(f"{proxy.url}{path}/events", headers=key) as stream:
            # It came though nothing has happened yet, and there is no end.
            assert await stream.content.readline() == b"retry: 2000\n"
            await caller.open_bare(f"/ws/{made['id']}")
            await caller.send({"type": "init", "token": made["join_token"]})
            await caller.message("session")
            await caller.connect()
            await caller.sound()
            async for line in stream.content:
                if line.startswith(b"event: "):
                    break
            assert line == b"event: snapshot\n"

        second = await operator.make()
        answer = await by_sdk.post(
            "/v1/realtime/calls",
            data=await by_sdk.offer(),
            headers={
                "Authorization": f"Bearer {second['sdk_key']}",
                "Content-Type": "application/sdp",
                "Origin": CAREERS,
            },
        )
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (201, CAREERS)
        assert answer.headers["location"] == f"/v1/realtime/calls/rtc_{second['id']}"
        await by_sdk.accept(answer.text)
        await by_sdk.ready()
        await by_sdk.sound()

        assert (await operator.ask("POST", f"{path}/end", json={})).status == 200
        await caller.socket_closed()
        await _heard(operator, path)


async def _pages_and_origins(proxy: Proxy, caller: Caller, public: str) -> None:
    for path in ("/", "/static/page.js"):
        page = await caller.get(path)
        assert (page.status, "strict-transport-security" in page.headers) == (200, True)
    assert await proxy.without_tls("/i/some") == (308, f"{public}/i/some")
    found = [
        await opens(caller, Origin=origin)
        for origin in (public, proxy.url, CAREERS, "https://evil.example.org", f"http://{NAME}")
    ]
    assert found == [101, 101, 101, 403, 403]


async def _heard(operator: Operator, path: str) -> None:
    async def state() -> str:
        return str((await operator.ask("GET", f"{path}/recording")).json()["state"])

    await eventually(state, within=20, what="a recording", good=lambda found: found == "ready")
    listed = (await operator.ask("GET", f"{path}/recording")).json()["files"]
    (file,) = (one for one in listed if one["name"] == "transcript.json")
    assert file["bytes"] > 0
    mixed, length = f"{path}/recording/mixed", _bytes(listed, "mixed.webm")
    client = operator._caller._http
    key = {"Authorization": f"Bearer {operator.key}"}
    url = operator._caller.url + mixed
    async with client.get(url, headers=key) as whole:
        sound = await whole.read()
        tag = whole.headers["ETag"]
    assert (whole.status, len(sound)) == (200, length)
    async with client.get(url, headers={**key, "Range": "bytes=100-299", "If-Range": tag}) as part:
        assert (part.status, await part.read()) == (206, sound[100:300])
        assert part.headers["Content-Range"] == f"bytes 100-299/{length}"
    async with client.get(url, headers={**key, "Range": f"bytes={length}-"}) as beyond:
        assert beyond.status == 416
    async with client.get(url, headers={**key, "If-None-Match": tag}) as known:
        assert known.status == 304


def _bytes(listed: list[dict[str, Any]], name: str) -> int:
    (found,) = (int(file["bytes"]) for file in listed if file["name"] == name)
    return found


async def test_callers_are_told_apart_whatever_they_say_of_themselves(
    tmp_path: Path, before: Before
) -> None:
    async with (
        served(tmp_path, sockets_per_minute=2) as server,
        before(tmp_path / "proxy", place(server)) as proxy,
    ):
        for address, said in (
            ("127.0.0.2", None),
            ("127.0.0.3", "198.51.100.{}"),
            # As if the proxy had been called by itself, or by another that is believed.
            ("127.0.0.4", f"203.0.113.{{}}, {HOST}"),
            ("::1", "2001:db8:{}::1"),
        ):
            async with proxy.calling(address) as caller:
                told = [{"X-Forwarded-For": said.format(n)} if said else {} for n in range(3)]
                assert [await opens(caller, **one) for one in told] == [101, 101, 429], address
        async with proxy.calling("127.0.0.5") as caller:
            # Without a public URL it is the proxy that tells of TLS, and `Host` of the origin.
            page = await caller.get("/")
            assert page.headers["strict-transport-security"].startswith("max-age=")
            assert await opens(caller, Origin=proxy.url) == 101
            assert await opens(caller, Origin=f"https://{NAME}") == 403


async def test_what_is_too_long_or_wrong_is_refused_with_the_servers_own_codes(
    tmp_path: Path, before: Before
) -> None:
    async with (
        served(tmp_path) as server,
        before(tmp_path / "proxy", place(server)) as proxy,
        proxy.calling("127.0.0.2") as caller,
    ):
        operator, json = Operator(caller), {"Content-Type": "application/json"}
        stranger = Operator(caller, key=None)
        sizes = [(2_000, "INVALID_JSON"), (263_000, "TOO_LARGE")]
        if before is PROXIES["nginx"]:
            # It reads the whole of it before; others may hang up on who sends so much in vain.
            sizes.append((4 << 20, "TOO_LARGE"))
        for count, code in sizes:
            # The second finds the connection to the server ended that the first had.
            for asker, expected in ((operator, code), (operator, code), (stranger, "UNAUTHORIZED")):
                body = io.BytesIO(b"x" * count)
                reply = await asker.ask("POST", PATH, data=body, headers=json)
                assert reply.json()["error"]["code"] == expected
        reply = await operator.ask("GET", f"{PATH}?candidate_reference=erika")
        assert reply.status == 200
        log = proxy.folder / "access.log"
        written = "\n".join(proxy.lines) + (log.read_text() if log.exists() else "")
        assert "erika" not in written


async def test_a_server_that_is_emptied_is_heard_to_the_end_and_found_again_at_once(
    tmp_path: Path, before: Before
) -> None:
    port = free_port()
    async with (
        before(tmp_path / "proxy", f"{HOST}:{port}") as proxy,
        proxy.calling("127.0.0.2") as caller,
    ):
        operator = Operator(caller)
        assert (await caller.get("/health")).status == BROKEN_OFF
        async with served(tmp_path, port):
            await caller.open_bare()
            assert (await operator.ask("POST", "/api/drain", json={})).status == 202
            assert await caller.error() == "DRAINING"
            await caller.socket_closed()
            assert (await caller.get("/health")).status == 200
        assert (await caller.get("/health")).status == BROKEN_OFF
        async with served(tmp_path, port):
            # Whatever connection the proxy had kept is not what this is sent over.
            assert (await operator.ask("POST", PATH, json={})).status == 201


def test_nginx_waits_longer_than_the_server_and_lets_through_what_it_takes() -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text()

    def said(name: str, unit: str) -> int:
        (found,) = re.findall(rf"^ *{name} (\d+){unit};", text, re.MULTILINE)
        return int(found)

    # Without it nginx speaks HTTP/1.0, which keeps no connections.
    assert "proxy_http_version 1.1;" in text
    assert said("proxy_read_timeout", "s") > passing.END_SECONDS > passing.PING_SECONDS
    # nginx gives kept connections up after 60 s, unless told otherwise; Caddy after 120 s.
    assert http.IDLE_SECONDS > 120 and "keepalive_timeout" not in text
    (most,) = (
        rule.le
        for rule in LimitSettings.model_fields["max_body_kb"].metadata
        if hasattr(rule, "le")
    )
    assert said("client_max_body_size", "m") * 1024 == most
    assert said("client_body_buffer_size", "k") == LimitSettings.model_fields["max_body_kb"].default


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_the_documents_have_these_files_copied(name: str) -> None:
    document = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert f"cp deploy/{name} /etc/" in document
