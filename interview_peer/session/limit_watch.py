"""Keeps an interview within its time and its tokens: warns it once, then has it end politely.

When which of these is due is decided by ``core.limits``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..core.lifecycle import Reason
from ..core.limits import GOODBYES, Limits, Over, Parting, Warned
from ..errors import InterviewPeerError
from ..tasks import Tasks
from .control import Control
from .farewell import Farewell


class LimitWatch:
    """Of one interview, which asks it to ``look`` from time to time."""

    def __init__(
        self,
        max_seconds: float | None,
        max_tokens: int | None,
        control: Control,
        farewell: Farewell,
        tasks: Tasks,
        log: logging.LoggerAdapter[logging.Logger],
        *,
        warn: Callable[[Warned], None],
        part: Callable[[Reason, float, str], None],
        end: Callable[[Reason], None],
    ) -> None:
        """Begin with the limits that every interview of this server has.

        Args:
            max_seconds: how long it may last; None has no limit.
            max_tokens: how many tokens it may use; None has no limit.
            control: tells the model that the end is near.
            farewell: knows whether a goodbye is being said already.
            tasks: run the telling.
            log: the interview's.
            warn: has everybody else told that the end is near.
            part: ends it, so many seconds from now at the latest, after a goodbye for which the
                model is given this instruction.
            end: ends it at once.
        """
        self.max_seconds = max_seconds
        self.max_tokens = max_tokens
        self._control = control
        self._farewell = farewell
        self._tasks = tasks
        self._log = log
        self._warn = warn
        self._part = part
        self._end = end
        self._limits = Limits()

    def look(
        self, lasted: float, *, own_seconds: float | None, model_left: float | None, used: int
    ) -> None:
        """Warn, part or end, if what is so now asks for it.

        Args:
            lasted: seconds since the interview began.
            own_seconds: how many of them this very interview may last; None has no limit.
            model_left: seconds until the voice service ends its session; None if not known.
            used: tokens so far, by the service's count.
        """
        longest = [one for one in (own_seconds, self.max_seconds) if one is not None]
        step = self._limits.look(
            lasted,
            longest=min(longest, default=None),
            model_left=model_left,
            used=used,
            most=self.max_tokens,
        )
        parting_for = self._farewell.reason
        match step:
            case Warned() if parting_for is None:
                self._warn(step)
                self._tasks.start(self._instruct(step.instruction), "warn the model of")
            case Parting(reason, seconds):
                self._part(reason, seconds, GOODBYES[reason])
            case Over(reason):
                self._end(parting_for or reason)
            case _:
                pass

    async def _instruct(self, text: str) -> None:
        try:
            await self._control.instruct(text)
        except InterviewPeerError as error:
            # It ends all the same, only less gracefully.
            self._log.info("the model was not warned", extra={"code": error.code})
