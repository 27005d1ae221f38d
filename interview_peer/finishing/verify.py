"""Checks a finished folder against its manifest, and its files against each other.

Everything is read anew: lengths and hashes, every Ogg page, the lengths of the sound, and whether
the journal still gives the same transcript. Nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import av

from ..core.refine import REACH_MS
from ..core.replay import rebuild
from ..storage.recorder import JOURNAL_NAME, audio_name
from ..types import Json, SessionId
from . import captions, manifest
from .facts import SPEAKERS
from .names import MIX_NAME, TEXT_NAMES, TRANSCRIPT_NAME, WAVEFORM_NAME
from .pages import scan
from .waveform import PER_SECOND

ORIGINALS: Final = (*(audio_name(speaker) for speaker in SPEAKERS), JOURNAL_NAME)
EXPECTED: Final = (*ORIGINALS, MIX_NAME, WAVEFORM_NAME, TRANSCRIPT_NAME)

SAME_LENGTH: Final = 0.02
"""Seconds by which lengths may differ: one packet."""

MIX_LENGTH: Final = 0.1
"""The same for the mix, whose last packet an encoder fills up."""

TIMES: Final = ("start_ms", "end_ms")
"""Fields of a turn that finishing may have moved, by at most ``REACH_MS``."""

SAME_MOMENT: Final = 0.0015
"""Seconds by which stamps of one moment may differ: they are written in milliseconds."""

_ANY_TIME = datetime.fromtimestamp(0, UTC)


def verify(path: Path) -> list[str]:
    """Check the folder; returns a sentence for everything that is wrong, nothing if all is well."""
    try:
        document = manifest.read(path)
        listed = manifest.files(document)
    except manifest.BadManifest as error:
        return [error.message]
    problems: list[str] = []
    problems += _hashes(path, listed)
    names = {file.name for file in listed}
    expected = (*EXPECTED, *(TEXT_NAMES if TRANSCRIPT_NAME in names else ()))
    problems += [f"{name} is missing from the manifest" for name in expected if name not in names]
    present = {name for name in names if (path / name).is_file()}
    problems += _sound(path, document, present)
    if MIX_NAME in present:
        problems += _mix(path / MIX_NAME, document)
    if WAVEFORM_NAME in present:
        problems += _waveform(path / WAVEFORM_NAME, document)
    if {JOURNAL_NAME, TRANSCRIPT_NAME} <= present:
        problems += _words(path, document)
    if TRANSCRIPT_NAME in present:
        problems += _forms(path, present)
    return problems


def _hashes(path: Path, listed: list[manifest.File]) -> Iterator[str]:
    known = {file.name: file for file in listed}
    for file in listed:
        try:
            found = manifest.describe(path / file.name)
        except FileNotFoundError:
            yield f"{file.name} is missing"
            continue
        except OSError as error:
            yield f"{file.name} cannot be read: {error.strerror}"
            continue
        if found.bytes != file.bytes:
            yield f"{file.name} has {found.bytes} bytes instead of {file.bytes}"
        elif found.sha256 != file.sha256:
            yield f"{file.name} was changed: its SHA-256 is another"
    for extra in manifest.contents(path):
        if extra.name not in known:
            yield f"{extra.name} is not in the manifest"


def _sound(path: Path, document: Json, present: set[str]) -> Iterator[str]:
    seconds = _number(document.get("seconds"))
    if seconds is None:
        yield "manifest.json does not say how long the recording is"
        return
    damaged = document.get("damaged") or []
    for speaker in SPEAKERS:
        name = audio_name(speaker)
        if name not in present:
            continue
        stream = scan(path / name)
        for problem in stream.problems:
            # Told again although the manifest knows of it: such a file does not play as a whole.
            known = " (it was when the manifest was made)" if name in damaged else ""
            yield f"{name}: {problem}{known}"
        if abs(stream.seconds - seconds) > SAME_LENGTH:
            yield f"{name} lasts {stream.seconds:.3f} s, the recording {seconds:.3f} s"
        own = _number(_within(document.get("speakers"), speaker.value).get("seconds"))
        if own is None:
            yield f"manifest.json does not say how long {name} is"
        elif abs(stream.seconds - own) > SAME_LENGTH:
            yield f"{name} lasts {stream.seconds:.3f} s, the manifest says {own:.3f} s"


def _mix(path: Path, document: Json) -> Iterator[str]:
    seconds = _number(document.get("seconds")) or 0.0
    try:
        with av.open(path, mode="r") as container:
            stream = container.streams.audio[0]
            told = (container.duration or 0) / av.time_base
            layout, last = stream.codec_context.channels, 0.0
            for packet in container.demux(stream):
                if packet.pts is not None and packet.time_base is not None:
                    last = float((packet.pts + (packet.duration or 0)) * packet.time_base)
    except (av.FFmpegError, IndexError):
        yield f"{path.name} cannot be read as WebM"
        return
    if layout != 2:
        yield f"{path.name} has {layout} channel(s) instead of 2"
    for length, what in ((told, "says it lasts"), (last, "lasts")):
        if abs(length - seconds) > MIX_LENGTH:
            yield f"{path.name} {what} {length:.3f} s, the recording {seconds:.3f} s"


def _waveform(path: Path, document: Json) -> Iterator[str]:
    seconds = _number(document.get("seconds")) or 0.0
    try:
        drawn = json.loads(path.read_bytes())
        lengths = {speaker.value: len(drawn[speaker.value]) for speaker in SPEAKERS}
        per_second = float(drawn["per_second"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        yield f"{path.name} cannot be read"
        return
    for name, length in lengths.items():
        if abs(length - seconds * per_second) > 1 + PER_SECOND * SAME_LENGTH:
            yield f"{path.name} draws {length / per_second:.2f} s of the {name}"


def _words(path: Path, document: Json) -> Iterator[str]:
    try:
        written = json.loads((path / TRANSCRIPT_NAME).read_bytes())
        with (path / JOURNAL_NAME).open(encoding="utf-8", errors="replace") as lines:
            rows = list(lines)
    except (OSError, ValueError, RecursionError):
        yield f"{TRANSCRIPT_NAME} cannot be read"
        return
    cut_off = document.get("phase") == "recovered" or bool(document.get("failure"))
    for number, row in enumerate(rows, 1):
        try:
            json.loads(row)
        except (ValueError, RecursionError):
            # The last line may be torn where a crash or the disk ended the recording.
            if number < len(rows) or not cut_off:
                yield f"{JOURNAL_NAME}: line {number} is no JSON"
    line = _first_line(rows)
    first = _within(line, "event")
    if cut_off and not line and len(rows) <= 1:
        # It ended before a whole line of the journal was written.
        line = {"at": document.get("started_at")}
    elif first.get("type") != "interview.started":
        yield f"{JOURNAL_NAME} does not begin with interview.started"
    elif first.get("session_id") != document.get("session_id"):
        yield f"{JOURNAL_NAME} is of another interview than the manifest"
    yield from _origin(document, line.get("at"), written)
    if document.get("failure") or document.get("events_dropped"):
        # The journal is known to lack events that the transcript has.
        return
    rebuilt = rebuild(rows).document(SessionId(""), _ANY_TIME)
    yield from _compare(written, rebuilt["turns"])


def _forms(path: Path, present: set[str]) -> Iterator[str]:
    try:
        expected = captions.rendered((path / TRANSCRIPT_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        # Told of already, as a transcript that cannot be read.
        return
    for name in sorted(TEXT_NAMES.keys() & present):
        try:
            same = (path / name).read_bytes() == expected[name]
        except OSError:
            continue
        if not same:
            yield f"{name} does not say what {TRANSCRIPT_NAME} says"


def _origin(document: Json, journal_began: Any, written: Any) -> Iterator[str]:
    """Whether manifest, journal and transcript are of one interview and count from one moment."""
    transcript = written if isinstance(written, dict) else {}
    if transcript.get("session_id") != document.get("session_id"):
        yield f"{TRANSCRIPT_NAME} is of another interview than the manifest"
    began = _moment(document.get("started_at"))
    if began is None:
        yield "manifest.json does not say when the recording began"
        return
    for name, stamp in (
        (JOURNAL_NAME, journal_began),
        (TRANSCRIPT_NAME, transcript.get("started_at")),
    ):
        other = _moment(stamp)
        if other is None or abs((other - began).total_seconds()) > SAME_MOMENT:
            yield f"{name} begins at another moment than the manifest says"


def _first_line(rows: list[str]) -> Json:
    try:
        line = json.loads(rows[0])
    except (IndexError, ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _within(value: Any, name: str) -> Json:
    """A part of a document; empty where there is none."""
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _moment(stamp: Any) -> datetime | None:
    """A moment with its zone, or None for anything else."""
    try:
        moment = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def _compare(written: Any, rebuilt: list[Json]) -> Iterator[str]:
    turns = written.get("turns") if isinstance(written, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        yield f"{TRANSCRIPT_NAME} has no turns"
        return
    if len(turns) != len(rebuilt):
        yield f"{TRANSCRIPT_NAME} has {len(turns)} turns, the journal gives {len(rebuilt)}"
        return
    for number, (one, other) in enumerate(zip(turns, rebuilt, strict=True), 1):
        for field in other:
            if not _agree(field, one.get(field), other[field]):
                # Never the text itself: what was said stays out of terminals and logs.
                yield f"{TRANSCRIPT_NAME}: turn {number} has another {field} than the journal gives"


def _agree(field: str, one: Any, other: Any) -> bool:
    if field in TIMES and isinstance(one, int) and isinstance(other, int):
        return abs(one - other) <= REACH_MS
    return bool(one == other)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
