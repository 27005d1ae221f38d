"""A transcript reads as text, and as captions that any player takes."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from typing import Any

import pytest

from interview_peer.core.transcript_text import CUE_CHARACTERS, FORMATS, plain, subrip, webvtt
from interview_peer.types import Json

TIMES = re.compile(r"(\d\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d+):(\d\d):(\d\d)[.,](\d{3})")


def ms(seconds: Any) -> Any:
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return round(seconds * 1000) if number else seconds


def turn(
    text: str,
    start: Any = None,
    end: Any = None,
    speaker: str = "candidate",
    status: str = "complete",
) -> Json:
    return {
        "item_id": "i",
        "speaker": speaker,
        "text": text,
        "start_ms": ms(start),
        "end_ms": ms(end),
        "status": status,
    }


def document(*turns: Json) -> Json:
    return {"session_id": "abc", "started_at": "2026-01-01T12:00:00.000Z", "turns": [*turns]}


def times(text: str) -> list[tuple[int, int]]:
    """Start and end of every caption, in milliseconds."""
    found = []
    for match in TIMES.finditer(text):
        h, m, s, ms, *end = (int(part) for part in match.groups())
        start = ((h * 60 + m) * 60 + s) * 1000 + ms
        h, m, s, ms = end
        found.append((start, ((h * 60 + m) * 60 + s) * 1000 + ms))
    return found


TALK = document(
    turn("What did you build?", 1.0, 2.5, "interviewer"),
    turn("A bridge.", 3.25, 3661.5),
)


def test_text_has_a_paragraph_for_each_turn() -> None:
    assert plain(TALK) == (
        "Interview abc\nStarted 2026-01-01T12:00:00.000Z\n\n"
        "[00:00:01] Interviewer: What did you build?\n\n[00:00:03] Candidate: A bridge.\n"
    )


def test_webvtt_names_the_speaker_by_a_voice_tag() -> None:
    assert webvtt(TALK) == (
        "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\n<v Interviewer>What did you build?</v>\n\n"
        "2\n00:00:03.250 --> 01:01:01.500\n<v Candidate>A bridge.</v>\n"
    )


def test_subrip_has_commas_and_names() -> None:
    assert subrip(TALK) == (
        "1\n00:00:01,000 --> 00:00:02,500\nInterviewer: What did you build?\n\n"
        "2\n00:00:03,250 --> 01:01:01,500\nCandidate: A bridge.\n"
    )


def test_no_text_can_end_a_caption_or_begin_another() -> None:
    evil = "a <b> & --> \r\n\r\n7\n00:00:00.000 --> 00:00:01.000\nNOTE\x00 {\\an8} \u2028 b"
    for kind in FORMATS:
        written = FORMATS[kind].render(document(turn(evil, 1.0, 2.0)))
        assert "\r" not in written and "\0" not in written and "\u2028" not in written
        if kind != "txt":
            assert len(re.findall(r"^\d\d:.*-->", written, re.MULTILINE)) == 1
    cue = webvtt(document(turn(evil, 1.0, 2.0))).split("\n")[4]
    assert cue.startswith("<v Candidate>a &lt;b&gt; &amp; --&gt; 7 00:00:00.000 --&gt;")
    assert not re.search(r"[<>{}]", subrip(document(turn(evil, 1.0, 2.0))).split("\n")[2][13:16])


def test_what_was_not_transcribed_or_cut_short_says_so() -> None:
    talk = document(
        turn("", 1.0, 2.0, status="failed"),
        turn("So I thought", 3.0, 4.0, "interviewer", "interrupted"),
        turn("", 5.0, 6.0, status="complete"),
    )
    assert "[not transcribed]" in webvtt(talk)
    assert "So I thought [interrupted]" in subrip(talk)
    assert len(times(webvtt(talk))) == 2, "a turn without words is no caption"


def test_of_a_reply_cut_short_what_was_heard_is_shown() -> None:
    cut = turn("So I thought of bridges", 3.0, 4.0, "interviewer", "interrupted")
    talk = document(cut | {"heard_text": "So I"}, cut | {"heard_text": ""})
    assert [line for line in plain(talk).splitlines() if "So" in line or ": [" in line] == [
        "[00:00:03] Interviewer: So I [interrupted]",
        "[00:00:03] Interviewer: [interrupted]",
    ]


def test_unknown_times_lie_between_their_neighbours() -> None:
    talk = document(
        turn("One.", 10.0, 11.0), turn("Two."), turn("Three.", 12.0), turn("Four.", 12.5, 13.0)
    )
    (_, _), (start, end), (third, third_end), (_, _) = times(webvtt(talk))
    assert 10_000 < start < end <= 12_000
    assert (third, third_end) == (12_000, 12_500)


def test_a_long_turn_is_several_captions_that_share_its_time() -> None:
    words = " ".join(f"word{n}" for n in range(200))
    talk = document(turn(words, 10.0, 110.0))
    found = times(webvtt(talk))
    assert found[0][0] == 10_000 and found[-1][1] == 110_000
    assert all(one[1] == other[0] for one, other in pairwise(found))
    pieces = re.findall(r"<v Candidate>(.*)</v>", webvtt(talk))
    assert " ".join(pieces) == words
    assert max(map(len, pieces)) <= CUE_CHARACTERS


@pytest.mark.parametrize("seed", range(200))
def test_captions_always_go_forward(seed: int) -> None:
    chance = random.Random(seed)
    odd: list[Any] = [None, -4.0, 0, 1e9, "x", True]
    turns = []
    for _ in range(chance.randrange(1, 12)):
        start = chance.choice([chance.uniform(0, 60), chance.uniform(0, 60), *odd])
        end = chance.choice([chance.uniform(0, 60), chance.uniform(0, 60), *odd])
        text = "w " * chance.choice([0, 1, 5, 300])
        status = chance.choice(["complete", "failed", "interrupted", "partial"])
        turns.append(turn(text, start, end, chance.choice(["candidate", "interviewer"]), status))
    captions, lines = times(webvtt(document(*turns))), times(subrip(document(*turns)))
    assert len(captions) == len(lines)
    for found in (captions, lines):
        assert all(start < end for start, end in found)
        assert all(one[0] < other[0] for one, other in pairwise(found))
    assert all(one[1] <= other[0] for one, other in pairwise(lines)), "SubRip's never overlap"


@pytest.mark.parametrize("odd", [{}, {"turns": None}, {"turns": [1, None, "x", {}, {"text": 4}]}])
def test_a_document_that_is_none_gives_a_whole_file_without_turns(odd: Json) -> None:
    assert webvtt(odd) == "WEBVTT\n"
    assert subrip(odd) == ""
    assert plain(odd).startswith("Interview ")
