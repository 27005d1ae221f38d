"""Runs the tools that the interviewer calls. The browser takes no part in it.

A call is run once the reply that holds it is finished, as the service wants it. What a tool returns
goes back to the model; a call that cannot be run is answered too, and the interview goes on.
"""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ..core.floor import Ending
from ..core.lifecycle import Reason
from ..core.realtime import ModelEvent, ReplyDone, ReplyStarted, ToolCalled
from ..core.tools import END_INTERVIEW, BadArguments, arguments_of
from ..errors import InterviewPeerError
from ..tasks import Tasks
from ..types import Json, ResponseId
from .control import Control
from .farewell import Farewell

GOODBYE_SECONDS: Final = 20.0
"""How long the goodbye of an interviewer that ends the interview may take."""

MAX_CALLS: Final = 8
"""Calls in one reply that are run; more are answered with an error."""

MAX_REPLIES: Final = 16
"""Replies with calls, or aside, that are remembered at a time."""

_GOES_ON: Final = (
    "The candidate spoke before your goodbye was over, so the interview goes on. Answer them. When "
    "it is really over, say goodbye and call end_interview again."
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, and what became of the reply that it came in."""

    arguments: Json
    spoke: bool
    """Whether anything was said in the reply, too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model is told, and what is done after that."""

    output: Json
    reply: bool = True
    """Whether the model is to say something about it."""
    then: Callable[[], Awaitable[None]] | None = None


_ENDING_ALREADY: Final = Outcome({"ok": True, "note": "The interview is ending already."})

Runner = Callable[[Call], Outcome]
"""Runs a tool, or says what is to be done after its answer; must return at once."""


class Toolbox:
    """The tools of one interview. ``take`` every event of the model's, after the control did."""

    def __init__(
        self,
        control: Control,
        farewell: Farewell,
        tasks: Tasks,
        end: Callable[[Reason], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """``end`` ends the interview at once."""
        self.given: frozenset[str] = frozenset()
        """Names of the tools that the model was told of."""
        self.is_alone = True
        """Whether no client may have tools of its own: then every call is ours to answer."""
        self._control = control
        self._farewell = farewell
        self._tasks = tasks
        self._end = end
        self._log = log
        self._runners: Mapping[str, Runner] = {END_INTERVIEW: self._end_interview}
        self._calls: collections.OrderedDict[ResponseId, list[ToolCalled]] = (
            collections.OrderedDict()
        )
        self._spoke: set[ResponseId] = set()
        self._aside: collections.deque[ResponseId] = collections.deque(maxlen=MAX_REPLIES)

    def take(self, event: ModelEvent) -> None:
        """Take in what the model told."""
        match event:
            case ReplyStarted(response_id, True):
                # Whoever asked for a reply outside of the conversation wants its calls as well.
                self._aside.append(response_id)
            case ToolCalled(response_id, name=name):
                if response_id in self._aside or not (self.is_alone or name in self.given):
                    return
                if len(self._calls) >= MAX_REPLIES:
                    forgotten, _ = self._calls.popitem(last=False)
                    self._spoke.discard(forgotten)
                self._calls.setdefault(response_id, []).append(event)
                if self._control.floor.spoke(response_id):
                    self._spoke.add(response_id)
            case ReplyDone(response_id, status):
                calls = self._calls.pop(response_id, [])
                spoke = response_id in self._spoke or self._control.floor.spoke(response_id)
                self._spoke.discard(response_id)
                if calls:
                    outcomes: list[tuple[str, Outcome]] = []
                    for number, call in enumerate(calls):
                        outcome = self._run(call, number, spoke, status)
                        if outcome.then is not None:
                            if any(one.then is not None for _, one in outcomes):
                                # Two goodbyes in one reply are one.
                                outcome = _ENDING_ALREADY
                        outcomes.append((call.call_id, outcome))
                    self._tasks.start(self._answer(outcomes), "answer tools of")
            case _:
                pass

    def _run(self, call: ToolCalled, number: int, spoke: bool, status: str | None) -> Outcome:
        counters = self._control.counters
        if status == "cancelled":
            counters["tools_interrupted"] += 1
            # The model answers whoever interrupted it anyway.
            return Outcome(_error("The reply was interrupted, so nothing was done."), reply=False)
        if status == "failed":
            # Of what it was to say nobody knows how much was heard. One that is merely incomplete
            # is another matter: only calls that are whole come here.
            counters["tools_interrupted"] += 1
            return Outcome(_error("The reply failed, so nothing was done."))
        runner = self._runners.get(call.name) if call.name in self.given else None
        if runner is None or number >= MAX_CALLS:
            counters["tools_unknown"] += 1
            return Outcome(
                _error("There is no such tool." if runner is None else "Too many calls.")
            )
        try:
            arguments = arguments_of(call.name, call.arguments)
        except BadArguments as error:
            counters["tools_refused"] += 1
            return Outcome(_error(str(error)))
        counters["tools_run"] += 1
        self._log.info("tool called", extra={"tool": call.name})
        return runner(Call(arguments, spoke))

    async def _answer(self, outcomes: list[tuple[str, Outcome]]) -> None:
        try:
            for call_id, outcome in outcomes:
                await self._control.insert(
                    {
                        "id": f"item_{secrets.token_hex(12)}",
                        "type": "function_call_output",
                        "call_id": call_id,
                        "output": json.dumps(outcome.output),
                    }
                )
        except InterviewPeerError as error:
            # The service has its reasons; what the tool is there for is done all the same.
            self._log.warning("a tool's output was not taken", extra={"code": error.code})
        after = [outcome.then for _, outcome in outcomes if outcome.then is not None]
        for then in after:
            await then()
        if not after and any(outcome.reply for _, outcome in outcomes):
            try:
                await self._control.respond(tools=False)
            except InterviewPeerError as error:
                self._log.warning("the model did not go on", extra={"code": error.code})

    # -- end_interview ----------------------------------------------------------------------------

    def _end_interview(self, call: Call) -> Outcome:
        control = self._control
        ended = control.ended
        if control.floor.sounding:
            return Outcome(
                {"ok": True, "note": "The interview ends when your goodbye was heard."},
                then=lambda: self._leave(ended),
            )
        if call.spoke:
            return Outcome({"ok": True}, then=self._leave_now)
        return Outcome(
            {"ok": True, "note": "Say goodbye in one sentence now; then the interview ends."},
            then=self._part,
        )

    async def _leave(self, ended: int) -> None:
        """End when what is being said was heard, unless the candidate interrupts it."""
        control = self._control
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                if await control.next_ending(ended) is Ending.CUT:
                    control.counters["goodbyes_interrupted"] += 1
                    await control.instruct(_GOES_ON)
                    return
        except (TimeoutError, InterviewPeerError):
            # Nothing is to be waited for any more.
            pass
        self._end(Reason.INTERVIEWER_ENDED)

    async def _leave_now(self) -> None:
        self._end(Reason.INTERVIEWER_ENDED)

    async def _part(self) -> None:
        self._farewell.begin(Reason.INTERVIEWER_ENDED, GOODBYE_SECONDS)


def _error(sentence: str) -> Json:
    return {"ok": False, "error": sentence}
