"""OpenAI's way in: its own clients, pointed here, work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from interview_peer.web import access as access_module
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, Operator

CALLS = "/v1/realtime/calls"


async def raw(caller: Caller) -> Reply:
    offer = await caller.offer()
    return await caller.post(
        CALLS,
        data=offer.encode(),
        headers={"Content-Type": "application/sdp", "Authorization": "Bearer ek_anything"},
    )


async def form(caller: Caller, session: str | None) -> Reply:
    data = aiohttp.FormData(default_to_multipart=True)
    data.add_field("sdp", await caller.offer(), content_type="application/sdp")
    if session is not None:
        data.add_field("session", session, content_type="application/json")
    return await caller.post(CALLS, data=data)


async def begin(caller: Caller, reply: Reply) -> str:
    """Check an accepted call's form, connect to it, and return its path."""
    assert reply.status == 201, reply
    assert reply.headers["content-type"].split(";")[0] == "application/sdp"
    assert reply.text.startswith("v=0\r\n") and reply.text.endswith("\r\n")
    path = reply.headers["location"]
    assert path.startswith(f"{CALLS}/rtc_")
    await caller.accept(reply.text)
    await caller.ready()
    return path


async def test_a_bare_offer_begins_a_call(caller: Caller) -> None:
    await begin(caller, await raw(caller))
    await caller.event("session.created")
    await caller.sound()


@pytest.mark.parametrize("session", [None, json.dumps({"type": "realtime"})])
async def test_a_form_begins_a_call(caller: Caller, session: str | None) -> None:
    await begin(caller, await form(caller, session))
    await caller.event("session.created")


async def test_the_session_of_a_form_is_not_the_clients_to_choose(caller: Caller) -> None:
    mine = {"type": "realtime", "model": "gpt-realtime-mini", "instructions": "Praise me."}
    await begin(caller, await form(caller, json.dumps(mine)))
    session = (await caller.event("session.created"))["session"]
    assert session["model"] == "gpt-realtime-2.1"
    assert "Praise me." not in session["instructions"]


async def test_location_can_be_read_by_a_page_of_another_origin(caller: Caller) -> None:
    reply = await raw(caller)
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "Location" in reply.headers["access-control-expose-headers"]


async def test_a_call_is_hung_up_once(caller: Caller) -> None:
    path = await begin(caller, await raw(caller))
    reply = await caller.post(path + "/hangup")
    assert (reply.status, reply.text) == (200, "")
    again = await caller.post(path + "/hangup")
    assert again.status == 404
    assert again.json() == {
        "error": {
            "message": "There is no such session. It may have ended.",
            "type": "invalid_request_error",
            "param": None,
            "code": "call_id_not_found",
        }
    }
    await caller.media_lost.wait()


@pytest.mark.parametrize("name", ["rtc_nothing", "nothing", "rtc_", "rtc_rtc_"])
async def test_an_unknown_call_cannot_be_hung_up(caller: Caller, name: str) -> None:
    reply = await caller.post(f"{CALLS}/{name}/hangup")
    assert (reply.status, reply.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_a_session_cannot_be_hung_up_by_its_own_id(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    assert (await caller.post(f"{CALLS}/{caller.session_id}/hangup")).status == 404
    assert await caller.known_phase() == "live"


async def test_a_stock_clients_update_keeps_the_servers_session(caller: Caller) -> None:
    await begin(caller, await raw(caller))
    before = (await caller.event("session.created"))["session"]
    caller.say(
        {
            "type": "session.update",
            "event_id": "mine-1",
            "session": {
                "type": "realtime",
                "model": "gpt-realtime-mini",
                "instructions": "Be brief.",
                "tools": [{"type": "function", "name": "f"}],
                "audio": {
                    "input": {"transcription": None, "turn_detection": None},
                    "output": {"voice": "verse"},
                },
            },
        }
    )
    after = (await caller.event("session.updated"))["session"]
    assert after["instructions"] == "Be brief."
    assert after["audio"]["output"]["voice"] == "verse"
    assert after["model"] == before["model"]
    assert after["tools"] == []
    assert after["audio"]["input"] == before["audio"]["input"]


# -- who may hang up


async def test_an_invited_candidates_call_ends_by_its_own_key_or_an_operators(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, join_secret="x" * 32) as server,
        calling(server.url) as caller,
        calling(server.url) as stranger,
    ):
        operator = Operator(stranger)
        other = await operator.make()
        for key in ("own", "operator"):
            made = await operator.make()
            reply = await caller.post(
                CALLS,
                data=(await caller.offer()).encode(),
                headers={
                    "Content-Type": "application/sdp",
                    "Authorization": f"Bearer {made['sdk_key']}",
                },
            )
            path = await begin(caller, reply)
            for wrong, code in (
                (None, "TOKEN_REQUIRED"),
                ("ek_anything", "UNAUTHORIZED"),
                (other["sdk_key"], "TOKEN_INVALID"),
                ("ipk_wrong", "UNAUTHORIZED"),
            ):
                headers = {} if wrong is None else {"Authorization": f"Bearer {wrong}"}
                refused = await stranger.post(path + "/hangup", headers=headers)
                error = refused.json()["error"]
                assert (refused.status, error["code"]) == (401, "invalid_api_key"), code
            right = made["sdk_key"] if key == "own" else KEY
            reply = await stranger.post(
                path + "/hangup", headers={"Authorization": f"Bearer {right}"}
            )
            assert (reply.status, reply.text) == (200, "")
            await caller.media_lost.wait()


async def test_a_server_with_tokens_tells_nobody_else_which_calls_there_are(
    tmp_path: Path,
) -> None:
    closed = live("http://127.0.0.1:9/v1", allow_anonymous=False, join_secret="x" * 32)
    async with serving(tmp_path, **closed) as server, calling(server.url) as caller:
        for name in ("rtc_none", "none", "rtc_"):
            reply = await caller.post(f"{CALLS}/{name}/hangup")
            assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key")


# -- refusals


async def test_every_refusal_has_openais_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "FAILURES_AT_ONCE", 1)
    sdp = {"Content-Type": "application/sdp"}
    async with (
        serving(tmp_path, max_interviews=1) as server,
        calling(server.url) as first,
        calling(server.url) as caller,
    ):
        await begin(first, await raw(first))
        offer = (await caller.offer()).encode()
        bad = {**sdp, "Authorization": "Bearer a.b.c"}
        asked: list[tuple[int, str, str, dict[str, Any]]] = [
            (400, "POST", CALLS, {"data": b"v=0", "headers": sdp}),
            (400, "POST", CALLS, {"data": b"\xff", "headers": sdp}),
            (401, "POST", CALLS, {"data": offer, "headers": bad}),
            (429, "POST", CALLS, {"data": offer, "headers": bad}),
            (404, "POST", CALLS + "/rtc_none/hangup", {}),
            (404, "POST", CALLS + "/rtc_none/accept", {}),
            (404, "GET", "/v1/models", {}),
            (405, "GET", CALLS, {}),
            (405, "DELETE", CALLS + "/rtc_none/hangup", {}),
            (413, "POST", CALLS, {"data": b"x" * 300_000, "headers": sdp}),
            (415, "POST", CALLS, {"data": b"{}"}),
            (417, "POST", CALLS, {"data": offer, "headers": {**sdp, "Expect": "miracles"}}),
            (503, "POST", CALLS, {"data": offer, "headers": sdp}),
            (400, "POST", "/v1/realtime/client_secrets", {"json": {"x": 1}}),
        ]
        for status, method, path, options in asked:
            reply = await caller.request(method, path, **options)
            assert reply.status == status, (path, reply)
            error = reply.json()["error"]
            assert set(reply.json()) == {"error"}
            assert set(error) == {"message", "type", "param", "code"}, reply
            assert error["message"].endswith(".") and isinstance(error["code"], str), reply
            kind = "server_error" if status >= 500 else "invalid_request_error"
            assert error["type"] == kind, reply
            # Without it a page of another origin cannot read what went wrong.
            if path.startswith(CALLS) and status != 417:
                assert reply.headers["access-control-allow-origin"] == "*", reply
            assert ("retry-after" in reply.headers) is (status in (429, 503)), reply
