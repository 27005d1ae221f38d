"""The signals that end the process: the first one asks, any further one ends it on the spot.

On the spot is like a crash: nothing is cleaned up, the next start finishes what lies there. Should
the orderly way hang, or hold the event loop, it still works, and as first process of a container
too, where the kernel drops signals that nobody handles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from . import logs

STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A closed terminal is a wish to end, too, unless we were started to outlive it."""

STDERR: Final = 2

LAST_WORDS_SECONDS: Final = 0.5
"""How long a full pipe is waited for before the last line: perhaps nobody reads it."""


class StopSignals:
    """Of one run of an event loop, in the process's main thread."""

    def __init__(self) -> None:
        self.heard = False
        """Whether somebody has asked for the end."""
        self._listened: tuple[signal.Signals, ...] = ()

    def listen(self, ask: Callable[[signal.Signals], None]) -> None:
        """Have ``ask`` called with the first signal, on the running loop; before it, none counts as
        heard. ``keep`` goes with it once the loop is closed."""
        loop = asyncio.get_running_loop()
        self._listened = tuple(number for number in STOPS if not _unwanted(number))
        for number in self._listened:
            # The loop's own handler wakes it and calls; ours stands before it and counts, also
            # while the loop is held.
            loop.add_signal_handler(number, ask, number)
            signal.signal(number, self._hear)

    def ask(self) -> None:
        """Somebody asks otherwise than by a signal: the next signal is a further one."""
        if self.heard:
            end_at_once(signal.SIGTERM)
        self.heard = True

    def keep(self) -> None:
        """A loop that is closed has given its handlers back: stay until the process is gone."""
        if self.heard:
            for number in self._listened:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            end_at_once(number)
        self.heard = True


def _unwanted(number: signal.Signals) -> bool:
    """Whether whoever started us has it ignored, as ``nohup`` does."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def end_at_once(number: int) -> NoReturn:
    """End the process as a crash would, with the exit code that shells give to this signal.

    Child processes notice by themselves that their parent is gone.
    """
    # Nothing here waits for a lock: what was interrupted may hold it.
    with contextlib.suppress(Exception):
        _, writable, _ = select.select((), (STDERR,), (), LAST_WORDS_SECONDS)
        if writable:
            os.write(STDERR, f"{logs.last_line('Stopped at once.')}\n".encode())
    os._exit(128 + number)
