"""Makes the connections of one interview, puts one in another's place, and closes them.

A browser's leg is made for what that browser may do, and the gate stands so before its first event
can come. Not responsible for what a connection that comes or goes means (``session.interview``),
nor for what flows between two (``session.bridge``).
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.flood import Budget
from ..core.gate import Client, Gate
from ..core.sdp import Offer
from ..errors import ConfigurationError, InterviewPeerError
from ..media.leg import Leg, LegListener
from ..tasks import Tasks
from ..types import Json, SessionId
from .bridge import Bridge
from .model_call import ModelCall
from .surroundings import Surroundings
from .tools import Toolbox

CLOSE_SECONDS: Final = 10.0
"""How long one leg or the hang-up may take to close before the ending goes on without it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one browser may say to the model: as whom, and what its interviewer changes of it."""

    client: Client
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Connections:
    """Of one interview: the browser's, and the call of the model that it is joined to."""

    def __init__(
        self,
        session_id: SessionId,
        around: Surroundings,
        listener: LegListener,
        bridge: Bridge,
        gate: Gate,
        tools: Toolbox,
        tasks: Tasks,
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """Begin without any.

        Args:
            listener: is told what happens to every leg made here.
            bridge: has the legs that are joined.
            gate: stands for the browser that is joined, and is told which tools the model has.
            tools: likewise.
            tasks: run what is closed without being waited for.
            log: the interview's.
        """
        self.call = ModelCall(around)
        """The call that is made or was made last."""
        self._id = session_id
        self._around = around
        self._listener = listener
        self._bridge = bridge
        self._gate = gate
        self._tools = tools
        self._tasks = tasks
        self._log = log
        # Of the interview, not of a leg: coming back does not fill it.
        self._budget = Budget(around.events_per_second)
        self._terms: weakref.WeakKeyDictionary[Leg, Terms] = weakref.WeakKeyDictionary()

    def new_browser(self, terms: Terms) -> Leg:
        """A leg for a browser; it has no part in anything until it is put in place."""
        leg = Leg(
            "browser",
            self._around.browser_port,
            self._listener,
            dtls_server=True,
            budget=self._budget,
        )
        self._terms[leg] = terms
        return leg

    def replace_browser(self, leg: Leg) -> None:
        """Join this leg, made by ``new_browser``, and close the one before."""
        old = self._bridge.browser
        self._join_browser(leg)
        if old is not None:
            self.close_later(old)

    def drop_browser(self) -> None:
        """Leave the model alone, and close the browser's leg."""
        gone = self._bridge.browser
        self._bridge.join(None, self._bridge.model)
        if gone is not None:
            self.close_later(gone)

    async def make_both(
        self, offer: Offer, terms: Terms, session: Json, tools: Sequence[str], by: float
    ) -> str:
        """Answer a browser and call the model at once; whoever gets an error is to ``undo``.

        Args:
            session: what the voice service is asked for.
            tools: names of the tools in it that the server runs.
            by: when (the loop's clock) it is too late.

        Raises:
            TimeoutError: it was.
            InvalidSdp, OutOfDescriptors, UpstreamError: as the browser's leg, its socket and the
                voice service have it; an upstream refusal before anything else.
        """
        browser = self.new_browser(terms)
        self._join_browser(browser)
        async with asyncio.timeout_at(by):
            try:
                async with asyncio.TaskGroup() as group:
                    answer = group.create_task(
                        browser.answer(offer), name=f"answer browser {self._id}"
                    )
                    group.create_task(
                        self._call_model(session, tools), name=f"call model {self._id}"
                    )
            except* InterviewPeerError as errors:
                raise _first(errors) from None
        return answer.result()

    async def undo(self) -> None:
        """Leave nothing of ``make_both``; it may be tried again."""
        legs = [leg for leg in (self._bridge.browser, self._bridge.model) if leg is not None]
        call, self.call = self.call, ModelCall(self._around)
        self._bridge.join(None, None)
        # Shielded, so that a cancelled caller leaves nothing half-open either.
        await asyncio.shield(self._tasks.start(self._close_all(legs, call), "abandon"))

    async def close_all(self, legs: Sequence[Leg]) -> None:
        """Close legs and hang up at once, each within its time; errors are logged, not raised."""
        await self._close_all(legs, self.call)

    def close_later(self, leg: Leg) -> None:
        """Close a leg without being waited for."""
        self._tasks.start(self._bridge.close(leg), "close leg of")

    def _join_browser(self, leg: Leg) -> None:
        terms = self._terms[leg]
        self._gate.serve(terms.client, terms.allow, terms.deny)
        # Whoever may configure the session may have brought tools of its own.
        self._tools.is_alone = terms.client is Client.INVITED
        self._bridge.join(leg, self._bridge.model)

    async def _call_model(self, session: Json, tools: Sequence[str]) -> None:
        leg = await self.call.open_leg(self._listener)
        self._bridge.join(self._bridge.browser, leg)
        self._gate.given = tuple(tools)
        self._tools.given = frozenset(tools)
        await self.call.place(leg, session)

    async def _close_all(self, legs: Sequence[Leg], call: ModelCall) -> None:
        closing = [self._bridge.close(leg) for leg in legs]
        work: list[Coroutine[Any, Any, None]] = [*closing, call.hang_up()]
        for result in await asyncio.gather(
            *(asyncio.wait_for(one, CLOSE_SECONDS) for one in work), return_exceptions=True
        ):
            if isinstance(result, BaseException):
                self._log.warning("closing failed", extra={"error": type(result).__name__})


def _first(errors: BaseExceptionGroup[InterviewPeerError]) -> InterviewPeerError:
    """The error to tell: an upstream refusal before anything else."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if not isinstance(error, ConfigurationError):
            return error
    return InterviewPeerError()
