"""Every phase against everything that can happen: moved, ignored or refused."""

from __future__ import annotations

import itertools

import pytest

from interview_peer.core.lifecycle import (
    FAILURES,
    OVER,
    Happening,
    Lifecycle,
    Phase,
    Reason,
    UnexpectedHappening,
)

REFUSED = "refused"
IGNORED = "ignored"

# One line a phase, written down a second time on purpose: the code's table must agree with it.
EXPECTED: dict[Phase, dict[Happening, Phase | str]] = {
    Phase.CREATED: {
        Happening.CONSENT_ASKED: Phase.CONSENT,
        Happening.OFFER_TAKEN: Phase.CONNECTING,
        Happening.END_REQUESTED: Phase.ENDING,
    },
    # No offer is taken here: nothing can be negotiated, let alone recorded.
    Phase.CONSENT: {
        Happening.CONSENT_GIVEN: Phase.CREATED,
        Happening.END_REQUESTED: Phase.ENDING,
    },
    Phase.CONNECTING: {
        Happening.NEGOTIATION_FAILED: Phase.CREATED,
        Happening.CONNECTED: Phase.LIVE,
        Happening.CONNECT_TIMED_OUT: Phase.ENDING,
        Happening.BROWSER_LOST: Phase.ENDING,
        Happening.MODEL_LOST: Phase.ENDING,
        Happening.END_REQUESTED: Phase.ENDING,
    },
    Phase.LIVE: {
        Happening.BROWSER_LOST: Phase.DETACHED,
        Happening.MODEL_LOST: Phase.ENDING,
        Happening.END_REQUESTED: Phase.ENDING,
    },
    Phase.DETACHED: {
        Happening.BROWSER_BACK: Phase.LIVE,
        Happening.MODEL_LOST: Phase.ENDING,
        Happening.END_REQUESTED: Phase.ENDING,
    },
    Phase.ENDING: {Happening.FILES_CLOSED: Phase.ENDED},
    Phase.ENDED: {},
    Phase.FAILED: {},
}
LATE = {
    Happening.BROWSER_LOST,
    Happening.MODEL_LOST,
    Happening.CONNECT_TIMED_OUT,
    Happening.END_REQUESTED,
    Happening.CONNECTED,
    Happening.NEGOTIATION_FAILED,
}


def expected(phase: Phase, happening: Happening) -> Phase | str:
    if phase in OVER and happening in LATE:
        return IGNORED
    return EXPECTED[phase].get(happening, REFUSED)


@pytest.mark.parametrize(
    ("phase", "happening"),
    list(itertools.product(Phase, Happening)),
    ids=lambda one: one.value,
)
def test_each_happening_moves_is_ignored_or_is_refused(phase: Phase, happening: Happening) -> None:
    life = Lifecycle(phase)
    outcome = expected(phase, happening)
    if outcome == REFUSED:
        with pytest.raises(UnexpectedHappening, match=happening.value):
            life.handle(happening, Reason.IDLE)
        assert life == Lifecycle(phase)
    elif outcome == IGNORED:
        assert life.handle(happening, Reason.IDLE) is False
        assert life == Lifecycle(phase)
    else:
        assert life.handle(happening, Reason.IDLE) is True
        assert life.phase is outcome


def test_every_phase_but_the_last_two_can_be_left() -> None:
    left = {phase for phase in Phase for happening in Happening if _moves(phase, happening)}
    assert left == set(Phase) - {Phase.ENDED, Phase.FAILED}


def _moves(phase: Phase, happening: Happening) -> bool:
    try:
        return Lifecycle(phase).handle(happening)
    except UnexpectedHappening:
        return False


@pytest.mark.parametrize("reason", Reason, ids=lambda one: one.value)
def test_a_failure_ends_failed_and_everything_else_ended(reason: Reason) -> None:
    life = Lifecycle(Phase.LIVE)
    life.handle(Happening.END_REQUESTED, reason)
    assert life.over
    life.handle(Happening.FILES_CLOSED)
    assert life.phase is (Phase.FAILED if reason in FAILURES else Phase.ENDED)
    assert life.reason is reason


def test_the_first_reason_to_end_stays() -> None:
    life = Lifecycle(Phase.LIVE)
    life.handle(Happening.END_REQUESTED, Reason.CLIENT_REQUEST)
    life.handle(Happening.MODEL_LOST, Reason.MODEL_LOST)
    life.handle(Happening.FILES_CLOSED, Reason.INTERNAL)
    assert (life.phase, life.reason) == (Phase.ENDED, Reason.CLIENT_REQUEST)


def test_an_ending_without_a_reason_counts_as_a_fault_of_ours() -> None:
    life = Lifecycle(Phase.LIVE)
    life.handle(Happening.MODEL_LOST)
    assert life.reason is Reason.INTERNAL


def test_a_lost_browser_that_comes_back_leaves_no_reason_behind() -> None:
    life = Lifecycle(Phase.LIVE)
    life.handle(Happening.BROWSER_LOST, Reason.BROWSER_GONE)
    life.handle(Happening.BROWSER_BACK)
    assert (life.phase, life.reason) == (Phase.LIVE, None)


def test_a_failed_negotiation_leaves_the_session_as_it_was() -> None:
    life = Lifecycle()
    life.handle(Happening.OFFER_TAKEN)
    life.handle(Happening.NEGOTIATION_FAILED, Reason.INTERNAL)
    assert life == Lifecycle()
