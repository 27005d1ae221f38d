"""``python -m interview_peer.session.reading_process``: reads large events for the server.

Started by ``session.reader``, never by hand. Each frame on stdin and stdout begins with its length
in four bytes. The first one in is a pickled ``Redactor``; each further one is a request: a byte
of flags that say who is to be told, the digest of instructions if one of them says so, and the
message in UTF-8. Each answer is a pickled ``Answer``. The process stands back behind the media, is
the first to be ended when memory runs out, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import struct
import sys
from typing import BinaryIO, Final

from ..core.reading import Reading, read
from ..core.redaction import Redactor
from ..core.speech_redaction import SpeechRedactor
from ..errors import CallerError

HEADER: Final = struct.Struct("!I")

NICENESS: Final = 5
"""Behind the media, before the finishing of recordings: a browser waits for this."""

MOST_MEMORY: Final = 1 << 30
"""Bytes of address space: a message of 16 MB that is all small lists takes half of it."""

FOR_BETA: Final = 1
"""Flag of a request: a client of the beta's is to be told."""

FOR_INVITED: Final = 2
"""Flag of a request: an invited candidate is to be told, and so not everything."""

FOR_OPEN: Final = 4
"""Flag of a request: an open client is to be told, and so not our instructions."""

WITH_CHOSEN: Final = 8
"""Flag of a request: it holds the digest of the instructions that this client chose."""

DIGEST_BYTES: Final = 32

Answer = Reading | str
"""What was found, or in one word why nothing was: ``garbage`` or ``unreadable``."""


def answer(
    message: str,
    redactor: Redactor,
    flags: int,
    speech: SpeechRedactor | None = None,
    chosen: bytes | None = None,
) -> Answer:
    """Read one message. Never raises."""
    try:
        return read(
            message,
            redactor,
            is_beta=bool(flags & FOR_BETA),
            withholds=bool(flags & FOR_INVITED),
            blanks=bool(flags & FOR_OPEN),
            chosen=chosen,
            speech=speech,
        )
    except CallerError:
        return "garbage"
    except Exception:
        return "unreadable"


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Serve until the input ends."""
    first = _next(requests)
    if first is None:
        return
    redactor: Redactor
    speech: SpeechRedactor | None
    redactor, speech = pickle.loads(first)
    while (request := _next(requests)) is not None:
        flags = request[0]
        start = 1 + (DIGEST_BYTES if flags & WITH_CHOSEN else 0)
        text = str(memoryview(request)[start:], "utf-8", "surrogatepass")
        found = answer(text, redactor, flags, speech, request[1:start] or None)
        data = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
        answers.write(HEADER.pack(len(data)) + data)
        answers.flush()


def _next(source: BinaryIO) -> bytes | None:
    head = source.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    (size,) = HEADER.unpack(head)
    data = source.read(size)
    return data if len(data) == size else None


def _stand_back() -> None:
    os.nice(NICENESS)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, hard))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


if __name__ == "__main__":
    _stand_back()
    # A terminal's Ctrl-C reaches the whole group; the server ends us by closing our input.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.stdin.buffer, sys.stdout.buffer)
