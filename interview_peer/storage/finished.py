"""What a finished interview's folder holds, by its manifest, and what is left of an erased one.

Reads only, and waits for the disk. Who writes the manifest is ``finishing``; the tombstone and the
mark of an uploaded folder are the keeper's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ..errors import ManifestDamaged
from ..types import Json, Speaker
from .folder import InterviewFolder

MANIFEST_NAME: Final = "manifest.json"
STORED_NAME: Final = ".stored.json"
"""Says which store the files of the manifest are in, or are being brought to."""
TOMBSTONE_NAME: Final = "erased.json"
"""All that is left of an erased interview."""

CANDIDATE_FILE: Final = f"{Speaker.CANDIDATE.value}.ogg"
INTERVIEWER_FILE: Final = f"{Speaker.INTERVIEWER.value}.ogg"
MIXED_FILE: Final = "mixed.webm"

_RECORDED: Final = re.compile(
    r"(candidate|interviewer)(\.unreadable)?\.ogg|mixed\.webm|waveform\.json|events\.jsonl"
    r"|transcript\.(json|txt|vtt|srt)|erased\.json"
)


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """One file as the manifest lists it. ``seconds`` is None for what is no sound."""

    name: str
    bytes: int
    sha256: str
    content_type: str
    seconds: float | None
    damage: tuple[str, ...] = ()
    """What was wrong with it already when the manifest was made."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished interview. ``document`` is the manifest, ``data`` its very bytes."""

    document: Json
    data: bytes
    files: tuple[FinishedFile, ...]
    started_at: datetime
    seconds: float

    @property
    def ended_at(self) -> datetime:
        """When the recording ended."""
        return self.started_at + timedelta(seconds=self.seconds)

    def file(self, name: str) -> FinishedFile | None:
        """The file of that name, if it is listed."""
        return next((one for one in self.files if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is: its address, and the server to ask, for an address that names none."""

    url: str
    endpoint: str | None = None

    def document(self) -> Json:
        """The same as JSON."""
        return {"url": self.url, "endpoint": self.endpoint}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a folder's files went, whatever is configured now."""

    place: Place
    tags: dict[str, str | None] | None
    """Tag of each file, once all are there and were read back; None while they are brought."""
    earlier: tuple[Place, ...] = ()
    """Where an upload was begun under other settings, and left."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Everywhere that a part of the recording may be."""
        return (self.place, *self.earlier)

    def document(self) -> Json:
        """What the mark in the folder holds."""
        return {
            "schema": 1,
            **self.place.document(),
            "tags": self.tags,
            "earlier": [place.document() for place in self.earlier],
        }


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That, when and why an interview was erased."""

    erased_at: str
    why: str
    complete: bool
    """False while copies in a store may be left."""
    stored: bool
    """Whether copies were, or may have been, in a store."""
    places: tuple[Place, ...] = ()
    """Those stores, as far as they are known."""
    again_at: float | None = None
    """Unix time at which to look once more for what an upload that was called off still brought;
    None if there is no need to, any more."""


def read_finished(folder: InterviewFolder) -> Finished | None:
    """The folder's manifest; None if there is none that can be understood."""
    try:
        return read_manifest(folder)
    except ManifestDamaged:
        return None


def read_manifest(folder: InterviewFolder) -> Finished | None:
    """The folder's manifest; None if there is none.

    Raises:
        ManifestDamaged: it cannot be read, or not understood.
    """
    try:
        data = (folder.path / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        raise ManifestDamaged from None
    finished = parse_manifest(data)
    if finished is None:
        raise ManifestDamaged
    return finished


def parse_manifest(data: bytes) -> Finished | None:
    """A manifest's bytes, understood; None if they are none."""
    try:
        document: Any = json.loads(data)
        seconds = float(document["seconds"])
        lengths: dict[str, float] = {MIXED_FILE: seconds}
        for speaker in Speaker:
            known = document.get("speakers", {}).get(speaker.value, {}).get("seconds")
            if known is not None:
                lengths[f"{speaker.value}.ogg"] = float(known)
        files = tuple(
            FinishedFile(
                str(one["name"]),
                int(one["bytes"]),
                str(one["sha256"]),
                str(one["content_type"]),
                lengths.get(str(one["name"])),
                tuple(map(str, one.get("damage", ()))),
            )
            for one in document["files"]
        )
        started_at = datetime.fromisoformat(document["started_at"])
        finished = Finished(document, data, files, started_at, seconds)
        if started_at.tzinfo is None or not all(_plain(one.name) for one in files):
            return None
        if not math.isfinite(seconds) or finished.ended_at < started_at:
            return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return finished


def read_stored(folder: InterviewFolder) -> Stored | None:
    """Which store the folder's files are in, or are brought to; None if they go nowhere yet.

    Raises ``OSError`` if that is written down and cannot be read now: whoever took it for none
    would forget where copies are.
    """
    path = folder.path / STORED_NAME
    try:
        document = _parsed(path.read_bytes())
    except OSError:
        if not os.path.lexists(path):
            return None
        raise
    place = _place(document)
    if place is None:
        return None
    tags = document.get("tags")
    return Stored(place, tags if isinstance(tags, dict) else None, _places(document, "earlier"))


def read_tombstone(folder: InterviewFolder) -> Tombstone | None:
    """What is left of an erased interview; None if it was not erased."""
    path = folder.path / TOMBSTONE_NAME
    try:
        return parse_tombstone(_parsed(path.read_bytes()))
    except OSError:
        # Without a free descriptor a file that is not there cannot be opened either, and nothing
        # must be erased for that; looking for its name needs none. If it is there, what it stands
        # for happened, whatever became of its text.
        return parse_tombstone({}) if os.path.lexists(path) else None


def parse_tombstone(document: Json) -> Tombstone:
    """A tombstone's JSON. What it does not say counts as not done yet."""
    again_at = document.get("again_at")
    return Tombstone(
        str(document.get("erased_at", "")),
        str(document.get("why", "request")),
        document.get("complete") is True,
        document.get("stored") is not False,
        _places(document, "places"),
        float(again_at) if isinstance(again_at, int | float) else None,
    )


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes. Raises ``OSError`` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(document: Any) -> Place | None:
    if not isinstance(document, dict) or not isinstance(document.get("url"), str):
        return None
    endpoint = document.get("endpoint")
    return Place(document["url"], endpoint if isinstance(endpoint, str) else None)


def _places(document: Json, name: str) -> tuple[Place, ...]:
    listed = document.get(name)
    places = map(_place, listed if isinstance(listed, list) else ())
    return tuple(place for place in places if place is not None)


def _plain(name: str) -> bool:
    return bool(name) and Path(name).name == name and not name.startswith(".")


def is_recording(names: Collection[str]) -> bool:
    """Whether objects of these names in a store are a recording, or the beginning of one, and
    nothing that somebody else keeps there."""
    return MANIFEST_NAME in names or (bool(names) and all(map(_RECORDED.fullmatch, names)))


def _parsed(data: bytes) -> Json:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
