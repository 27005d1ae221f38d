"""Interviews end politely at their limits, and say why when the voice service goes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Reason
from interview_peer.media.leg import Leg
from interview_peer.session.interview import Interview
from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, serving
from tests.support.waiting import eventually

from .voice_service import KEY, voice_service


@pytest.fixture
async def interview(local: Server, caller: Caller) -> Interview:
    """A live interview; ``caller`` is its candidate."""
    await caller.open()
    await caller.connect()
    await caller.event("session.created")
    return local.interviews.find(caller.session_id)


def after(interview: Interview, seconds: float) -> float:
    """When (monotonic) the interview will have lasted so long."""
    return time.monotonic() - interview.seconds + seconds


def model_leg(interview: Interview) -> Leg:
    (leg,) = [leg for leg in interview.legs if leg.name == "model"]
    return leg


def tell(interview: Interview, event: Json) -> None:
    """Have the voice service say something."""
    interview.channel_message(model_leg(interview), json.dumps({"event_id": "event_x", **event}))


def telling_end(interview: Interview, seconds: float) -> Json:
    session = {"type": "realtime", "expires_at": round(time.time() + seconds)}
    return {"type": "session.updated", "session": session}


async def check_over(caller: Caller, folder: Path, phase: str, reason: str) -> None:
    """The end is told everywhere, and the files are finished."""
    assert (await caller.phase("ending"))["reason"] == reason
    assert (await caller.phase(phase))["reason"] == reason
    assert (await caller.message("session_ended"))["reason"] == reason
    path = folder / "interviews" / caller.session_id / "manifest.json"

    async def finished() -> bool:
        return await asyncio.to_thread(path.exists)

    await eventually(finished, within=20, what="the manifest", good=bool)
    manifest = json.loads(await asyncio.to_thread(path.read_text))
    assert (manifest["phase"], manifest["reason"]) == (phase, reason)


async def test_at_the_end_of_its_time_page_and_model_are_warned_and_goodbye_is_said(
    interview: Interview, local: Server, caller: Caller, tmp_path: Path
) -> None:
    interview.max_seconds = 100.0
    local.interviews.review(interview, after(interview, 79))
    local.interviews.review(interview, after(interview, 85))
    warning = await caller.message("warning")
    assert warning == {
        "type": "warning",
        "sessionId": interview.id,
        "reason": "time_limit",
        "seconds": 15,
    }

    async def told() -> int:
        return interview.control.counters["instructed"]

    assert await eventually(told, within=5, what="the model told", good=bool) == 1
    local.interviews.review(interview, after(interview, 98))
    assert interview.reason is None
    await check_over(caller, tmp_path, "ended", "time_limit")
    assert interview.control.counters["instructed"] == 2
    assert [one["type"] for one in caller.messages.items].count("warning") == 1
    assert "error" not in [one["type"] for one in caller.messages.items]


async def test_when_its_tokens_are_used_an_interview_is_warned_and_ends_politely(
    interview: Interview, local: Server, caller: Caller, tmp_path: Path
) -> None:
    done = await caller.event("response.done")
    used = done["response"]["usage"]["total_tokens"]

    def allow(tokens: int) -> None:
        interview.limits.max_tokens = tokens
        local.interviews.review(interview, time.monotonic())

    allow(used * 2)
    allow(round(used / 0.95))
    warning = await caller.message("warning")
    assert warning == {"type": "warning", "sessionId": interview.id, "reason": "usage_limit"}
    allow(used)
    assert interview.reason is None
    # Goodbye is being said; let it be a short one.
    interview.end_politely_soon(Reason.OPERATOR_REQUEST, 0.5)
    await check_over(caller, tmp_path, "ended", "usage_limit")


async def test_an_interview_that_is_over_its_time_ends_without_goodbye(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    interview.limits.max_seconds = 3540.0
    interview.max_seconds = 3600.0
    interview.keep_limits(after(interview, 3541))
    await check_over(caller, tmp_path, "ended", "time_limit")


async def test_a_goodbye_that_is_being_said_already_keeps_its_reason(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    interview.end_politely_soon(Reason.OPERATOR_REQUEST, 30.0, instruction="Say goodbye.")
    interview.max_seconds = 100.0
    interview.keep_limits(after(interview, 85))
    interview.keep_limits(after(interview, 101))
    await check_over(caller, tmp_path, "ended", "operator_request")
    assert "warning" not in [one["type"] for one in caller.messages.items]


async def test_the_services_own_hour_is_kept_to_before_it_strikes(
    interview: Interview, caller: Caller
) -> None:
    tell(interview, telling_end(interview, 1800))
    interview.keep_limits(after(interview, 1700))
    warning = await caller.message("warning")
    assert warning["reason"] == "model_expired"
    assert 90 <= warning["seconds"] <= 100


async def test_a_session_that_is_told_to_have_expired_is_no_failure(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    error = {"type": "invalid_request_error", "code": "session_expired", "message": "Over."}
    tell(interview, {"type": "error", "error": error})
    await check_over(caller, tmp_path, "ended", "model_expired")
    # The browser was told by the service's own event; nothing else went wrong.
    assert (await caller.event("error"))["error"]["code"] == "session_expired"
    assert "error" not in [one["type"] for one in caller.messages.items]


@pytest.mark.parametrize("way", ["channel", "leg"])
async def test_a_service_that_goes_when_its_hour_strikes_has_expired(
    interview: Interview, caller: Caller, tmp_path: Path, way: str
) -> None:
    tell(interview, telling_end(interview, 3))
    if way == "channel":
        interview.channel_closed(model_leg(interview))
    else:
        interview.leg_lost(model_leg(interview), "silent")
    await check_over(caller, tmp_path, "ended", "model_expired")


@pytest.mark.parametrize("expiry", ["event", "silent"])
async def test_an_hour_that_strikes_in_a_simulated_call_ends_it_as_expired(
    tmp_path: Path, expiry: str
) -> None:
    async with (
        voice_service(session_seconds=2.0, expiry=expiry) as service,
        serving(tmp_path, **live(service.base_url, KEY)) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        await check_over(caller, tmp_path, "ended", "model_expired")


async def test_a_service_that_falls_silent_is_lost(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    interview.leg_lost(model_leg(interview), "silent")
    assert await caller.error() == "MODEL_LOST"
    await check_over(caller, tmp_path, "failed", "model_lost")


async def test_a_service_that_closes_the_call_is_told_as_that(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    interview.channel_closed(model_leg(interview))
    message = await caller.message("error")
    assert message["code"] == "MODEL_CLOSED" and "voice service ended" in message["message"]
    await check_over(caller, tmp_path, "failed", "model_closed")


async def test_a_service_that_goes_during_the_goodbye_spoils_no_end(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    interview.end_politely_soon(Reason.TIME_LIMIT, 30.0, instruction="Say goodbye.")
    interview.channel_closed(model_leg(interview))
    await check_over(caller, tmp_path, "ended", "time_limit")
