"""``python -m interview_peer.finishing FOLDER``: finishes folders, in a process of its own.

Started by the server, never by hand (``interview-peer finish`` is for people). It goes behind
every other process, and says on stdout how far it is, one JSON object a line. After a folder it
takes the next one that a line on stdin names, for loading the libraries takes longer than mixing a
short interview. It ends with stdin, at the first folder that fails, or when its parent does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from ..logs import word_for
from ..storage.folder import InterviewFolder
from ..types import Json, SessionId

NICENESS: Final = 10
SAY_SECONDS: Final = 0.2

ORPHANED: Final = 3
"""Exit code after the parent's end; the next start of the server does it again."""


def main(arguments: list[str]) -> int:
    """Finish the folder that is named, and those that stdin names; 0, or 1 when one failed."""
    os.nice(NICENESS)
    parent = os.getppid()
    code = work(Path(arguments[0]), parent)
    while code == 0 and (line := sys.stdin.readline()):
        code = work(Path(json.loads(line)), parent)
    return code


def work(path: Path, parent: int) -> int:
    """Finish this folder and tell of it; 0, or 1 when that failed."""
    said_at = 0.0

    def progress(share: float) -> None:
        nonlocal said_at
        if os.getppid() != parent:
            raise SystemExit(ORPHANED)
        now = time.monotonic()
        if now - said_at >= SAY_SECONDS:
            said_at = now
            say({"progress": round(share, 3)})

    try:
        # The libraries for sound take a while to load.
        from .job import finish

        finish(InterviewFolder(path.parents[1], SessionId(path.name)), progress)
    except Exception as error:
        # The place in the code, never the error's text: that can show a path or what was said.
        place = traceback.extract_tb(error.__traceback__)[-1]
        say({"failed": word_for(error), "place": f"{Path(place.filename).name}:{place.lineno}"})
        return 1
    say({"done": True})
    return 0


def say(line: Json) -> None:
    """One line to the parent; a parent that is gone hears nothing."""
    try:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise SystemExit(ORPHANED) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
