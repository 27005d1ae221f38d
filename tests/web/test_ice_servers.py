"""``GET /api/ice-servers``: what browsers get, who gets it, and where credentials never appear."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest

from interview_peer.doctor import relays
from interview_peer.doctor.relays import Tried
from interview_peer.settings import Settings
from interview_peer.web import ice
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, serving
from tests.support.server import running_server

SECRET = "shared-with-the-relay"
RELAYS = "turn:turn.example.org:3478,turns:turn.example.org:443?transport=tcp"
RELAY: dict[str, Any] = {"ice_servers": RELAYS, "turn_secret": SECRET, "turn_ttl_seconds": 600}


def signature(username: str) -> str:
    digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


async def test_without_relays_the_list_is_empty(caller: Caller) -> None:
    reply = await caller.get(ice.PATH)
    assert reply.status == 200
    assert reply.json() == {"iceServers": [], "iceTransportPolicy": "all", "ttl": 14400}


async def test_each_request_gets_a_credential_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, **RELAY) as server, calling(server.url) as caller:
        before = int(time.time())
        replies = [await caller.get(ice.PATH) for _ in range(3)]
        after = int(time.time())
    labels = set()
    for reply in replies:
        body = reply.json()
        assert (body["ttl"], body["iceTransportPolicy"]) == (600, "all")
        assert [server["urls"] for server in body["iceServers"]] == [
            [url] for url in RELAYS.split(",")
        ]
        (username,) = {server["username"] for server in body["iceServers"]}
        assert {server["credential"] for server in body["iceServers"]} == {signature(username)}
        expiry, _, label = username.partition(":")
        assert before + 600 <= int(expiry) <= after + 600
        assert len(label) >= 12
        labels.add(label)
        assert SECRET not in reply.text
        assert reply.headers["cache-control"] == "no-store"
    assert len(labels) == 3


async def test_other_origins_may_ask_as_they_may_join(caller: Caller) -> None:
    reply = await caller.get(ice.PATH, headers={"Origin": "https://elsewhere.example.org"})
    assert reply.headers["access-control-allow-origin"] == "*"
    preflight = await caller.request("OPTIONS", ice.PATH)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live start that does not try its relays: these have names and are nowhere."""

    async def require(settings: Settings) -> list[Tried]:
        return []

    monkeypatch.setattr(relays, "require", require)


@pytest.mark.usefixtures("untried")
async def test_a_live_server_with_an_operators_key_tells_whoever_it_lets_join(
    tmp_path: Path,
) -> None:
    settings = live("http://127.0.0.1:9/v1", admin_key="operator", **RELAY)
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        await caller.open()
        assert (await caller.get(ice.PATH)).status == 200


@pytest.mark.usefixtures("untried")
async def test_a_caller_that_may_not_join_is_told_nothing(
    tmp_path: Path,
) -> None:
    settings = live("http://127.0.0.1:9/v1", **{**RELAY, "join_secret": "s" * 32})
    settings["allow_anonymous"] = False
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        reply = await caller.get(ice.PATH)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "TOKEN_REQUIRED")
    assert "turn.example.org" not in reply.text


async def test_asking_too_often_is_refused_and_costs_others_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, **RELAY) as server, calling(server.url) as caller:
        replies = [await caller.get(ice.PATH) for _ in range(ice.BURST)]
        while replies[-1].status == 200:
            assert len(replies) < 500, "no limit was met"
            replies.append(await caller.get(ice.PATH))
        refused = replies[-1]
        assert {reply.status for reply in replies[: ice.BURST]} == {200}
        assert (refused.status, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert refused.headers["access-control-allow-origin"] == "*"
        assert "turn.example.org" not in refused.text
        # Signalling is none of its business.
        await caller.open()


async def test_credentials_are_in_no_message_no_log_and_no_file(tmp_path: Path) -> None:
    async with (
        running_server(
            tmp_path,
            LOG_LEVEL="debug",
            INTERVIEW_ICE_SERVERS=RELAYS,
            INTERVIEW_TURN_SECRET=SECRET,
        ) as server,
        calling(server.url) as caller,
    ):
        told = (await caller.get(ice.PATH)).json()["iceServers"][0]
        caller.heard.clear()
        await caller.open()
        await caller.connect()
        await caller.event("session.created")
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        files = await asyncio.to_thread(texts, server.folder(caller.session_id))
    assert any("session_ended" in text for text in caller.heard)
    assert any(ice.PATH in line for line in server.lines), "the log does not hold requests"
    assert files
    said = "\n".join([*caller.heard, *server.lines, *files])
    label = told["username"].partition(":")[2]
    for private in (SECRET, label, told["credential"], "turn.example.org"):
        assert private not in said


def texts(folder: Path) -> list[str]:
    return [file.read_text() for file in folder.iterdir() if "json" in file.suffix]
