"""What a caller is told when the voice service refuses or fails, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from interview_peer.app import Server
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, nothing_left, serving, traces
from tests.support.waiting import eventually
from tests.web.offers import GOOD

from .voice_service import CALLS, KEY, Answer, VoiceService, voice_service

PLANTED = "planted-in-the-upstream-body"
CONNECT_SECONDS = 2.0


@pytest.fixture
async def service() -> AsyncIterator[VoiceService]:
    async with voice_service() as service:
        yield service


@pytest.fixture
async def local(service: VoiceService, tmp_path: Path) -> AsyncIterator[Server]:
    """A live server that was used once already, so that whatever comes once is there."""
    settings = live(service.base_url, KEY, connect_seconds=CONNECT_SECONDS)
    async with serving(tmp_path, **settings) as server:
        async with calling(server.url) as first:
            await first.open()
            await first.connect()
            await first.send({"type": "end_session"})
            await first.message("session_ended")
        yield server


@pytest.fixture
async def caller(local: Server) -> AsyncIterator[Caller]:
    async with calling(local.url) as caller:
        yield caller


# -- what a voice service can do wrong


def refusing(status: int, code: str = "some_code") -> Answer:
    """Refuse with a body that holds what must not be passed on."""

    async def answer(request: web.Request) -> web.StreamResponse:
        error = {"message": f"{PLANTED} {KEY}", "type": "x", "param": PLANTED, "code": code}
        # As the real one does for some errors: JSON that is labelled as plain text.
        return web.Response(
            status=status,
            text=json.dumps({"error": error}),
            content_type="text/plain",
            headers={"x-request-id": KEY, "Location": f"/{PLANTED}"},
        )

    return answer


def accepting(body: str | bytes, status: int = 201) -> Answer:
    """Accept with this body."""

    async def answer(request: web.Request) -> web.StreamResponse:
        data = body if isinstance(body, bytes) else body.encode()
        headers = {"Location": f"{CALLS}/rtc_x1"}
        return web.Response(
            status=status, body=data, content_type="application/sdp", headers=headers
        )

    return answer


async def never(request: web.Request) -> web.StreamResponse:
    """Take the request and say nothing."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def trickling(request: web.Request) -> web.StreamResponse:
    """Begin an answer and never end it."""
    response = web.StreamResponse(status=201)
    await response.prepare(request)
    await response.write(b"v=0\r\n")
    return await never(request)


async def hanging_up(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Close the connection in the middle of the answer."""
    response = web.StreamResponse(status=201, headers={"Content-Length": "9999"})
    await response.prepare(request)
    await response.write(b"v=0\r\n")
    assert request.transport is not None
    request.transport.close()
    return response


NOWHERE = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
ANSWERED = GOOD.replace("a=setup:actpass", "a=setup:active") + NOWHERE
"""An answer that can be used, but leads nowhere."""

FAILURES: dict[str, tuple[Answer, str, int]] = {
    "401": (refusing(401, "invalid_api_key"), "UPSTREAM_AUTH_FAILED", 502),
    "403": (refusing(403), "UPSTREAM_AUTH_FAILED", 502),
    "400": (refusing(400), "UPSTREAM_REFUSED", 502),
    "404": (refusing(404, "model_not_found"), "UPSTREAM_REFUSED", 502),
    "a redirect": (refusing(307), "UPSTREAM_REFUSED", 502),
    "429": (refusing(429, "insufficient_quota"), "UPSTREAM_RATE_LIMITED", 503),
    "500": (refusing(500), "UPSTREAM_ERROR", 502),
    "503": (refusing(503), "UPSTREAM_ERROR", 502),
    "garbage": (accepting(f"<html>{PLANTED} {KEY}"), "UPSTREAM_INVALID_ANSWER", 502),
    "nothing": (accepting(b""), "UPSTREAM_INVALID_ANSWER", 502),
    "no text": (accepting(b"\xff\x00" * 50), "UPSTREAM_INVALID_ANSWER", 502),
    "an error called success": (
        accepting(json.dumps({"error": PLANTED}), 200),
        "UPSTREAM_INVALID_ANSWER",
        502,
    ),
    "a huge body": (accepting(b"v=0\r\n" * 2_000_000), "UPSTREAM_INVALID_ANSWER", 502),
    "an answer without a fingerprint": (
        accepting(ANSWERED.replace("a=fingerprint", "a=x")),
        "UPSTREAM_INVALID_ANSWER",
        502,
    ),
    "an answer that only looks like one": (
        accepting(ANSWERED.replace("m=audio 9", f"m=audio {PLANTED}")),
        "UPSTREAM_INVALID_ANSWER",
        502,
    ),
    "an answer without candidates": (
        accepting(ANSWERED.replace(NOWHERE, "")),
        "UPSTREAM_INVALID_ANSWER",
        502,
    ),
    "silence": (never, "UPSTREAM_TIMEOUT", 503),
    "an endless answer": (trickling, "UPSTREAM_TIMEOUT", 503),
    "a closed connection": (hanging_up, "UPSTREAM_UNREACHABLE", 503),
    "half an answer": (half, "UPSTREAM_UNREACHABLE", 503),
}
OPENAI_CODES = {
    "UPSTREAM_AUTH_FAILED": "upstream_auth_failed",
    "UPSTREAM_REFUSED": "upstream_refused",
    "UPSTREAM_RATE_LIMITED": "rate_limit_exceeded",
    "UPSTREAM_ERROR": "upstream_error",
    "UPSTREAM_INVALID_ANSWER": "upstream_invalid_answer",
    "UPSTREAM_TIMEOUT": "upstream_timeout",
    "UPSTREAM_UNREACHABLE": "upstream_unreachable",
}


def check_clean(caller: Caller) -> None:
    for text in caller.heard:
        assert PLANTED not in text and KEY not in text, text


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_is_the_reply_at_every_door_and_leaves_nothing(
    service: VoiceService, local: Server, caller: Caller, name: str
) -> None:
    service.answer, code, status = FAILURES[name]
    await caller.open()
    sessions, before = len(local.interviews), traces()

    async def by_socket() -> None:
        await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
        error = await caller.message("error")
        assert (error["code"], error["reason"]) == ("SDP_EXCHANGE_FAILED", code)
        assert error["message"].endswith(".")
        # The session is as it was.
        assert await caller.known_phase() == "created"
        await caller.drop()

    async def by_exchange() -> None:
        async with calling(local.url) as other:
            reply = await other.post("/api/sdp-exchange", json={"sdpOffer": GOOD})
            assert (reply.status, reply.json()["code"]) == (status, code)
            assert set(reply.json()) == {"error", "message", "code"}
            check_clean(other)

    async def by_call() -> None:
        async with calling(local.url) as other:
            reply = await other.post(
                CALLS, data=GOOD.encode(), headers={"Content-Type": "application/sdp"}
            )
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (status, OPENAI_CODES[code])
            assert error["type"] == "server_error"
            check_clean(other)

    await asyncio.gather(by_socket(), by_exchange(), by_call())
    check_clean(caller)
    await nothing_left(before)
    assert len(local.interviews) == sessions
    assert not any(PLANTED in path for path in service.asked)

    # Offering again once the service has recovered leads to an interview.
    service.answer = None
    await caller.connect()
    await caller.event("session.created")


async def test_an_accepted_call_of_no_use_is_hung_up(service: VoiceService, caller: Caller) -> None:
    service.answer = accepting("<html>")
    reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": GOOD})
    assert reply.json()["code"] == "UPSTREAM_INVALID_ANSWER"
    assert service.asked[-1] == f"{CALLS}/rtc_x1/hangup"


async def test_a_service_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path, **live("http://127.0.0.1:9/v1")) as server:
        async with calling(server.url) as caller:
            reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": GOOD})
        assert (reply.status, reply.json()["code"]) == (503, "UPSTREAM_UNREACHABLE")


async def test_the_reply_waits_for_the_service(service: VoiceService, caller: Caller) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    answer = accepting(ANSWERED)

    async def slowly(request: web.Request) -> web.StreamResponse:
        asked.set()
        await go_on.wait()
        return await answer(request)

    service.answer = slowly
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": GOOD})
    await caller.phase("connecting")
    await asked.wait()
    # Whatever the server had to say by now was said before this.
    await caller.send({"type": "ice_candidate"})
    await caller.message("ice_status")
    assert "sdp_answer" not in [one["type"] for one in caller.messages.items]
    go_on.set()
    await caller.message("sdp_answer")


@pytest.mark.parametrize("end", ["disconnect", "leave"])
async def test_going_away_while_the_service_thinks_leaves_nothing(
    service: VoiceService, local: Server, caller: Caller, end: str
) -> None:
    before = traces()
    service.answer = never
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": GOOD})
    await caller.phase("connecting")
    if end == "disconnect":
        await caller.send({"type": "disconnect"})
        assert (await caller.message("session_ended"))["reason"] == "client_request"
        await caller.socket_closed()
    await caller.leave()
    await nothing_left(before)


async def test_stopping_while_the_service_thinks_is_prompt(
    service: VoiceService, tmp_path: Path
) -> None:
    service.answer = never
    async with serving(tmp_path, **live(service.base_url, KEY)) as server:
        caller_stack = calling(server.url)
        caller = await caller_stack.__aenter__()
        await caller.open()
        await caller.send({"type": "sdp_offer", "offer": GOOD})
        await caller.phase("connecting")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    assert (await caller.message("session_ended"))["reason"] == "server_shutdown"
    await caller_stack.__aexit__(None, None, None)


# -- after the reply: legs that never connect, or that go


async def check_connect_timeout(caller: Caller, reason: str = "connect_timeout") -> None:
    assert await caller.error() == reason.upper()
    assert (await caller.phase("failed"))["reason"] == reason
    assert (await caller.message("session_ended"))["reason"] == reason
    assert await caller.known_phase() == "failed"
    reply = await caller.get(f"/api/sessions/{caller.session_id}")
    assert reply.json()["reason"] == reason


async def test_a_browser_that_never_connects_fails_in_time(
    service: VoiceService, caller: Caller
) -> None:
    before = traces()
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": GOOD})
    await caller.message("sdp_answer")
    assert service.simulator.calls == 1
    await check_connect_timeout(caller)
    await caller.leave()
    await nothing_left(before)
    assert service.simulator.calls == 0
    assert service.asked[-1].endswith("/hangup")


async def test_a_service_whose_answer_leads_nowhere_fails_in_time(
    service: VoiceService, caller: Caller
) -> None:
    before = traces()
    service.answer = accepting(ANSWERED)
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await check_connect_timeout(caller, "model_unreachable")
    await caller.close()
    await nothing_left(before)
    assert service.asked[-1] == f"{CALLS}/rtc_x1/hangup"


async def test_a_failed_session_says_so_to_the_next_offer(caller: Caller) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": GOOD})
    await check_connect_timeout(caller)
    await caller.leave()
    await caller.open(f"/ws/{caller.session_id}")
    await caller.send({"type": "sdp_offer", "offer": GOOD})
    assert await caller.refusal() == "SESSION_ENDED"


async def test_a_service_that_ends_the_call_ends_the_interview(
    service: VoiceService, local: Server, caller: Caller
) -> None:
    before = traces()
    await caller.open()
    await caller.connect()
    await caller.sound()
    call = local.interviews.find(caller.session_id).call_id
    async with calling(service.simulator.base_url.removesuffix("/v1")) as other:
        await other.post(f"{CALLS}/{call}/hangup", headers={"Authorization": f"Bearer {KEY}"})
    assert await caller.error() == "MODEL_CLOSED"
    assert (await caller.phase("failed"))["reason"] == "model_closed"
    await caller.message("session_ended")
    await caller.media_lost.wait()
    await caller.close()
    await nothing_left(before)


async def test_a_call_that_is_accepted_after_the_end_is_hung_up(
    service: VoiceService, caller: Caller
) -> None:
    go_on = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        service.answer = None
        return await service.handle(request)

    service.answer = slowly
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.phase("connecting")
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")
    go_on.set()

    async def hung_up() -> bool:
        return service.asked[-1].endswith("/hangup") and service.simulator.calls == 0

    await eventually(hung_up, within=5, what="the late call hung up")


async def test_an_end_hangs_up_at_the_service(service: VoiceService, caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    assert service.simulator.calls == 1
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")
    assert service.asked[-1].endswith("/hangup")

    async def calls() -> int:
        return service.simulator.calls

    await eventually(calls, within=2, what="no call", good=lambda count: count == 0)
