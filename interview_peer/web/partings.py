"""The open signalling connections of this process, told in order that it is about to end.

Who waits for an interview to begin is turned away as soon as none begins any more: to wait on would
be in vain, and another process, or this one after its restart, serves them as well. Interviews that
run go on, and so do their connections.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from aiohttp import web

CLOSE_SECONDS: Final = 2.0
"""How long all of them together may take to read the last word and to close."""


class Parting(Protocol):
    """A connection that can be ended in order."""

    @property
    def waits(self) -> bool:
        """Whether no interview has begun for it."""

    def turn_away(self) -> None:
        """Say why, then close; again is harmless."""

    def break_off(self) -> None:
        """Close without another word."""


class Partings:
    """Of one application. Belongs to the event loop."""

    def __init__(self) -> None:
        self.begun = False
        """Whether nothing begins here any more, so that nobody is to wait."""
        self._open: set[Parting] = set()
        self._gone = asyncio.Event()

    def enter(self, who: Parting) -> None:
        """It is open, until it leaves."""
        self._open.add(who)

    def leave(self, who: Parting) -> None:
        """It is closed. Idempotent."""
        self._open.discard(who)
        self._gone.set()

    def begin(self) -> None:
        """Turn away who waits, and whoever comes to wait from now on."""
        self.begun = True
        for who in tuple(self._open):
            if who.waits:
                who.turn_away()

    async def close(self, app: web.Application) -> None:
        """Turn away all that are left, and wait until they are closed; not for one that does not
        listen."""
        self.begun = True
        for who in tuple(self._open):
            who.turn_away()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._open:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            for who in tuple(self._open):
                who.break_off()
