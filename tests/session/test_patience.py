"""What the server waits for, for how long, and what it does not wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.core.sdp import check_offer
from interview_peer.errors import AtCapacity, SessionEnded
from interview_peer.media.leg import Leg
from interview_peer.storage.folder import InterviewFolder
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually
from tests.web.offers import GOOD


async def until(moment: float) -> None:
    """Wait until the clock (monotonic) has passed ``moment``."""

    async def passed() -> bool:
        return time.monotonic() > moment

    await eventually(passed, within=30, what="the time")


async def test_a_live_interview_in_which_nobody_says_anything_ends_as_idle(
    tmp_path: Path,
) -> None:
    # The browser's leg answers checks and the model's sends silence all the time: neither counts.
    async with serving(tmp_path, idle_seconds=6) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        assert caller._speaking is not None
        caller._speaking.cancel()
        assert (await caller.message("session_ended", within=30))["reason"] == "idle"


async def test_offers_that_never_connect_do_not_prolong_the_hold(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, hold_seconds=2, connect_seconds=1) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        await caller.drop()
        await caller.phase("detached")
        began = time.monotonic()
        interview = server.interviews.find(caller.session_id)
        while interview.phase is Phase.DETACHED:
            assert time.monotonic() - began < 20, "still held"
            if interview._negotiation is None and interview._hold.coming is None:
                await caller.send({"type": "sdp_offer", "offer": GOOD})
            await asyncio.sleep(0.02)
        assert interview.reason is Reason.BROWSER_GONE


async def test_a_return_under_way_when_the_hold_runs_out_is_waited_for(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, hold_seconds=0.5, connect_seconds=20) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        await caller.drop()
        await caller.phase("detached")
        gone = time.monotonic()
        await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
        answer = await caller.message("sdp_answer")
        await until(gone + 1.0)
        await caller.accept(answer["answer"]["sdp"])
        await caller.phase("live")


async def test_a_disk_that_hangs_keeps_no_interview_from_beginning(
    local: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    create = InterviewFolder.create

    def hanging(self: InterviewFolder) -> None:
        released.wait(30)
        create(self)

    monkeypatch.setattr(InterviewFolder, "create", hanging)
    try:
        await caller.open()
        await caller.connect()
        await caller.sound()
        assert await caller.known_phase() == "live"
    finally:
        released.set()
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")
    folder = local.interviews.find(caller.session_id)._recording.folder.path
    names = await asyncio.to_thread(lambda: {path.name for path in folder.iterdir()})
    assert {"candidate.ogg", "interviewer.ogg", "events.jsonl", "transcript.json"} <= names


async def test_a_leg_that_connects_while_the_interview_ends_takes_nothing_over(
    local: Server, caller: Caller
) -> None:
    await caller.open()
    await caller.connect()
    interview = local.interviews.find(caller.session_id)
    late = Leg("browser", local.browser_port, interview)
    interview._hold.expect(late)
    interview.end_soon(Reason.CLIENT_REQUEST)
    interview.leg_connected(late)
    await interview.finished.wait()
    assert interview._bridge.up._timer is None, "silence is still spoken to nobody"


async def test_an_end_in_the_same_moment_as_an_offer_is_no_fault(local: Server) -> None:
    interview = local.interviews.create()
    offered, _ = await asyncio.gather(
        interview.answer_offer(check_offer(GOOD)),
        interview.end(Reason.CLIENT_REQUEST),
        return_exceptions=True,
    )
    assert isinstance(offered, SessionEnded)
    assert interview.phase is Phase.ENDED


async def test_offers_in_the_same_moment_do_not_pass_the_limit(tmp_path: Path) -> None:
    async with serving(tmp_path, max_interviews=1) as server:
        made = [server.interviews.create() for _ in range(6)]
        answers = await asyncio.gather(
            *(server.interviews.answer_offer(one, check_offer(GOOD)) for one in made),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, str) for answer in answers) == 1
        assert sum(isinstance(answer, AtCapacity) for answer in answers) == 5
        assert server.interviews.running == 1
