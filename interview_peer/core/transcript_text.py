"""A transcript's document as text for people and players: plain text, WebVTT and SubRip.

Takes the document of ``transcript.json`` and returns a whole file. Turns stay in the order of the
conversation; captions begin in that order too, whatever the times in the document, since players
drop or misplace cues that go back. Not responsible for what a turn's text and times are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..types import Json

CUE_CHARACTERS: Final = 160
"""The most that one caption shows: about four lines. Longer turns become several, whose times are
shares of the turn's by length: the service gives no times of words."""

READING_MS: Final = 60
"""For each character of a turn whose end is not known."""

SHORTEST_MS: Final = 1_000

_NAMES: Final = {"candidate": "Candidate", "interviewer": "Interviewer"}
_NOT_TRANSCRIBED: Final = "[not transcribed]"
_INTERRUPTED: Final = "[interrupted]"


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a transcript down."""

    content_type: str
    render: Callable[[Json], str]


@dataclass(frozen=True, slots=True)
class _Cue:
    """What is shown from ``start`` to ``end``, in milliseconds of the recording."""

    start: int
    end: int
    speaker: str
    text: str


def plain(document: Json) -> str:
    """The transcript as text: one paragraph for each turn, with its time and speaker."""
    lines = [
        f"Interview {_clean(document.get('session_id'))}",
        f"Started {_clean(document.get('started_at'))}",
    ]
    for turn in _turns(document):
        at = _ms(turn.get("start_ms"))
        clock = "--:--:--" if at is None else _clock(at, ".")[:8]
        lines += ["", f"[{clock}] {_speaker(turn)}: {_words(turn)}"]
    return "\n".join(lines) + "\n"


def webvtt(document: Json) -> str:
    """The transcript as WebVTT; each cue names its speaker by a voice tag."""
    blocks = ["WEBVTT"]
    for number, cue in enumerate(_cues(document), 1):
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        blocks.append(f"{number}\n{times}\n<v {cue.speaker}>{_escaped(cue.text)}</v>")
    return "\n\n".join(blocks) + "\n"


def subrip(document: Json) -> str:
    """The transcript as SubRip. Its captions never overlap: many players show only one."""
    cues = [*_cues(document)]
    blocks = []
    for number, cue in enumerate(cues, 1):
        end = min(cue.end, cues[number].start) if number < len(cues) else cue.end
        times = f"{_clock(cue.start, ',')} --> {_clock(end, ',')}"
        # SubRip has no escapes. Players take <...> and {...} for markup, so neither is left.
        text = cue.text.translate(_NO_MARKUP)
        blocks.append(f"{number}\n{times}\n{cue.speaker}: {text}\n")
    return "\n".join(blocks)


FORMATS: Final[Mapping[str, Format]] = {
    "txt": Format("text/plain; charset=utf-8", plain),
    "vtt": Format("text/vtt; charset=utf-8", webvtt),
    "srt": Format("application/x-subrip; charset=utf-8", subrip),
}
"""By the suffix of the file."""

_NO_MARKUP: Final = str.maketrans({"<": "\u2039", ">": "\u203a", "{": "(", "}": ")"})


def _turns(document: Json) -> list[Json]:
    turns = document.get("turns")
    if not isinstance(turns, list):
        return []
    return [turn for turn in turns if isinstance(turn, dict)]


def _cues(document: Json) -> Iterator[_Cue]:
    """Captions in order, each beginning at least a millisecond after the one before."""
    turns = _turns(document)
    earliest = 0
    for place, turn in enumerate(turns):
        text = _words(turn)
        if not text:
            continue
        told = _ms(turn.get("start_ms"))
        start = earliest if told is None else max(told, earliest)
        end = _ms(turn.get("end_ms"))
        if end is None or end <= start:
            end = start + max(SHORTEST_MS, READING_MS * len(text))
            following = _next_start(turns[place + 1 :])
            if following is not None and following > start:
                end = min(end, following)
        pieces = textwrap.wrap(text, CUE_CHARACTERS, break_on_hyphens=False)
        # Each piece takes its share of the time, and at least a millisecond of it.
        end = max(end, start + len(pieces))
        total, said = sum(map(len, pieces)), 0
        at = start
        for count, piece in enumerate(pieces, 1):
            said += len(piece)
            until = max(at + 1, start + (end - start) * said // total)
            if count == len(pieces):
                until = max(until, end)
            yield _Cue(at, until, _speaker(turn), piece)
            earliest, at = at + 1, until


def _next_start(turns: list[Json]) -> int | None:
    for turn in turns:
        start = _ms(turn.get("start_ms"))
        if start is not None:
            return start
    return None


def _words(turn: Json) -> str:
    """What is shown of a turn: its text on one line, as far as it was heard, and a mark where that
    is not all."""
    heard = turn.get("heard_text")
    text = _clean(turn.get("text") if heard is None else heard)
    match turn.get("status"):
        case "failed":
            return _NOT_TRANSCRIBED
        case "interrupted":
            return f"{text} {_INTERRUPTED}".strip()
        case _:
            return text


def _speaker(turn: Json) -> str:
    return _NAMES.get(str(turn.get("speaker")), "Speaker")


def _clean(value: Any) -> str:
    """A value on one line: an empty line would end a caption, a control character the file."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ms(value: Any) -> int | None:
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else None


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{ms:03d}"
