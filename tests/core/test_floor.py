"""Who has the floor, through every order in which a reply can come and go."""

from __future__ import annotations

import pytest

from interview_peer.core.floor import MAX_REPLIES, Ending, Floor
from interview_peer.core.realtime import (
    InputCommitted,
    ModelEvent,
    PlayoutCleared,
    PlayoutStarted,
    PlayoutStopped,
    ReplyDone,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTextDone,
    SpeechStarted,
    SpeechStopped,
)
from interview_peer.types import ItemId, ResponseId

R, A, U = ResponseId("resp_1"), ItemId("item_a"), ItemId("item_u")

BEGAN = ReplyStarted(R)
WORDS = ReplyTextDelta(R, A, "Hello")
WRITTEN = ReplyTextDone(R, A, "Hello", True)
STARTED, STOPPED, CLEARED = PlayoutStarted(R), PlayoutStopped(R), PlayoutCleared(R)


def done(status: str | None = "completed", audio_ms: int | None = None) -> ReplyDone:
    return ReplyDone(R, status, None, audio_ms=audio_ms)


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        ([WORDS, STARTED, done(), STOPPED], Ending.PLAYED),
        ([WORDS, STARTED, STOPPED, done()], Ending.PLAYED),
        # Its sound waited for that of the reply before it.
        ([WORDS, done(), STARTED, STOPPED], Ending.PLAYED),
        ([done(audio_ms=500), STARTED, STOPPED], Ending.PLAYED),
        ([WORDS, STARTED, done(), CLEARED], Ending.CUT),
        ([WORDS, STARTED, CLEARED, done("cancelled")], Ending.CUT),
        ([WORDS, STARTED, done("cancelled"), CLEARED], Ending.CUT),
        ([WORDS, done("cancelled")], Ending.CUT),
        ([done("cancelled")], Ending.CUT),
        # What was generated before the cancelling is played, unless it is cleared as well.
        ([WORDS, STARTED, done("cancelled"), STOPPED], Ending.PLAYED),
        ([WRITTEN, done()], Ending.SILENT),
        ([done()], Ending.SILENT),
        ([done(None)], Ending.SILENT),
        ([done("failed")], Ending.FAILED),
        ([WORDS, done("failed")], Ending.FAILED),
    ],
)
def test_a_reply_ends_once_and_as_it_did(events: list[ModelEvent], ending: Ending) -> None:
    floor = Floor()
    assert floor.feed(BEGAN) is None
    for event in events[:-1]:
        assert floor.feed(event) is None
        assert not floor.free
    assert floor.feed(events[-1]) is ending
    assert floor.free
    for event in (done(), STOPPED, CLEARED):
        assert floor.feed(event) is None


def test_a_reply_is_made_first_and_heard_for_longer() -> None:
    floor = Floor()
    floor.feed(BEGAN)
    assert (floor.generating, floor.sounding, floor.spoke(R)) == (True, False, False)
    floor.feed(WORDS)
    floor.feed(STARTED)
    assert (floor.generating, floor.sounding, floor.spoke(R)) == (True, True, True)
    floor.feed(done())
    assert (floor.generating, floor.sounding) == (False, True)
    floor.feed(STOPPED)
    assert (floor.generating, floor.sounding, floor.spoke(R)) == (False, False, False)


def test_the_candidate_has_the_floor_until_falling_silent() -> None:
    floor = Floor()
    seen = []
    for event in (
        SpeechStarted(U, 0),
        SpeechStopped(U, 100),
        SpeechStarted(U, 200),
        # Push-to-talk ends a turn without a stop.
        InputCommitted(U, None),
    ):
        floor.feed(event)
        seen.append(floor.free)
    assert seen == [False, True, False, True]


def test_a_reply_aside_does_not_keep_another_from_being_asked_for() -> None:
    floor = Floor()
    floor.feed(ReplyStarted(R, True))
    assert (floor.free, floor.generating) == (True, False)
    floor.feed(WORDS)
    assert (floor.generating, floor.sounding) == (False, True)


def test_what_nobody_began_changes_nothing() -> None:
    floor = Floor()
    for event in (WORDS, STARTED, done(), STOPPED, CLEARED):
        assert floor.feed(event) is None
        assert floor.free


def test_replies_without_an_end_are_forgotten_in_time() -> None:
    floor = Floor()
    for number in range(MAX_REPLIES * 3):
        response_id = ResponseId(f"resp_{number}")
        floor.feed(ReplyStarted(response_id))
        floor.feed(ReplyTextDelta(response_id, A, "Hello"))
    assert len(floor._replies) == MAX_REPLIES
    assert floor.spoke(ResponseId(f"resp_{MAX_REPLIES * 3 - 1}"))
