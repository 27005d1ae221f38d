"""Journals of every order of events that the service has, and the transcripts they stand for.

``journals`` holds each conversation (``.jsonl``) and the transcript that it was read to be
(``.json``); ``scenes`` tells how they are written again.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interview_peer.core.replay import SPEECH_LINE
from interview_peer.types import Json
from tests.support.official import client_problems, server_problems

from .scenes import FOLDER, SCENES, journal, replayed

INVENTED = "x_future.event"
"""Stands for what the service may come to say."""

TRANSCRIPTION = "conversation.item.input_audio_transcription."


def stored(name: str) -> list[str]:
    return (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def expected(name: str) -> Json:
    document: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def test_the_folder_holds_these_scenes_and_nothing_else() -> None:
    names = {file.name for file in FOLDER.iterdir()}
    assert names == {f"{name}.{kind}" for name in SCENES for kind in ("json", "jsonl")}


@pytest.mark.parametrize("name", SCENES)
def test_a_journal_is_replayed_to_its_transcript(name: str) -> None:
    assert journal(name).splitlines() == stored(name), "run python -m tests.core.scenes"
    assert replayed(stored(name), name) == expected(name)


@pytest.mark.parametrize("name", SCENES)
def test_what_a_journal_has_the_service_say_and_be_told_is_official(name: str) -> None:
    for record in map(json.loads, stored(name)):
        event = record["event"]
        if record["direction"] == "to_browser" and event["type"] != INVENTED:
            assert server_problems(event) == []
        elif record["direction"] == "to_model":
            assert client_problems(event) == []
        else:
            assert event["type"].startswith("interview.") or event["type"] == INVENTED


@pytest.mark.parametrize("name", SCENES)
def test_a_journal_that_breaks_off_anywhere_is_still_a_transcript(name: str) -> None:
    lines = stored(name)
    known = [turn["item_id"] for turn in expected(name)["turns"]]
    for count, line in enumerate(lines):
        for torn in ("", line[: len(line) // 2], line[:-1]):
            document = replayed([*lines[:count], torn], name)
            shown = [turn["item_id"] for turn in document["turns"]]
            assert "partial" not in [turn["status"] for turn in document["turns"]]
            if name not in ("deletions", "text_turns"):
                # What is left is told in the order that all of it is told in.
                assert [one for one in known if one in shown] == [
                    one for one in shown if one in known
                ]


# In which other orders the same conversation may be told


def must_follow(records: Sequence[Json]) -> list[set[int]]:
    """What the service promises of the order of a conversation's lines: for each, those before it.

    The promises, and nothing more:

    - What is neither a transcription nor about playout comes in its order (the main stream). So
      do our own lines, and what is said to the service.
    - A transcription is independent of all that is not its item: its pieces come in their order,
      after the item is done, any time, whatever other items and replies do meanwhile.
    - Sounds are played one after the other, so what is told of playout comes in its order. A
      sound starts after the first piece of its text, stops after all of it was generated, both at
      any time; it is cleared before, between or after what closes the reply, but not before the
      speech or the wish that cut it, and what was heard is told after it was cleared and before
      that speech stops.
    - News of the allowance and errors come whenever they like.
    - The interview's phases are our own: what came before one and what came after it stay there.
    """
    before: list[set[int]] = [set() for _ in records]
    newest: dict[str, int] = {}
    first_piece: dict[str, int] = {}
    generated: dict[str, int] = {}
    speech: dict[str, int] = {}
    done: dict[str, int] = {}
    cut: dict[str, int] = {}
    cleared: int | None = None

    def after(at: int, *others: int | None) -> None:
        before[at].update(other for other in others if other is not None)

    for at, record in enumerate(records):
        event = record["event"]
        after(at, newest.get("phase"))
        kind, item, reply = event["type"], event.get("item_id", ""), event.get("response_id", "")
        if record["direction"] == "to_model":
            after(at, newest.get("main"))
            newest["main"] = newest["client"] = at
        elif kind.startswith(TRANSCRIPTION):
            after(at, newest.get(item), done[item])
            newest[item] = at
        elif kind.startswith("output_audio_buffer."):
            after(at, newest.get("playout"), first_piece[reply])
            newest["playout"] = at
            if kind.endswith("stopped"):
                after(at, generated.get(reply))
            elif kind.endswith("cleared"):
                after(at, newest.get("client"), *speech.values())
                cleared = at
        elif kind == "conversation.item.truncated":
            after(at, cleared)
            cut.update(dict.fromkeys(speech, at))
        elif kind in ("error", "rate_limits.updated"):
            after(at, 0)
        elif kind == "interview.phase":
            after(at, *range(at))
            newest["phase"] = at
        else:
            after(at, newest.get("main"))
            newest["main"] = at
            if kind == "input_audio_buffer.speech_started":
                speech[item] = at
            elif kind == "input_audio_buffer.speech_stopped":
                speech.pop(item)
                after(at, cut.get(item))
            elif kind == "conversation.item.done":
                done[event["item"]["id"]] = at
            elif kind == "response.output_audio_transcript.delta":
                first_piece.setdefault(reply, at)
            elif kind == "response.output_audio.done":
                generated[reply] = at
    return before


def arranged(before: Sequence[set[int]], wishes: Sequence[int]) -> list[int]:
    """The order that keeps every promise and otherwise follows the wishes; any can come out."""
    left = [len(one) for one in before]
    followers: list[list[int]] = [[] for _ in before]
    for at, ones in enumerate(before):
        for one in ones:
            followers[one].append(at)
    ready = [(wishes[at], at) for at, count in enumerate(left) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, at = heapq.heappop(ready)
        order.append(at)
        for follower in followers[at]:
            left[follower] -= 1
            if not left[follower]:
                heapq.heappush(ready, (wishes[follower], follower))
    return order


def without_arrival_times(document: Json) -> Json:
    """What does not depend on when an event came: all but the times of what was played.

    Where the candidate's speech lies the service says itself.
    """
    turns: list[Json] = []
    for turn in document["turns"]:
        timed = turn["speaker"] == "candidate" and turn["kind"] == "speech"
        turns.append(turn if timed else {**turn, "start_ms": None, "end_ms": None})
    marks = [mark for mark in document["marks"] if mark["kind"] != "silence"]
    return {**document, "turns": turns, "marks": [mark["item_id"] for mark in marks]}


NEEDS_TIMES = ("cut_without_truncation", "crashed", "expiry_told", "errors", "detached")
"""Where how much was heard is known only from when the events came."""


@pytest.mark.parametrize("name", SCENES)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_any_order_that_the_contract_allows_gives_the_same_transcript(name: str, data: Any) -> None:
    records = [json.loads(line) for line in stored(name)]
    before = must_follow(records)
    if not any(record["event"]["type"] == "interview.phase" for record in records):
        # Where nothing ends the interview, the last line is its end.
        before[-1].update(range(len(records) - 1))
    order = arranged(before, data.draw(st.permutations(range(len(records)))))
    assert len(order) == len(records), "promises in a circle"
    # Each line keeps the time that it tells: only its place among the others is another.
    moved = [json.dumps(records[at]) for at in order]
    assert replayed(moved, name) == expected(name)
    if name not in NEEDS_TIMES:
        # Each line comes at the time of its new place.
        times = sorted(record["t"] for record in records)
        late = [
            json.dumps({**records[at], "t": time}) for at, time in zip(order, times, strict=True)
        ]
        told = without_arrival_times(replayed(late, name))
        assert told == without_arrival_times(expected(name))


def test_the_orders_tried_are_others_than_the_journals_own() -> None:
    records = [json.loads(line) for line in stored("late_transcription")]
    events = [record["event"] for record in records]
    before = must_follow(records)
    backwards = arranged(before, range(len(events), 0, -1))
    assert backwards != list(range(len(events)))
    kinds = [events[at]["type"] for at in backwards]
    # The transcription may come before the reply begins, as well as after it was heard.
    assert kinds.index(f"{TRANSCRIPTION}completed") < kinds.index("response.done", 30)
    assert SPEECH_LINE in kinds
