"""How many files and sockets this process may have open, and what happens when they run out.

An interview takes about seven. One that could not be recorded to its end is better not begun, so a
few descriptors are kept free for those that run. Not responsible for who opens what.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import OutOfDescriptors

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

WANTED: Final = 131_072
"""What the limit is raised to, if the machine permits: far more than one process can serve. Some
machines permit a thousand million, which programs that we start would walk through."""

PER_INTERVIEW: Final = 7
"""Model's socket, folder, three files, signalling and, while it is called, the service's HTTP."""

OF_OURS: Final = 64
"""Descriptors that the server itself has open: loop, listeners, database, log."""

SPARE: Final = 32
"""So many must be free for an interview to begin: for its own, and for those that run to end."""

REMIND_SECONDS: Final = 60.0
"""At most so often the log says that there are none left."""


def ran_out(error: BaseException) -> bool:
    """Whether an operation failed because this process or machine can open nothing more."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def raise_limit(wanted: int = WANTED) -> int | None:
    """Raise the soft limit towards the hard one, at most to ``wanted``; never lower it.

    Returns:
        The limit now; None where there is none, or none that can be read.
    """
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft < target:
        # macOS permits less than the hard limit says.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft


class Descriptors:
    """Whether an interview may begin, by what can still be opened.

    Args:
        limit: as ``raise_limit`` gives it.
        spare: how many must be free.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limit: int | None,
        *,
        spare: int = SPARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.refused = 0
        """Interviews and connections that were not taken for want of descriptors."""
        self._spare = spare
        self._clock = clock
        self._silent_until = float("-inf")

    def suffice_for(self, interviews: int) -> bool:
        """Whether the limit lets so many interviews run at once."""
        return self.limit is None or self.limit >= OF_OURS + SPARE + PER_INTERVIEW * interviews

    @property
    def open(self) -> int | None:
        """How many this process has open; None where the system does not tell."""
        try:
            return len(os.listdir("/proc/self/fd")) - 1
        except OSError:
            return None

    def require(self) -> None:
        """Refuse, and count, what would leave too few: opens as many as must be free for a moment.

        Raises:
            OutOfDescriptors: to be told to whom wanted to begin.
        """
        opened: list[int] = []
        try:
            while len(opened) < self._spare:
                opened.append(os.dup(opened[0]) if opened else os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if not ran_out(error):
                raise
            self.count()
            raise OutOfDescriptors from None
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def guard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what reaches the event loop: asyncio tells with a traceback, every second, that
        it could accept no connection. It tries again by itself."""
        error = context.get("exception")
        if error is not None and ran_out(error):
            self.count()
        else:
            loop.default_exception_handler(context)

    def count(self) -> None:
        """Note that somebody was refused; say so in the log once in a while."""
        self.refused += 1
        now = self._clock()
        if now >= self._silent_until:
            self._silent_until = now + REMIND_SECONDS
            log.warning(
                "too few files and sockets can be opened: interviews are refused until some close",
                extra={"refused": self.refused, "limit": self.limit},
            )
