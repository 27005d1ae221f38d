"""Those who follow an interview get all of it in order, or know that they did not."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from interview_peer.errors import TooManyFollowers
from interview_peer.session.feed import BEHIND, KEPT, MAX_FOLLOWERS, Feed, Follower
from interview_peer.types import Json

NOW = 0.0
"""Patience of those who want only what is there."""


async def all_of(follower: Follower) -> list[tuple[int, str, Json]]:
    found = []
    while (event := await follower.take(NOW)) is not None:
        found.append((event.number, event.kind, event.data))
    return found


def turn(text: str) -> Json:
    return {"item_id": text, "text": text}


async def test_a_follower_gets_what_is_and_then_what_happens() -> None:
    feed = Feed()
    feed.phase("live", None)
    feed.turns(0, [turn("a"), turn("b")])
    follower = feed.follow(None)
    snapshot = {"phase": "live", "reason": None, "turns": [turn("a"), turn("b")]}
    assert await all_of(follower) == [(2, "snapshot", snapshot)]
    feed.piece("c", "candidate", "He")
    feed.turns(1, [turn("x"), turn("y")])
    assert await all_of(follower) == [
        (3, "text", {"item_id": "c", "speaker": "candidate", "delta": "He"}),
        (4, "turns", {"position": 1, "turns": [turn("x"), turn("y")]}),
    ]
    later = (await all_of(feed.follow(None)))[0][2]
    assert later["turns"] == [turn("a"), turn("x"), turn("y")]


async def test_who_waits_is_woken_by_news_and_by_the_end() -> None:
    feed = Feed()
    follower = feed.follow(None)
    assert await follower.take(NOW) is not None
    waiting = asyncio.create_task(follower.take(60))
    await asyncio.sleep(0)
    feed.phase("live", None)
    event = await waiting
    assert event is not None and event.kind == "phase"
    waiting = asyncio.create_task(follower.take(60))
    await asyncio.sleep(0)
    feed.end("client_request")
    feed.end("twice")
    feed.phase("late", None)
    event = await waiting
    assert event is not None and (event.kind, event.data) == ("end", {"reason": "client_request"})
    assert await follower.take(60) is None and feed.is_over and not follower.is_dropped


@pytest.mark.parametrize("after", [0, 1, 17, 40])
async def test_who_comes_back_gets_exactly_what_was_missed(after: int) -> None:
    feed = Feed()
    for number in range(40):
        feed.piece("a", "candidate", str(number))
    missed = await all_of(feed.follow(after))
    assert [number for number, _, _ in missed] == list(range(after + 1, 41))


@pytest.mark.parametrize("after", [None, 3, KEPT + 1_000, KEPT + 50 - BEHIND - 1])
async def test_who_missed_too_much_gets_the_conversation_as_it_is(after: int | None) -> None:
    feed = Feed()
    feed.turns(0, [turn("a")])
    for number in range(KEPT + 49):
        feed.piece("a", "candidate", str(number))
    ((number, kind, data),) = await all_of(feed.follow(after))
    assert (number, kind, data["turns"]) == (feed.last, "snapshot", [turn("a")])


async def test_who_reads_too_slowly_is_dropped_counted_and_may_come_back() -> None:
    feed = Feed()
    told: list[str] = []
    slow = feed.follow(None, lambda: told.append("dropped"))
    quick = feed.follow(None)
    first = await slow.take(NOW)
    assert first is not None
    for number in range(BEHIND + 1):
        feed.piece("a", "candidate", str(number))
        assert len(await all_of(quick)) >= 1
    assert slow.is_dropped and told == ["dropped"] and feed.counters["dropped"] == 1
    assert await slow.take(60) is None
    assert not quick.is_dropped
    back = feed.follow(first.number + 10)
    missed = await all_of(back)
    assert [number for number, _, _ in missed] == list(range(first.number + 11, feed.last + 1))


async def test_after_the_end_the_end_is_still_told() -> None:
    feed = Feed()
    feed.phase("live", None)
    feed.end("idle")
    for after in (None, 900):
        kinds = [kind for _, kind, _ in await all_of(feed.follow(after))]
        assert kinds == ["snapshot", "end"]
    assert [kind for _, kind, _ in await all_of(feed.follow(1))] == ["end"]
    assert await all_of(feed.follow(2)) == []


async def test_only_so_many_may_follow_and_who_leaves_makes_room() -> None:
    feed = Feed()
    followers = [feed.follow(None) for _ in range(MAX_FOLLOWERS)]
    with pytest.raises(TooManyFollowers):
        feed.follow(None)
    followers[3].close()
    followers[3].close()
    feed.follow(None)


@pytest.mark.parametrize("seed", range(20))
async def test_a_follower_that_comes_and_goes_ends_with_the_same_conversation(seed: int) -> None:
    chance = random.Random(seed)
    feed = Feed()
    true: list[Json] = []
    shown: list[Json] = []
    last: int | None = None
    follower = feed.follow(None)
    for step in range(1_500):
        if chance.random() < 0.2:
            place = chance.randrange(len(true) + 1)
            true[place:] = [turn(f"{step}.{n}") for n in range(chance.randrange(1, 4))]
            feed.turns(place, true[place:])
        else:
            feed.piece("a", "candidate", "x")
        if chance.random() < 0.01:
            follower.close()
            follower = feed.follow(last)
        if chance.random() < 0.02 or step == 1_499:
            if follower.is_dropped:
                follower = feed.follow(last)
            for number, kind, data in json.loads(json.dumps(await all_of(follower))):
                last = number
                if kind == "snapshot":
                    shown = data["turns"]
                elif kind == "turns":
                    shown[data["position"] :] = data["turns"]
    assert shown == true
