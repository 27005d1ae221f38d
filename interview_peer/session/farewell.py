"""Ends an interview politely: the interviewer says goodbye, and then it is over.

It never takes longer than it was given, whatever the model does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..core.lifecycle import Reason
from ..errors import InterviewPeerError
from ..tasks import Tasks
from .control import Control


class Farewell:
    """The goodbye of one interview; there is one at most."""

    def __init__(
        self,
        control: Control,
        tasks: Tasks,
        end: Callable[[Reason], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """``end`` ends the interview at once."""
        self._control = control
        self._tasks = tasks
        self._end = end
        self._log = log
        self._deadline = 0.0
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        self.reason: Reason | None = None
        """Why the interview ends, once the goodbye was begun."""

    def begin(
        self, reason: Reason, seconds: float, *, instruction: str = "", words: str = ""
    ) -> None:
        """Say goodbye as `Control.part` does, and end after at most so many seconds.

        A second call changes nothing but the time, which can only become shorter.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        if self._task is None:
            self.reason, self._deadline = reason, deadline
            goodbye = self._say(reason, seconds, instruction, words)
            self._task = self._tasks.start(goodbye, "say goodbye in")
        elif deadline < self._deadline:
            self._deadline = deadline
            if self._limit is not None:
                self._limit.reschedule(deadline)

    async def _say(self, reason: Reason, seconds: float, instruction: str, words: str) -> None:
        try:
            async with asyncio.timeout_at(self._deadline) as self._limit:
                await self._control.part(seconds, instruction=instruction, words=words)
        except TimeoutError:
            self._control.counters["goodbyes_cut"] += 1
        except InterviewPeerError as error:
            self._log.info("no goodbye could be said", extra={"code": error.code})
        except Exception:
            self._log.exception("the goodbye failed")
        finally:
            self._limit = None
            self._end(reason)
