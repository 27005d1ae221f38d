"""Ends the process when its event loop stands still: nobody else in it could.

A loop that is held for seconds forwards no audio, answers nobody and cannot end itself. Whatever
supervises the process starts it again; recovery then finishes the recordings and tells the ends.
What holds Python's own lock for ever (a library that hangs in C) stops this thread as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Final

from .core.stillness import Stillness

log = logging.getLogger(__name__)

EXIT_CODE: Final = 70
"""Of a process that was ended for this: a defect, in the numbers of BSD's sysexits."""

LOOKS: Final = 20
"""Looks within the time that the loop may stand still."""

STDERR: Final = 2

LAST_WORDS_SECONDS: Final = 2.0
"""How long telling may take: a log that nobody reads must not keep the process."""


@contextlib.contextmanager
def watching(
    seconds: float, end: Callable[[int], None] = os._exit, name: str = "watchdog"
) -> Iterator[None]:
    """Watch the running loop meanwhile; 0 watches nothing.

    Args:
        seconds: the loop may stand still for so long.
        end: ends the process with an exit code.
    """
    if not seconds:
        yield
        return
    dog = _Watchdog(asyncio.get_running_loop(), seconds, end)
    dog.start(name)
    try:
        yield
    finally:
        dog.close()


class _Watchdog:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, end: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._step = seconds / LOOKS
        self._end = end
        self._beat = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self, name: str) -> None:
        self._thread.name = name
        self._move()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _move(self) -> None:
        """On the loop: show that it goes round."""
        self._beat += 1
        self._timer = self._loop.call_later(self._step, self._move)

    def _watch(self) -> None:
        stillness = Stillness(self._seconds, self._step)
        while not self._stop.wait(self._step):
            if stillness.look(self._beat, time.monotonic()):
                self._bite()
                return

    def _bite(self) -> None:
        """Say where everybody stands, then end; also where nobody takes the words any more."""
        words = threading.Thread(target=self._tell, name="last words", daemon=True)
        words.start()
        words.join(LAST_WORDS_SECONDS)
        self._end(EXIT_CODE)

    def _tell(self) -> None:
        stacks = _stacks()
        while stacks:
            # Other threads go on meanwhile: one that nobody reads keeps this thread alone.
            stacks = stacks[os.write(STDERR, stacks) :]
        log.critical(
            "the event loop stood still; the process ends so that it can be started again",
            extra={"seconds": self._seconds, "exit_code": EXIT_CODE},
        )


def _stacks() -> bytes:
    """Where every thread stands. Names of functions and files alone; no values, so no secrets.

    They are written with Python's own lock held, so they go to a file: a full pipe would hold that
    lock for ever, and nobody could end the process any more.
    """
    with _scratch() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _scratch() -> IO[bytes]:
    """A file without a name: in memory where the system has such, else on the disk."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("stacks"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
