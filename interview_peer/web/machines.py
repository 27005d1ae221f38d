"""Lets requests about an interview be answered by the process that holds it.

Asked for each request that names an interview which this process does not hold. Only where several
processes share a database; what is decided, and why, is in ``core.machines``.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from ..core.lifecycle import WAITING
from ..core.machines import (
    PASSED_ON,
    REPLAYED,
    Here,
    Holder,
    Kind,
    PassOn,
    Refusal,
    Replay,
    Step,
    Subject,
    check,
    next_step,
    subject_of,
    without,
)
from ..errors import (
    HopRefused,
    InterviewElsewhere,
    OwnerUnreachable,
    SessionNotFound,
    StateUnavailable,
)
from ..session.registry import Interviews
from ..settings import Settings
from ..state.owners import Owners
from ..state.parts import StateParts
from ..types import INVITED, Json
from . import forms
from .delivery import comes_by_server
from .limits import Limits
from .passing import Passing

HOPS: Final = web.RequestKey("hops", int)
"""How often a request was passed on before."""


class Machines:
    """The middlewares of a process that may not be the only one."""

    def __init__(
        self, settings: Settings, interviews: Interviews, state: StateParts, limits: Limits
    ) -> None:
        self._interviews = interviews
        self._owners = Owners(state)
        self._on_fly = settings.machine_id is not None
        self._heartbeat = state.heartbeat
        self._passing = Passing(limits, settings.proxy_header)

    def add_to(self, app: web.Application) -> None:
        """Tie its connections to the application's life."""
        app.cleanup_ctx.append(self._passing.living)
        app.on_shutdown.append(self._passing.close)

    def statistics(self) -> Json:
        """Figures for operators."""
        return self._passing.statistics()

    @property
    def first(self) -> list[Any]:
        """Middlewares before any look at who asks."""

        @web.middleware
        async def passed_on(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await handler(self._received(request))

        return [passed_on]

    @property
    def last(self) -> list[Any]:
        """Middlewares behind every check that this process makes."""
        if self._heartbeat is None:
            return []

        @web.middleware
        async def route(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._route(request, handler)

        return [route]

    def _received(self, request: web.Request) -> web.Request:
        """The request as it came to the process that passed it on.

        Raises ``HopRefused`` if none did, whatever it says.
        """
        values = request.headers.getall(PASSED_ON, ())
        if not values:
            return request
        passed = None
        if self._heartbeat is not None and len(values) == 1:
            key, target = self._heartbeat.reach.key, request.rel_url.raw_path_qs
            passed = check(values[0], key, request.method, target)
        if passed is None:
            raise HopRefused
        received = request.clone(remote=passed.caller)
        received[HOPS] = passed.hops
        comes_by_server(request)
        return received

    async def _route(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        subject = subject_of(request.method, request.path)
        if subject is None:
            try:
                return await handler(request)
            except InterviewElsewhere as elsewhere:
                if elsewhere.interview_id is None or request.path not in forms.OFFER_PATHS:
                    raise
                subject, trouble = Subject(elsewhere.interview_id, Kind.LIVE), elsewhere
            holder = await self._holder(subject)
            if holder is None:
                raise trouble
            return await self._elsewhere(request, subject, holder, _raiser(trouble))
        holder = None if self._holds(subject.interview_id) else await self._holder(subject)
        if holder is None:
            return await handler(request)
        return await self._elsewhere(request, subject, holder, handler)

    def _holds(self, interview_id: str) -> bool:
        """Whether this process knows the interview, but for an invitation that anybody may take."""
        try:
            known = self._interviews.find(interview_id)
        except SessionNotFound:
            return False
        return known.phase not in WAITING or known.origin != INVITED

    async def _holder(self, subject: Subject) -> Holder | None:
        try:
            return await self._owners.find(subject.interview_id)
        except StateUnavailable:
            # What is here is had without the database; all else says so itself.
            return None

    async def _elsewhere(
        self, request: web.Request, subject: Subject, holder: Holder, here: Handler
    ) -> web.StreamResponse:
        hops: int = request.get(HOPS, 0)
        step: Step = next_step(
            holder,
            subject.kind,
            on_fly=self._on_fly,
            hops=hops,
            replayed=any(name in request.headers for name in REPLAYED),
            body_bytes=await _length(request),
        )
        if isinstance(step, PassOn):
            try:
                return await self._passing.pass_on(
                    request, subject.interview_id, step.machine, hops
                )
            except OwnerUnreachable:
                step = without(holder, subject.kind, Refusal.UNREACHABLE)
        if isinstance(step, Replay):
            # Whoever reads this and is not Fly.io's proxy learns that the interview is elsewhere.
            response = forms.error_response(request.path, InterviewElsewhere())
            response.headers["fly-replay"] = step.header
            return response
        if step is Refusal.UNREACHABLE:
            raise OwnerUnreachable
        if step is Refusal.ELSEWHERE:
            raise InterviewElsewhere
        try:
            return await here(request)
        except SessionNotFound:
            if isinstance(step, Here) and step.partly:
                raise OwnerUnreachable from None
            raise


def _raiser(trouble: InterviewElsewhere) -> Handler:
    async def here(request: web.Request) -> web.StreamResponse:
        raise trouble

    return here


async def _length(request: web.Request) -> int:
    if not request.body_exists:
        return 0
    return len(await request.read())
