"""What it means when the voice service is gone: expired, closed or lost."""

from __future__ import annotations

import pytest

from interview_peer.core import realtime
from interview_peer.core.lifecycle import Reason
from interview_peer.core.model_session import MARGIN_SECONDS, ModelSession
from interview_peer.core.realtime import model_event

WALL = 1_795_000_000.0
"""When the sessions begin, in Unix seconds; the monotonic clock says 50 then."""


def session(expires_at: int | None, kind: str = "session.created") -> ModelSession:
    known = ModelSession()
    event = model_event({"type": kind, "session": {"id": "s", "expires_at": expires_at}})
    known.heard(event, 50.0, WALL)
    return known


@pytest.mark.parametrize(("in_order", "reason"), [(True, "model_closed"), (False, "model_lost")])
def test_before_its_end_a_session_that_goes_was_closed_or_lost(in_order: bool, reason: str) -> None:
    known = session(int(WALL) + 3600)
    for now in (50.0, 3000.0, 3650.0 - MARGIN_SECONDS - 1):
        assert known.reason(now, in_order=in_order) is Reason(reason)


@pytest.mark.parametrize("kind", ["session.created", "session.updated"])
@pytest.mark.parametrize("in_order", [True, False])
def test_at_its_end_a_session_expired_however_it_goes(kind: str, in_order: bool) -> None:
    known = session(int(WALL) + 3600, kind)
    assert known.ends_at == 3650.0
    for now in (3650.0 - MARGIN_SECONDS, 3650.0, 9000.0):
        assert known.reason(now, in_order=in_order) is Reason.MODEL_EXPIRED


def test_a_session_that_was_said_to_have_expired_has_whatever_the_clock_says() -> None:
    known = session(int(WALL) + 3600)
    known.heard(realtime.ModelError("session_expired", "Over.", None, None), 60.0, WALL + 10)
    assert known.expired
    assert known.reason(60.0, in_order=True) is Reason.MODEL_EXPIRED


@pytest.mark.parametrize("expires_at", [None, 0, int(WALL) - 5])
def test_an_end_that_makes_no_sense_is_not_known(expires_at: int | None) -> None:
    known = session(expires_at)
    assert known.ends_at is None
    assert known.reason(1e9, in_order=True) is Reason.MODEL_CLOSED


def test_other_errors_and_events_say_nothing_of_an_end() -> None:
    known = session(int(WALL) + 3600)
    known.heard(realtime.ModelError("rate_limit_exceeded", "", None, None), 60.0, WALL)
    known.heard(model_event({"type": "session.updated", "session": {"id": "s"}}), 60.0, WALL)
    assert (known.ends_at, known.expired) == (3650.0, False)
