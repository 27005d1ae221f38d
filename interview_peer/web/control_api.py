"""Taking part in an interview that runs: instructions to the model, and words it is to say.

Requests are read and answers shaped here. What was asked for goes on although whoever asked is
gone, so that a request can be repeated; its text is in no log.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import pydantic
from aiohttp import web
from pydantic import AfterValidator, Field

from ..core.allowance import Allowance
from ..core.lifecycle import Phase
from ..errors import (
    IdempotencyConflict,
    InterviewNotLive,
    InvalidField,
    RateLimited,
    SessionEnded,
)
from ..session.interview import Interview
from ..tasks import Tasks
from ..types import Json
from . import forms, new_interview
from .acts import takes_effect
from .interview_store import Goodbye, InterviewStore
from .interviews_api import PATH, interview_id
from .new_interview import MAX_KEY, Strict, Text

MAX_INSTRUCTION: Final = 8_000
"""Characters of a system message: all that the model reads is paid for with every reply."""
MAX_WORDS: Final = 2_000
"""Characters to be said: some two minutes."""
MAX_GOODBYE_SECONDS: Final = 60
DEFAULT_GOODBYE_SECONDS: Final = 20

PER_SECOND: Final = 1.0
AT_ONCE: Final = 10
"""Requests for one interview."""

BEGIN_SECONDS: Final = 20.0
"""How long an answer waits for the words to begin; proxies cut what takes longer."""

MAX_REMEMBERED: Final = 1_000
"""Requests with an idempotency key that are remembered, of all interviews."""

T = TypeVar("T", bound=pydantic.BaseModel)

_Filled = AfterValidator(new_interview.filled)


class Instruct(Strict):
    """A system message."""

    text: Annotated[Text, Field(max_length=MAX_INSTRUCTION), _Filled]
    respond: bool = False
    interrupt: bool = False


class Say(Strict):
    """Words to be said."""

    text: Annotated[Text, Field(max_length=MAX_WORDS), _Filled]
    interrupt: bool = False


class End(Strict):
    """How to end."""

    say: Annotated[Text, Field(max_length=MAX_WORDS), _Filled] | None = None
    politely: bool = False
    seconds: Annotated[int, Field(ge=1, le=MAX_GOODBYE_SECONDS)] | None = None


@dataclass(slots=True)
class _Asked:
    """A request with a key, and what comes of it."""

    fingerprint: str
    task: asyncio.Task[None]
    told: Json
    """The answer, filled while the task goes on."""

    @property
    def failed(self) -> bool:
        """Whether nothing, or only a part, came of it."""
        task = self.task
        return task.done() and (task.cancelled() or task.exception() is not None)


class ControlApi:
    """The routes of what is said in an interview by others than its two speakers."""

    def __init__(self, store: InterviewStore, whole: Callable[[str], Awaitable[Json]]) -> None:
        """``whole`` tells an interview as ``GET`` does."""
        self._store = store
        self._whole = whole
        self._allowed = Allowance(PER_SECOND, AT_ONCE)
        self._asked: OrderedDict[tuple[str, str, str], _Asked] = OrderedDict()
        self._tasks = Tasks("for operators")

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post(PATH + "/{interview_id}/instruct", self.instruct)
        app.router.add_post(PATH + "/{interview_id}/say", self.say)
        app.router.add_post(PATH + "/{interview_id}/end", self.end)
        app.on_cleanup.append(lambda app: self._tasks.drain(0))

    async def instruct(self, request: web.Request) -> web.Response:
        """Tell the model something that the candidate does not hear, and have it speak if asked."""
        body = await forms.read_json(request)
        wanted = _read(Instruct, body)
        if wanted.interrupt and not wanted.respond:
            raise InvalidField("interrupt", "interrupt: is for a request that has respond.")
        phases = {Phase.LIVE} if wanted.respond else {Phase.LIVE, Phase.DETACHED}

        async def work(interview: Interview, told: Json) -> None:
            control = interview.control
            # Asked again after the reply was refused, the model knows it already.
            is_new = told["item_id"] is None
            if not wanted.respond:
                told["item_id"] = await control.instruct(wanted.text)
                return
            # Before the model is told anything: what cannot be answered is refused as a whole.
            with control.place():
                if is_new:
                    told["item_id"] = await control.instruct(wanted.text)
                told["response_id"] = await control.respond(interrupt=wanted.interrupt, placed=True)

        return await self._do(request, body, phases, work)

    async def say(self, request: web.Request) -> web.Response:
        """Have the interviewer say something; answers when it begins, or is still to come."""
        body = await forms.read_json(request)
        wanted = _read(Say, body)

        async def work(interview: Interview, told: Json) -> None:
            said = await interview.control.say(wanted.text, interrupt=wanted.interrupt)
            told["response_id"] = said

        return await self._do(request, body, {Phase.LIVE}, work)

    async def end(self, request: web.Request) -> web.Response:
        """End an interview, at once or after a goodbye.

        The answer comes when it is over, or 15 seconds after the time for the goodbye.
        """
        name = interview_id(request)
        wanted = End()
        if request.can_read_body and (await request.read()):
            wanted = _read(End, await forms.read_json(request))
        goodbye = None
        if wanted.politely or wanted.say is not None:
            goodbye = Goodbye(wanted.seconds or DEFAULT_GOODBYE_SECONDS, wanted.say)
        elif wanted.seconds is not None:
            raise InvalidField("seconds", "seconds: is for a request that has say or politely.")
        await self._store.end(name, goodbye=goodbye)
        takes_effect(request)
        return web.json_response(await self._whole(name))

    async def _do(
        self,
        request: web.Request,
        body: Json,
        phases: set[Phase],
        work: Callable[[Interview, Json], Coroutine[Any, Any, None]],
    ) -> web.Response:
        """Do ``work`` with the interview, or answer what an earlier request came to."""
        name, key = interview_id(request), _key(request)
        place = (name, request.path, key or "")
        fingerprint = new_interview.fingerprint(body)
        known = self._asked.get(place) if key is not None else None
        if known is not None:
            if known.fingerprint != fingerprint:
                raise IdempotencyConflict
        if known is not None and not known.failed:
            return await self._answer(known, {"Idempotent-Replayed": "true"})
        interview = await self._store.held(name)
        if interview.phase not in phases:
            raise SessionEnded if interview.reason is not None else InterviewNotLive
        if not self._allowed.take(name, time.monotonic()):
            interview.control.counters["rate_limited"] += 1
            raise RateLimited
        interview.touch()
        told: Json = {"item_id": None, "response_id": None} if known is None else known.told
        takes_effect(request)
        task = self._tasks.start(work(interview, told), "take part")
        asked = _Asked(fingerprint, task, told)
        if key is not None:
            self._remember(place, asked)
        return await self._answer(asked, {})

    async def _answer(self, asked: _Asked, headers: dict[str, str]) -> web.Response:
        # Not cancelled with the request: what was begun is finished, and can be asked for again.
        await asyncio.wait({asked.task}, timeout=BEGIN_SECONDS)
        status = 202
        if asked.task.done():
            # Raises what it failed by.
            asked.task.result()
            status = 200
        return web.json_response(asked.told, status=status, headers=headers)

    def _remember(self, place: tuple[str, str, str], asked: _Asked) -> None:
        self._asked[place] = asked
        if len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)

        def done(task: asyncio.Task[None]) -> None:
            # What failed may be tried again; what was done of it is not done twice.
            nothing = asked.failed and asked.told["item_id"] is None
            if nothing and self._asked.get(place) is asked:
                del self._asked[place]

        asked.task.add_done_callback(done)


def _read(form: type[T], body: Json) -> T:
    try:
        return form.model_validate(body)
    except pydantic.ValidationError as error:
        refused = new_interview.refusal(error)
    # Outside of the handler: the validation error holds what was given.
    raise refused


def _key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise InvalidField("Idempotency-Key", f"Idempotency-Key: 1 to {MAX_KEY} characters.")
    return key
