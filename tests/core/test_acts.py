"""Which readings are one."""

from __future__ import annotations

from interview_peer.core.acts import FOLD_SECONDS, Act, Reading, Readings


def reading(**changes: str) -> Reading:
    parts = {"key": "k", "what": "i", "address": "192.0.2.1", "code": "", **changes}
    return parts["key"], Act.RECORDING_READ, parts["what"], parts["address"], parts["code"]


def test_what_is_read_again_within_minutes_belongs_to_the_first_time() -> None:
    readings = Readings()
    assert not readings.is_known(reading(), 5.0)
    readings.written(reading(), 5.0)
    assert readings.is_known(reading(), 5.0 + FOLD_SECONDS - 0.1)
    # Asking does not prolong it: who listens for an hour is seen to.
    assert not readings.is_known(reading(), 5.0 + FOLD_SECONDS)


def test_another_key_another_thing_another_place_and_a_refusal_are_each_their_own() -> None:
    readings = Readings()
    readings.written(reading(), 0.0)
    others = (
        reading(key="l"),
        reading(what="j"),
        reading(address="192.0.2.2"),
        reading(code="RECORDING_DAMAGED"),
    )
    assert [readings.is_known(one, 1.0) for one in others] == [False] * len(others)


def test_no_more_are_remembered_than_may_be_and_the_oldest_goes_first() -> None:
    readings = Readings(most=3)
    for name in "abcad":
        readings.written(reading(what=name), 1.0)
    assert len(readings) == 3
    known = [name for name in "abcd" if readings.is_known(reading(what=name), 1.0)]
    assert known == ["a", "c", "d"]
