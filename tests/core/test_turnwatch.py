"""What is new in a conversation, and that each turn is told once."""

from __future__ import annotations

from dataclasses import replace

from interview_peer.core.turns import Turn, TurnStatus
from interview_peer.core.turnwatch import TurnWatch
from interview_peer.types import ItemId, Speaker


def turn(name: str, speaker: Speaker = Speaker.CANDIDATE, ended_at: float | None = 2.0) -> Turn:
    return Turn(ItemId(name), speaker, f"text of {name}", 1.0, ended_at, TurnStatus.COMPLETE, None)


def test_nothing_new_is_nothing() -> None:
    watch = TurnWatch()
    assert watch.look([]) is None
    assert watch.look([turn("a")]) is not None
    assert watch.look([turn("a")]) is None


def test_news_begin_where_the_conversation_changed() -> None:
    watch = TurnWatch()
    a, b, c = turn("a"), turn("b"), turn("c")
    watch.look([a, c])
    news = watch.look([a, b, c])
    assert news is not None
    assert (news.position, news.turns) == (1, (b, c))
    assert news.settled == ((1, b),)


def test_turn_that_went_leaves_a_shorter_tail() -> None:
    watch = TurnWatch()
    a, b = turn("a"), turn("b")
    watch.look([a, b])
    news = watch.look([a])
    assert news is not None
    assert (news.position, news.turns, news.settled) == (1, (), ())


def test_partial_turn_is_news_but_not_settled() -> None:
    watch = TurnWatch()
    partial = replace(turn("a"), status=TurnStatus.PARTIAL)
    news = watch.look([partial])
    assert news is not None and news.settled == ()
    news = watch.look([turn("a")])
    assert news is not None and news.settled == ((0, turn("a")),)


def test_reply_is_settled_once_it_was_spoken_or_all_is_over() -> None:
    watch = TurnWatch()
    speaking = turn("a", Speaker.INTERVIEWER, ended_at=None)
    news = watch.look([speaking])
    assert news is not None and news.settled == ()
    news = watch.look([speaking], over=True)
    assert news is not None and news.settled == ((0, speaking),)


def test_turn_that_changes_after_it_was_told_is_not_told_again() -> None:
    watch = TurnWatch()
    watch.look([turn("a")])
    cut = replace(turn("a"), status=TurnStatus.INTERRUPTED)
    news = watch.look([cut])
    assert news is not None
    assert (news.turns, news.settled) == ((cut,), ())
