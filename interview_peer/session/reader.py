"""Reads events that are too large for the event loop, in a process of its own.

Why a process: ``json`` holds the interpreter's lock for the whole of one message, so a thread would
hold up the media as long as the event loop itself does: 100 ms for 2.4 MB of small objects. And why
not pass such messages on unread: their words belong to the transcript, their tokens to the bill, a
key repeated in them must be masked, and a client of the beta's needs other names.

One process serves all interviews, one message after the other. It starts with the first large event
(which most interviews never see), and again after its death.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import sys
from typing import Final

from ..core.reading import Reading
from ..core.redaction import Redactor
from ..core.speech_redaction import SpeechRedactor
from ..errors import InvalidJson
from ..types import Json
from .reading_process import FOR_BETA, FOR_INVITED, FOR_OPEN, HEADER, WITH_CHOSEN, Answer

log = logging.getLogger(__name__)

READ_SECONDS: Final = 10.0
"""How long one message may take; the largest there can be takes about one second."""

ATTEMPTS: Final = 2
"""How often a message is tried at whose reading the process dies: it need not be to blame."""

SLICE_BYTES: Final = 128 * 1024
"""Handed to the process at a time: the event loop turns between two slices."""


class Unreadable(Exception):
    """The event could not be read: the process died of it, or took too long, or cannot start."""


class EventReader:
    """Owner of the process. All methods belong to the event loop."""

    def __init__(self, redactor: Redactor, speech: SpeechRedactor | None = None) -> None:
        self._redactors = redactor, speech
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._closed = False
        self.events = 0
        """Events read."""
        self.deaths = 0
        """Processes that died, hung or did not start."""
        self.unreadable = 0
        """Events given up."""

    async def read(
        self,
        message: str,
        *,
        is_beta: bool,
        withholds: bool = False,
        blanks: bool = False,
        chosen: bytes | None = None,
    ) -> Reading:
        """Read one message of the model's, after those that others asked for before.

        Args:
            is_beta: whether the browser that is to be told speaks the beta's dialect.
            withholds: whether it is an invited candidate's, who is not told all.
            blanks: whether it is an open client's, who is told no instructions of ours.
            chosen: the digest of the instructions that this client chose, if it did.

        Raises:
            InvalidJson: it is no event.
            Unreadable: it is given up.
        """
        flags = FOR_BETA * is_beta | FOR_INVITED * withholds | FOR_OPEN * blanks
        if chosen is not None:
            flags |= WITH_CHOSEN
        head = bytes([flags]) + (chosen or b"")
        async with self._turn:
            for _ in range(ATTEMPTS):
                if self._closed:
                    break
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        answer = await self._ask(message, head)
                except (OSError, EOFError, TimeoutError) as error:
                    self.deaths += 1
                    log.error("the reader of events died", extra={"error": type(error).__name__})
                    await self._end()
                    continue
                except BaseException:
                    # Half a request or half an answer is under way.
                    await self._end()
                    raise
                self.events += 1
                if isinstance(answer, Reading):
                    return answer
                if answer == "garbage":
                    raise InvalidJson
                break
        self.unreadable += 1
        raise Unreadable

    def statistics(self) -> Json:
        """Figures for operators."""
        return {"read": self.events, "unreadable": self.unreadable, "deaths": self.deaths}

    async def close(self) -> None:
        """End the process; what is being read is given up. Idempotent."""
        self._closed = True
        await self._end()

    async def _ask(self, message: str, head: bytes) -> Answer:
        process = self._process
        if process is None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "interview_peer.session.reading_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await _write(process, b"", pickle.dumps(self._redactors))
        await _write(process, head, message.encode("utf-8", "surrogatepass"))
        assert process.stdout is not None
        (size,) = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
        answer: Answer = pickle.loads(await process.stdout.readexactly(size))
        return answer

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _write(process: asyncio.subprocess.Process, head: bytes, data: bytes) -> None:
    """Hand over one frame, slice by slice."""
    stdin = process.stdin
    assert stdin is not None
    stdin.write(HEADER.pack(len(head) + len(data)) + head)
    view = memoryview(data)
    for start in range(0, len(view), SLICE_BYTES):
        stdin.write(bytes(view[start : start + SLICE_BYTES]))
        await stdin.drain()
