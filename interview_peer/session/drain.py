"""Empties a server: nothing new begins, what runs may finish, then the rest is ended politely.

Asked for by a signal or over HTTP. Whether the process ends afterwards is its owner's to do, who
waits for ``over``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from ..core.lifecycle import Phase, Reason
from ..tasks import stop
from ..types import Json
from .interview import Interview
from .openings import Openings
from .registry import Interviews

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.1
POLITE_SECONDS: Final = 15.0
"""How long an interviewer may take to say goodbye, once the time of an interview is up."""
GOODBYE: Final = (
    "The interview has to end now, for a technical reason that is not the candidate's fault. "
    "In one or two short sentences: apologise, thank the candidate and say goodbye. Ask nothing."
)
END_SECONDS: Final = 60.0
"""For an end with its files and connections, each of which has bounds of its own."""


class State(StrEnum):
    """How far it is."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


class Drain:
    """Of one server. Belongs to the event loop."""

    def __init__(
        self,
        interviews: Interviews,
        openings: Openings,
        *,
        seconds: float,
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        """``seconds`` is how long interviews may go on, unless a request says otherwise;
        ``finish`` waits for what is left to do after them, and has bounds of its own."""
        self._interviews = interviews
        self.openings = openings
        self._seconds = seconds
        self._finish = finish
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._changed = asyncio.Event()
        self._polite = False
        self._began_at: datetime | None = None
        self._limit_at: datetime | None = None
        self._exit = False
        self.state = State.SERVING
        self.over = asyncio.Event()
        """Set when nothing is left to do and the process is to end."""

    def begin(self, seconds: float | None = None, *, exit_after: bool = False) -> None:
        """Begin, or change how long it may take; returns at once.

        Args:
            seconds: from now, until interviews that still run are ended; None is the setting's, or
                what an earlier request left. Zero ends them without a goodbye, also while
                goodbyes are said.
            exit_after: the process is to end then. Once asked for it stays so.
        """
        limit = self._seconds if seconds is None else seconds
        if self._task is None or seconds is not None:
            self._set_limit(limit)
        self._exit = self._exit or exit_after
        if self._task is None:
            self._began_at = datetime.now(UTC)
            self.state = State.DRAINING
            self.openings.close()
            log.warning(
                "draining: no interview begins any more",
                extra={"running": self._interviews.running, "seconds": limit, "exit": exit_after},
            )
            self._task = asyncio.create_task(self._run(), name="drain")
        elif self.state is State.DRAINED and self._exit:
            self.over.set()

    def signalled(self) -> None:
        """Begin and end the process then. Of the time that is left no more stays than the
        setting's: whoever signals counts on that, and kills a process that takes longer."""
        end = asyncio.get_running_loop().time() + self._seconds
        if self._task is not None and end < self._deadline:
            self._set_limit(self._seconds)
        self.begin(exit_after=True)

    def _set_limit(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._limit_at = datetime.now(UTC) + timedelta(seconds=seconds)
        self._polite = seconds > 0
        self._changed.set()

    def document(self) -> Json:
        """How far it is, for an API."""
        return {
            "state": self.state.value,
            "interviews": self._interviews.running,
            "since": _told(self._began_at),
            "until": _told(self._limit_at),
            "exit": self._exit,
        }

    async def close(self) -> None:
        """Stop, wherever it is. Idempotent."""
        # It stays known, so that a signal that comes in the middle of the end begins no other.
        await stop(self._task)

    async def _run(self) -> None:
        try:
            await self._wait()
            await self._end_rest()
            await self._finish()
        except Exception:
            # Whoever asked for the end gets it all the same.
            log.exception("draining broke")
        self.state = State.DRAINED
        log.warning("drained", extra={"exit": self._exit})
        if self._exit:
            self.over.set()

    async def _wait(self) -> None:
        """Until no interview runs, or the time is up; a request may change that meanwhile."""
        loop = asyncio.get_running_loop()
        while self._interviews.running and (left := self._deadline - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await self._changed.wait()
            self._changed.clear()

    async def _end_rest(self) -> None:
        left = self._interviews.still_running()
        if not left:
            return
        log.warning("interviews are ended, for the server is", extra={"running": len(left)})
        self._changed.clear()
        hurry = asyncio.create_task(self._hurry(left), name="hurry goodbyes")
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*map(self._end, left))
        except TimeoutError:
            log.error("not every interview ended in time")
        finally:
            await stop(hurry)

    async def _hurry(self, left: list[Interview]) -> None:
        """End those that still say goodbye, once nobody wants to wait for it any more."""
        while self._polite:
            await self._changed.wait()
            self._changed.clear()
        for interview in left:
            if interview.phase is Phase.LIVE:
                interview.end_soon(Reason.SERVER_SHUTDOWN)

    async def _end(self, interview: Interview) -> None:
        try:
            if await self._interviews.call_off(interview):
                return
            if self._polite:
                await interview.end_politely(
                    Reason.SERVER_SHUTDOWN, instruction=GOODBYE, seconds=POLITE_SECONDS
                )
            else:
                await interview.end(Reason.SERVER_SHUTDOWN)
        except Exception:
            log.exception("an interview did not end", extra={"session": interview.id})


def _told(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")
