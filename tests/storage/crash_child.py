"""Records two speakers in simulated time, as fast as it can, until it is killed.

Started by ``test_crash.py``: ``python -m tests.storage.crash_child FOLDER``. After each flush it
prints the second it has flushed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder
from interview_peer.types import Direction, SessionId, Speaker


def main(root: Path) -> None:
    folder = InterviewFolder(root, SessionId("crash"))
    folder.create()
    recorder = Recorder(folder, 0.0, datetime.now(UTC))
    number = 0
    while True:
        at = number * 0.02
        # Talks all the time.
        recorder.audio(
            Speaker.CANDIDATE, at, number & 0xFFFF, number * 960 & 0xFFFFFFFF, b"\xf8\xff\xfe"
        )
        # Talks in turns of two seconds.
        if number // 100 % 2:
            recorder.audio(
                Speaker.INTERVIEWER, at, number & 0xFFFF, number * 960 & 0xFFFFFFFF, b"\xf8\xff\xfe"
            )
        if number % 5 == 0:
            recorder.event(Direction.TO_BROWSER, at, {"type": "x", "number": number})
        number += 1
        if number % 25 == 0:
            now = number * 0.02
            recorder.flush(now)
            sys.stdout.write(f"{now:.2f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
