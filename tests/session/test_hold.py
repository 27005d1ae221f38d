"""How long an interview is held for a browser that is gone, whoever comes meanwhile."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from interview_peer.media.leg import Leg
from interview_peer.session.deadline import Deadline
from interview_peer.session.hold import Hold

FIRST, SECOND = cast(Leg, "first"), cast(Leg, "second")
LONG = 3600.0


class Told:
    """What a hold told, in order; ``news`` is set by each."""

    def __init__(self) -> None:
        self.all: list[object] = []
        self.news = asyncio.Event()

    def run_out(self) -> None:
        self.late("run out")

    def late(self, what: object) -> None:
        self.all.append(what)
        self.news.set()

    async def wait(self) -> None:
        async with asyncio.timeout(10):
            await self.news.wait()
        self.news.clear()


def hold(told: Told, seconds: float, connect_seconds: float = LONG) -> Hold:
    return Hold(seconds, connect_seconds, told.run_out, told.late)


def waiting() -> int:
    """Timers that the loop would still call."""
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not one.cancelled() for one in timers)


@pytest.fixture
def told() -> Told:
    return Told()


async def test_it_runs_out_once_when_nobody_comes(told: Told) -> None:
    hold(told, 0.01).begin()
    assert told.all == []
    await told.wait()
    assert told.all == ["run out"]
    assert waiting() == 0


async def test_a_browser_on_its_way_is_waited_for_beyond_the_hold(told: Told) -> None:
    one = hold(told, 0.0)
    one.expect(FIRST)
    one.begin()
    assert (told.all, one.coming) == ([], FIRST)
    one.arrived()
    assert (told.all, one.coming) == ([], None)
    assert waiting() == 0


async def test_returns_that_fail_do_not_prolong_it(told: Told) -> None:
    one = hold(told, 0.0)
    one.expect(FIRST)
    one.begin()
    one.missed()
    assert told.all == ["run out"]


async def test_one_that_is_late_is_told_and_what_is_left_is_waited_for(told: Told) -> None:
    one = hold(told, LONG, connect_seconds=0.0)
    one.begin()
    one.expect(FIRST)
    await told.wait()
    assert (told.all, one.coming) == ([FIRST], None)
    # Of the hold itself.
    assert waiting() == 1
    one.stop()
    assert waiting() == 0


async def test_a_second_try_has_its_own_time(told: Told) -> None:
    one = hold(told, LONG, connect_seconds=LONG)
    one.begin()
    one.expect(FIRST)
    one.expect(SECOND)
    assert one.coming is SECOND
    assert waiting() == 1


async def test_without_a_loss_nothing_runs_out(told: Told) -> None:
    one = hold(told, 0.0)
    one.expect(FIRST)
    one.missed()
    assert told.all == [] and waiting() == 0


async def test_after_the_end_nobody_is_waited_for(told: Told) -> None:
    one = hold(told, 0.0)
    one.expect(FIRST)
    one.begin()
    one.stop()
    # Its leg is still to be closed by whoever ends the interview.
    assert (one.coming, waiting()) == (FIRST, 0)
    one.missed()
    assert told.all == [] and waiting() == 0


async def test_a_deadline_is_one_moment_at_a_time(told: Told) -> None:
    deadline = Deadline()
    deadline.set_in(LONG, lambda: told.late("first"))
    deadline.set_in(0.0, lambda: told.late(deadline.is_set))
    assert (deadline.is_set, waiting()) == (True, 1)
    await told.wait()
    # Once it has passed another may be set.
    assert told.all == [False] and waiting() == 0
    deadline.set_in(LONG, lambda: told.late("third"))
    deadline.cancel()
    deadline.cancel()
    assert (deadline.is_set, waiting()) == (False, 0)
