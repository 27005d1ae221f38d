"""Whom an interview tells what happens in it, and from when on the database is told."""

from __future__ import annotations

from typing import cast

import pytest

from interview_peer import logs
from interview_peer.core.lifecycle import Happening, Phase, Reason
from interview_peer.core.limits import Warned
from interview_peer.session.feed import Feed
from interview_peer.session.finished import Files
from interview_peer.session.recording import Recording
from interview_peer.session.reporter import Reporter
from interview_peer.state import happenings
from interview_peer.types import Json, SessionId


class FakeRecording:
    """Keeps what is journalled."""

    def __init__(self) -> None:
        self.began = False
        self.wall_started_at = None
        self.journalled: list[Json] = []

    def journal(self, direction: None, at: float, event: Json) -> None:
        self.journalled.append(event)


class Around:
    """A reporter, and everybody whom it tells."""

    def __init__(self, *, invited: bool = False) -> None:
        self.page: list[Json] = []
        self.chronicle: list[happenings.Happening] = []
        self.recording = FakeRecording()
        self.feed = Feed()
        self.reporter = Reporter(
            SessionId("one"),
            cast(Recording, self.recording),
            self.feed,
            self.chronicle.append,
            lambda: invited,
            logs.get(__name__),
        )
        self.reporter.observe(self.page.append)

    def told(self) -> list[type[happenings.Happening]]:
        """What the chronicle was told."""
        return [type(one) for one in self.chronicle]


def live(around: Around) -> None:
    around.reporter.phase(Happening.CONNECTED, Phase.CONNECTING, Phase.LIVE, None, 1.0)


def test_a_phase_is_told_to_everybody() -> None:
    around = Around(invited=True)
    live(around)
    assert around.page == [{"type": "state", "phase": "live", "sessionId": "one"}]
    assert around.recording.journalled == [
        {"type": "interview.phase", "before": "connecting", "phase": "live"}
    ]
    assert around.told() == [happenings.Started]
    assert around.feed.last == 1


def test_the_way_through_an_interview_is_chronicled() -> None:
    around = Around(invited=True)
    live(around)
    phase = around.reporter.phase
    phase(Happening.BROWSER_LOST, Phase.LIVE, Phase.DETACHED, None, 2.0)
    phase(Happening.BROWSER_BACK, Phase.DETACHED, Phase.LIVE, None, 3.0)
    phase(Happening.END_REQUESTED, Phase.LIVE, Phase.ENDING, Reason.IDLE, 4.0)
    assert around.told() == [
        happenings.Started,
        happenings.Detached,
        happenings.Returned,
        happenings.Ending,
    ]


@pytest.mark.parametrize(("invited", "began"), [(False, False), (True, False), (False, True)])
def test_an_open_interview_is_in_the_database_from_its_recording_on(
    invited: bool, began: bool
) -> None:
    around = Around(invited=invited)
    around.recording.began = began
    live(around)
    assert bool(around.chronicle) is (invited or began)
    around.reporter.finished(5.0, Phase.ENDED, Reason.IDLE, {}, [], Files())
    assert (happenings.Finished in around.told()) is (invited or began)
    # The page is told in any case.
    assert around.page[-1] == {"type": "session_ended", "sessionId": "one", "reason": "idle"}


def test_a_failure_is_told_before_its_phase_in_a_sentence() -> None:
    around = Around()
    around.reporter.phase(Happening.MODEL_LOST, Phase.LIVE, Phase.ENDING, Reason.MODEL_LOST, 1.0)
    error, state = around.page
    assert (error["type"], error["code"]) == ("error", "MODEL_LOST")
    assert error["message"].endswith(".")
    assert (state["phase"], state["reason"]) == ("ending", "model_lost")


def test_a_warning_tells_what_is_left_where_it_is_time() -> None:
    around = Around()
    around.reporter.warning(Warned(Reason.TIME_LIMIT, 15))
    around.reporter.warning(Warned(Reason.USAGE_LIMIT, None))
    told = {"type": "warning", "sessionId": "one"}
    assert around.page == [
        told | {"reason": "time_limit", "seconds": 15},
        told | {"reason": "usage_limit"},
    ]


def test_who_stops_observing_and_who_observed_to_the_end_hears_no_more() -> None:
    around = Around()
    gone: list[Json] = []
    around.reporter.observe(gone.append)
    around.reporter.unobserve(gone.append)
    around.reporter.unobserve(gone.append)
    watched = [around.reporter.watched]
    around.reporter.finished(5.0, Phase.ENDED, None, {}, [], Files())
    live(around)
    watched.append(around.reporter.watched)
    assert watched == [True, False]
    assert gone == []
    assert [one["type"] for one in around.page] == ["session_ended"]
    assert around.feed.is_over
