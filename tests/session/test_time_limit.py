"""An interview lasts no longer than whoever made it allowed."""

from __future__ import annotations

from interview_peer.app import Server
from interview_peer.core.lifecycle import Reason
from tests.support.caller import Caller


async def test_interview_ends_at_its_time_limit(local: Server, caller: Caller) -> None:
    await caller.open()
    interview = local.interviews.find(caller.session_id)
    interview.max_seconds = 0.5
    await caller.connect()
    message = await caller.message("session_ended")
    assert message["reason"] == "time_limit"
    assert interview.reason is Reason.TIME_LIMIT
    assert interview.seconds >= 0.5


async def test_time_limit_counts_from_the_first_answer(local: Server, caller: Caller) -> None:
    await caller.open()
    interview = local.interviews.find(caller.session_id)
    interview.max_seconds = 0.001
    local.interviews.review(interview, interview.last_activity + 1.0)
    assert not interview.finished.is_set()
    assert interview.reason is None
