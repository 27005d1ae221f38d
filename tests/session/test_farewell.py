"""An interview that ends politely: after the goodbye was heard, and never later than it may."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Reason
from interview_peer.session.interview import Interview
from interview_peer.types import Json
from tests.support.caller import Caller

WISH = "Say goodbye to the candidate now."


def journal(folder: Path, session_id: str) -> list[tuple[str | None, str, Json]]:
    """Direction, type and event of each line."""
    text = (folder / "interviews" / session_id / "events.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["direction"], line["event"]["type"], line["event"]) for line in lines]


@pytest.fixture
async def interview(local: Server, caller: Caller) -> Interview:
    """A live interview in which the greeting has begun."""
    await caller.open()
    await caller.connect()
    await caller.event("output_audio_buffer.started")
    return local.interviews.find(caller.session_id)


async def test_it_ends_when_the_goodbye_was_heard(
    interview: Interview, caller: Caller, tmp_path: Path
) -> None:
    ending = asyncio.create_task(
        interview.end_politely(Reason.TIME_LIMIT, instruction=WISH, seconds=30)
    )
    # The greeting is not to be waited for.
    caller.say({"type": "response.cancel"})
    caller.say({"type": "output_audio_buffer.clear"})
    await ending
    assert (await caller.message("session_ended"))["reason"] == "time_limit"
    lines = await asyncio.to_thread(journal, tmp_path, caller.session_id)
    order = [
        (direction, kind)
        for direction, kind, event in lines
        if kind in ("response.create", "response.created", "conversation.item.create")
        or kind in ("output_audio_buffer.cleared", "output_audio_buffer.stopped")
        or event.get("phase") == "ending"
    ]
    assert order == [
        ("to_browser", "response.created"),
        ("to_model", "conversation.item.create"),
        ("to_browser", "output_audio_buffer.cleared"),
        ("to_model", "response.create"),
        ("to_browser", "response.created"),
        ("to_browser", "output_audio_buffer.stopped"),
        (None, "interview.phase"),
    ]


async def test_it_ends_in_time_though_the_goodbye_is_still_heard(
    interview: Interview, caller: Caller
) -> None:
    began = time.monotonic()
    await interview.end_politely(Reason.SERVER_SHUTDOWN, instruction=WISH, seconds=0.6)
    assert 0.5 <= time.monotonic() - began < 3
    assert interview.reason is Reason.SERVER_SHUTDOWN
    assert interview.statistics()["control"]["goodbyes_cut"] == 1


async def test_a_second_wish_can_only_make_it_sooner(interview: Interview) -> None:
    began = time.monotonic()
    interview.end_politely_soon(Reason.TIME_LIMIT, 30, instruction=WISH)
    interview.end_politely_soon(Reason.SERVER_SHUTDOWN, 60, instruction=WISH)
    await interview.end_politely(Reason.SERVER_SHUTDOWN, instruction=WISH, seconds=0.3)
    assert time.monotonic() - began < 3
    assert interview.reason is Reason.TIME_LIMIT
    assert interview.statistics()["control"]["instructed"] == 1


async def test_it_ends_in_time_though_the_model_answers_nothing(
    interview: Interview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interview.control, "_send", lambda event: True)
    began = time.monotonic()
    await interview.end_politely(Reason.TIME_LIMIT, instruction=WISH, seconds=0.5)
    assert 0.4 <= time.monotonic() - began < 3
    assert interview.reason is Reason.TIME_LIMIT


async def test_a_goodbye_that_nobody_hears_is_not_said(
    interview: Interview, caller: Caller
) -> None:
    began = time.monotonic()
    ending = asyncio.create_task(
        interview.end_politely(Reason.TIME_LIMIT, instruction=WISH, seconds=30)
    )
    await caller.drop()
    await ending
    assert interview.reason is Reason.TIME_LIMIT
    assert time.monotonic() - began < 5


async def test_an_interview_without_anybody_in_it_ends_at_once(
    local: Server, caller: Caller
) -> None:
    await caller.open()
    interview = local.interviews.find(caller.session_id)
    await interview.end_politely(Reason.SERVER_SHUTDOWN, instruction=WISH, seconds=30)
    assert interview.reason is Reason.SERVER_SHUTDOWN
    # Once it is over, another wish changes nothing.
    await interview.end_politely(Reason.IDLE, instruction=WISH, seconds=30)
    assert interview.reason is Reason.SERVER_SHUTDOWN


async def test_an_end_at_once_does_not_wait_for_the_goodbye(interview: Interview) -> None:
    began = time.monotonic()
    interview.end_politely_soon(Reason.TIME_LIMIT, 30, instruction=WISH)
    await interview.end(Reason.CLIENT_REQUEST)
    assert interview.reason is Reason.CLIENT_REQUEST
    assert time.monotonic() - began < 5
