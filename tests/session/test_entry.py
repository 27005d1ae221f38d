"""By what candidates come in: tokens that serve once, and the claim that is given back once."""

from __future__ import annotations

import pytest

from interview_peer.errors import TokenUsed
from interview_peer.session.entry import Entry
from interview_peer.state.happenings import Entered, Happening, Released
from interview_peer.types import SessionId

ID = SessionId("one")


@pytest.fixture
def told() -> list[Happening]:
    return []


@pytest.fixture
def entry(told: list[Happening]) -> Entry:
    return Entry(ID, told.append)


def test_a_token_serves_until_somebody_is_connected(entry: Entry, told: list[Happening]) -> None:
    for token in ("b", "a", None, "b"):
        entry.check(token)
        entry.show(token)
    assert told == [] and not entry.has_used("a")
    entry.use()
    assert [(type(one), one.interview_id) for one in told] == [(Entered, ID)] * 2
    assert [one.token for one in told if isinstance(one, Entered)] == ["a", "b"]
    for token in ("a", "b"):
        assert entry.has_used(token)
        with pytest.raises(TokenUsed):
            entry.check(token)
    entry.check("c")
    entry.check(None)
    entry.use()
    assert len(told) == 2


def test_a_claim_is_given_back_once(entry: Entry, told: list[Happening]) -> None:
    entry.give_back()
    assert told == []
    entry.claim = "mine"
    entry.give_back()
    entry.give_back()
    assert [one.claim for one in told if isinstance(one, Released)] == ["mine"]
    assert len(told) == 1
    assert entry.claim is None
