"""How an interview outlives connections, and when it does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Phase
from interview_peer.core.replay import rebuild
from interview_peer.errors import InterviewNotLive, InvalidSessionId, SessionNotFound
from interview_peer.session.registry import Interviews
from interview_peer.types import Json, SessionId
from tests.support.caller import Caller, Inbox, calling
from tests.support.inprocess import nothing_left, serving, traces
from tests.support.waiting import eventually
from tests.web.offers import GOOD


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that waits a second for everything that may come back."""
    async with serving(
        tmp_path, hold_seconds=1, idle_seconds=1, record_keep_seconds=0.5, connect_seconds=3
    ) as server:
        yield server


async def gone(interviews: Interviews, session_id: str, within: float = 5) -> None:
    """Wait until nobody knows this session any more."""

    async def look() -> bool:
        try:
            interviews.find(session_id)
        except SessionNotFound:
            return True
        return False

    await eventually(look, within=within, what="the session forgotten")


# -- the browser goes


async def test_a_closed_page_is_waited_for_and_then_the_interview_ends(tmp_path: Path) -> None:
    async with serving(tmp_path, hold_seconds=1) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.drop()
        await caller.phase("detached")
        assert (await caller.phase("ending"))["reason"] == "browser_gone"
        await caller.phase("ended")
        assert (await caller.message("session_ended"))["reason"] == "browser_gone"
    folder = tmp_path / "interviews" / caller.session_id
    assert await asyncio.to_thread((folder / "transcript.json").is_file)


async def test_a_page_that_vanishes_without_a_word_is_noticed_within_five_seconds(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, hold_seconds=1) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound()
        began = time.monotonic()
        caller.vanish()
        await caller.phase("detached", within=5)
        assert time.monotonic() - began > 3
        await caller.message("session_ended", within=5)


async def test_without_a_hold_a_closed_page_ends_the_interview_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, hold_seconds=0) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.drop()
        assert (await caller.message("session_ended", within=5))["reason"] == "browser_gone"


async def test_a_reply_under_way_is_stopped_when_the_page_goes(
    local: Server, caller: Caller
) -> None:
    await caller.open()
    await caller.connect()
    await caller.sound(5)
    await caller.drop()
    await caller.phase("detached")
    await caller.connect()
    # Returned in the middle of what would have been the greeting: nothing of it is sent any more.
    caller.audio = Inbox("the audio track, again")
    caller.say({"type": "conversation.item.create", "item": _said("back")})
    done = await caller.event("conversation.item.done")
    assert done["item"]["role"] == "user"
    assert not [packet for packet in caller.audio.items if len(packet) > 8]


async def test_a_reply_that_begins_while_the_page_is_gone_is_stopped_and_unheard(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    await caller.open()
    await caller.connect()
    await caller.event("output_audio_buffer.started")
    interview = local.interviews.find(caller.session_id)
    words = asyncio.create_task(interview.control.say("Nobody hears this."))
    await caller.drop()
    await caller.phase("detached")
    with pytest.raises(InterviewNotLive):
        await words
    # As speech detection does it: nobody asked the control.
    interview._relay.to_model({"type": "response.create"})

    async def stopped() -> bool:
        return _count(await asyncio.to_thread(_events, tmp_path, caller), "response.done") == 2

    await eventually(stopped, within=5, what="the second reply stopped")
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    lines = await asyncio.to_thread(_events, tmp_path, caller)
    done = [one["event"]["response"] for one in lines if one["event"]["type"] == "response.done"]
    assert done[1]["status"] == "cancelled"
    live = interview.transcript_so_far()
    assert live is not None
    greeting, *others = [one for one in live["turns"] if one["speaker"] == "interviewer"]
    assert greeting["status"] == "interrupted"
    (away,) = [at["t"] for at in lines if at["event"].get("phase") == "detached"]
    assert greeting["heard_ms"] <= away * 1000 - greeting["start_ms"]
    assert [(one["status"], one["heard_ms"]) for one in others] in ([], [("interrupted", 0)])
    again = rebuild(json.dumps(line) for line in lines)
    began = datetime.fromisoformat(lines[0]["at"])
    assert again.document(SessionId(caller.session_id), began, final=False) == live


def _events(folder: Path, caller: Caller) -> list[Json]:
    text = (folder / "interviews" / caller.session_id / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _count(lines: list[Json], kind: str) -> int:
    return sum(line["event"]["type"] == kind for line in lines)


def _said(text: str) -> Json:
    return {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }


async def test_a_return_is_one_interview_with_one_recording(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    await caller.open()
    await caller.connect()
    call = local.interviews.find(caller.session_id).call_id
    await caller.drop()
    await caller.phase("detached")
    await caller.leave()
    # A page that was loaded anew: another socket, the same id.
    async with calling(local.url) as again:
        await again.open()
        await again.send({"type": "init", "sessionId": caller.session_id})
        again.session_id = caller.session_id
        await again.phase("detached")
        await again.connect()
        assert local.interviews.find(caller.session_id).call_id == call
        await again.send({"type": "end_session"})
        await again.message("session_ended")
    folders = await asyncio.to_thread(lambda: list((tmp_path / "interviews").iterdir()))
    assert [folder.name for folder in folders] == [caller.session_id]


async def test_a_return_that_never_connects_gives_up_after_another_hold(tmp_path: Path) -> None:
    # Not idle meanwhile: nothing is said to somebody who is away.
    async with (
        serving(tmp_path, hold_seconds=1, connect_seconds=2) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        before = traces()
        await caller.drop()
        await caller.phase("detached")
        await caller.send({"type": "sdp_offer", "offer": GOOD})
        await caller.message("sdp_answer")
        assert (await caller.message("session_ended"))["reason"] == "browser_gone"
        await caller.leave()
        await nothing_left(before)


async def test_a_bad_offer_of_a_returning_page_does_not_end_the_hold(local: Server) -> None:
    async with calling(local.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.drop()
        await caller.phase("detached")
        await caller.send({"type": "sdp_offer", "offer": "nonsense"})
        assert await caller.refusal() == "INVALID_SDP"
        assert await caller.known_phase() == "detached"
        await caller.connect()


async def test_an_offer_takes_over_from_a_leg_that_still_stands(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    old_leg, old_port = caller._leg, caller._port
    # So that the next offer does not close it first.
    caller._leg = caller._port = None
    sdp = await caller.offer()
    await caller.send({"type": "sdp_offer", "offer": sdp})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.ready()
    await caller.sound()
    assert await caller.known_phase() == "live"
    assert "detached" not in [one.get("phase") for one in caller.messages.items]
    assert old_leg is not None and old_port is not None

    async def lost() -> bool:
        return old_leg.lost

    await eventually(lost, within=5, what="the old leg closed")
    await old_leg.close()
    old_port.close()


# -- time


async def test_a_greeted_session_that_does_nothing_ends_as_idle(hasty: Server) -> None:
    async with calling(hasty.url) as caller:
        await caller.open()
        assert (await caller.message("session_ended"))["reason"] == "idle"
        await caller.socket_closed()
        assert await caller.known_phase() == "ended"


async def test_messages_keep_a_session_from_being_idle(hasty: Server) -> None:
    async with calling(hasty.url) as caller:
        await caller.open()
        began = time.monotonic()

        async def say() -> float:
            await caller.send({"type": "ice_candidate"})
            await caller.message("ice_status")
            return time.monotonic() - began

        await eventually(say, within=10, what="three seconds", good=lambda passed: passed > 3)
        assert await caller.known_phase() == "created"


async def test_media_keep_an_interview_from_being_idle(hasty: Server) -> None:
    async with calling(hasty.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(100)
        began = time.monotonic()

        async def passed() -> float:
            return time.monotonic() - began

        # Three rounds of looking for idle interviews.
        await eventually(passed, within=10, what="three seconds", good=lambda one: one > 3)
        assert await caller.known_phase() == "live"


async def test_an_ended_session_can_be_asked_about_for_a_while(hasty: Server) -> None:
    async with calling(hasty.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.send({"type": "disconnect"})
        await caller.message("session_ended")
        assert await caller.known_phase() == "ended"
        await gone(hasty.interviews, caller.session_id)
        assert await caller.known_phase() == "unknown"
        # Its files stay, and with them its id.
        held = caller.session_id
        await caller.leave()
        await caller.open()
        await caller.send({"type": "init", "sessionId": held})
        assert await caller.error() == "SESSION_ID_TAKEN"


async def test_a_session_that_was_greeted_and_left_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, record_keep_seconds=0.5) as server:
        async with calling(server.url) as caller:
            await caller.open()
            await caller.leave()
            assert await caller.known_phase() == "created"
            await gone(server.interviews, caller.session_id)
        assert len(server.interviews) == 0


async def test_the_clocks_are_read_as_the_rules_say(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_seconds=300, record_keep_seconds=60) as server:
        interviews = server.interviews
        now = time.monotonic()
        used = interviews.create("used")
        interviews.review(used, now + 299)
        assert used.phase is Phase.CREATED
        interviews.review(used, now + 301)
        await used.finished.wait()
        assert used.ended_at is not None
        interviews.review(used, used.ended_at + 59)
        assert interviews.find("used") is used
        interviews.review(used, used.ended_at + 60)
        with pytest.raises(SessionNotFound):
            interviews.find("used")


async def test_leaving_starts_the_clock_of_an_unused_session_and_coming_back_stops_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, record_keep_seconds=60) as server:
        interviews = server.interviews
        now = time.monotonic()
        unused = interviews.create("unused")
        interviews.review(unused, now)
        interviews.review(unused, now + 50)
        heard: list[Json] = []
        unused.observe(heard.append)
        interviews.review(unused, now + 100)
        unused.unobserve(heard.append)
        assert interviews.find("unused") is unused


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "x" * 65, "\u00e9", "a b"])
async def test_a_session_is_only_made_under_a_name(local: Server, name: str) -> None:
    if name:
        with pytest.raises(InvalidSessionId):
            local.interviews.create(name)
    else:
        assert local.interviews.create(name).id
