"""Names what is wrong with a file when a recording is finished, in words that stay the same.

The manifest holds them, so that nobody takes a file for whole because its hash is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from .pages import scan

UNREADABLE: Final = "unreadable"
"""It cannot be read as what it should be."""

BROKEN_LINE: Final = "broken_line"
"""A line of the journal is no JSON."""


def of(path: Path, *, torn_end: bool) -> tuple[str, ...]:
    """What is wrong with an original, or a file made of it; nothing if all is well.

    ``torn_end`` says that the journal's last line may be torn, as a crash leaves it. Raises
    ``OSError`` if the file cannot be read.
    """
    match path.suffix:
        case ".ogg":
            return tuple(scan(path).codes)
        case ".jsonl":
            return _lines(path, torn_end)
        case ".json":
            try:
                json.loads(path.read_bytes())
            except (ValueError, RecursionError):
                return (UNREADABLE,)
    return ()


def _lines(path: Path, torn_end: bool) -> tuple[str, ...]:
    broken = last = 0
    with path.open("rb") as lines:
        for last, line in enumerate(lines, 1):
            if broken and (not torn_end or broken < last):
                return (BROKEN_LINE,)
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                broken = last
    return (BROKEN_LINE,) if broken and not (torn_end and broken == last) else ()
