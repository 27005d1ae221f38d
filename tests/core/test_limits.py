"""When an interview is warned, says goodbye and ends, by its time and by its tokens."""

from __future__ import annotations

from typing import Any

import pytest

from interview_peer.core.lifecycle import Reason
from interview_peer.core.limits import (
    GOODBYE_SECONDS,
    GOODBYES,
    MODEL_MARGIN_SECONDS,
    WARNING_SECONDS,
    Limits,
    Over,
    Parting,
    Step,
    Warned,
    tokens_of,
)

TIME, MODEL, USAGE = Reason.TIME_LIMIT, Reason.MODEL_EXPIRED, Reason.USAGE_LIMIT

NOTHING: dict[str, Any] = {"longest": None, "model_left": None, "used": 0, "most": None}


def steps(longest: float, until: float) -> list[tuple[int, Step]]:
    """What happens in each second of an interview that has so much time."""
    limits, found = Limits(), []
    for second in range(round(until) + 1):
        step = limits.look(second, **{**NOTHING, "longest": longest})
        if step is not None:
            found.append((second, step))
    return found


def test_an_interview_without_limits_is_left_alone() -> None:
    limits = Limits()
    for lasted in (0.0, 10.0, 1e6):
        assert limits.look(lasted, **{**NOTHING, "used": 10**9}) is None


def test_an_hour_is_warned_once_parts_once_and_is_over() -> None:
    end = 3540
    assert steps(end, end) == [
        (end - round(WARNING_SECONDS), Warned(TIME, 120)),
        (end - round(GOODBYE_SECONDS), Parting(TIME, GOODBYE_SECONDS)),
        (end, Over(TIME)),
    ]


def test_a_short_interview_gets_shares_of_its_time() -> None:
    assert steps(10, 10) == [(8, Warned(TIME, 2)), (9, Parting(TIME, 1.0)), (10, Over(TIME))]


def test_what_was_missed_is_not_made_up_for() -> None:
    limits = Limits()
    assert limits.look(3539, **{**NOTHING, "longest": 3540}) == Parting(TIME, 1)
    assert limits.look(3539.5, **{**NOTHING, "longest": 3540}) is None
    assert limits.look(9000, **{**NOTHING, "longest": 3540}) == Over(TIME)


@pytest.mark.parametrize(
    ("longest", "expected"),
    [(None, MODEL), (3540.0, TIME), (3590.0, TIME), (3599.0, MODEL), (86400.0, MODEL)],
)
def test_the_services_own_end_counts_where_it_comes_first(
    longest: float | None, expected: Reason
) -> None:
    limits = Limits()
    asked = {**NOTHING, "longest": longest, "model_left": 3600 - 3585.0}
    step = limits.look(3585, **asked)
    assert isinstance(step, Parting | Over) and step.reason is expected
    if expected is MODEL:
        assert step == Parting(MODEL, 15.0 - MODEL_MARGIN_SECONDS)


def test_tokens_warn_at_nine_tenths_and_part_at_all_of_them() -> None:
    limits = Limits()
    told = [
        limits.look(5, **{**NOTHING, "used": used, "most": 1000}) for used in range(0, 1100, 50)
    ]
    assert [step for step in told if step is not None] == [
        Warned(USAGE, None),
        Parting(USAGE, GOODBYE_SECONDS),
    ]
    assert told.index(Warned(USAGE, None)) == 900 // 50
    # Nothing more is to be said while goodbye is; but its time may run out meanwhile.
    assert limits.look(3430, longest=3540, model_left=None, used=1000, most=1000) is None
    assert limits.look(3540, longest=3540, model_left=None, used=1000, most=1000) == Over(TIME)


def test_near_both_ends_each_is_told_once() -> None:
    limits, asked = Limits(), {**NOTHING, "longest": 3540, "used": 950, "most": 1000}
    told = [limits.look(3430 + n, **asked) for n in range(4)]
    assert told == [Warned(TIME, 110), Warned(USAGE, None), None, None]


@pytest.mark.parametrize(
    ("warned", "words"),
    [
        (Warned(TIME, 120), "About 2 minutes of this interview remain"),
        (Warned(TIME, 45), "About 45 seconds of this interview remain"),
        (Warned(USAGE, None), "Little of this interview remain"),
    ],
)
def test_the_model_is_told_how_much_is_left(warned: Warned, words: str) -> None:
    assert warned.instruction.startswith(words)


def test_every_reason_to_part_has_its_words() -> None:
    assert set(GOODBYES) == {TIME, MODEL, USAGE}
    assert all("goodbye" in words for words in GOODBYES.values())


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({}, 0),
        ({"total_tokens": 275}, 275),
        ({"total_tokens": "x"}, 0),
        ({"total_tokens": True}, 0),
    ],
)
def test_tokens_are_those_that_the_service_counted(usage: Any, tokens: int) -> None:
    assert tokens_of(usage) == tokens
