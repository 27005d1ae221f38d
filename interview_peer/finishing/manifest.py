"""``manifest.json``: what a finished folder holds, so that whoever gets it can check it.

It is written last, in one step: a folder that has one is finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..errors import InterviewPeerError
from ..storage.folder import InterviewFolder
from ..storage.recorder import audio_name
from ..types import Json
from . import damage
from .facts import SPEAKERS, Facts, empty_counters
from .names import MANIFEST_NAME
from .pages import scan

SCHEMA: Final = 1

CONTENT_TYPES: Final = {
    ".ogg": "audio/ogg; codecs=opus",
    ".webm": "audio/webm; codecs=opus",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".vtt": "text/vtt; charset=utf-8",
    ".srt": "application/x-subrip; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


class BadManifest(InterviewPeerError):
    """A folder's manifest is missing, or cannot be understood."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a finished folder."""

    name: str
    bytes: int
    sha256: str
    content_type: str
    damage: tuple[str, ...] = ()
    """What was wrong with it when the manifest was made."""


def write(
    folder: InterviewFolder,
    facts: Facts,
    *,
    seconds: float,
    repaired: Sequence[str],
) -> None:
    """Hash every file and write the manifest. Raises ``OSError`` if the disk refuses.

    ``seconds`` is what was mixed, ``repaired`` names files that a crash had left unclosed.
    """
    speakers: dict[str, Json] = {}
    for speaker in SPEAKERS:
        stream = scan(folder.path / audio_name(speaker))
        counters: Mapping[str, float | None] = facts.counters.get(speaker.value) or empty_counters()
        speakers[speaker.value] = {"seconds": round(stream.seconds, 6), **counters}
    cut_off = facts.recovered or facts.failure is not None
    listed = [
        dataclasses.replace(describe(path), damage=damage.of(path, torn_end=cut_off))
        for path in contents(folder.path)
    ]
    damaged = [file.name for file in listed if file.damage]
    # Speech that the disk did not keep up with is silence in whole files.
    dropped = any(counters.get("overflow") for counters in facts.counters.values())
    document = {
        "schema": SCHEMA,
        "session_id": facts.session_id,
        "phase": facts.phase,
        "reason": facts.reason,
        "consent": facts.consent,
        "started_at": facts.started_at,
        "seconds": round(seconds, 6),
        "complete": not (facts.recovered or facts.failure or damaged or dropped),
        "failure": facts.failure,
        "repaired": list(repaired),
        "damaged": damaged,
        "speakers": speakers,
        "events_dropped": facts.events_dropped,
        "files": [dataclasses.asdict(file) for file in listed],
        "versions": {
            "recorded_by": facts.server,
            "finished_by": __version__,
            "python": platform.python_version(),
            "av": importlib.metadata.version("av"),
        },
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    folder.write_json(MANIFEST_NAME, document)


def contents(path: Path) -> list[Path]:
    """Every file that a manifest lists: all but itself and what is hidden, by name."""
    return sorted(
        file
        for file in path.iterdir()
        if file.is_file() and file.name != MANIFEST_NAME and not file.name.startswith(".")
    )


def describe(path: Path) -> File:
    """Length and hash of a file, read once. Raises ``OSError`` if it cannot be read."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return File(path.name, size, digest, content_type(path.name))


def content_type(name: str) -> str:
    """What a file is, by its name."""
    return CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")


def read(path: Path) -> Json:
    """The manifest of the folder ``path``.

    Raises:
        BadManifest: there is none, or it is none of ours.
    """
    try:
        document: Any = json.loads((path / MANIFEST_NAME).read_bytes())
    except FileNotFoundError:
        raise BadManifest("There is no manifest.json: the folder is not finished.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadManifest(
            f"manifest.json cannot be read as JSON ({type(error).__name__})."
        ) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadManifest("manifest.json is not of a schema this version knows.")
    return document


def files(document: Json) -> list[File]:
    """The files that a manifest lists.

    Raises:
        BadManifest: the list is not what ``write`` makes, or a name leads out of the folder.
    """
    try:
        listed = [
            File(
                str(one["name"]),
                int(one["bytes"]),
                str(one["sha256"]),
                str(one["content_type"]),
                tuple(map(str, one.get("damage", ()))),
            )
            for one in document["files"]
        ]
    except (KeyError, TypeError, ValueError):
        raise BadManifest("manifest.json does not list its files properly.") from None
    if any(Path(one.name).name != one.name or one.name.startswith(".") for one in listed):
        raise BadManifest("manifest.json lists a file outside of the folder.")
    return listed
