"""Writes down what operators do: which key, what, when, and what became of it.

One table says of each route that operators use which act it is, or why it is none. A middleware
behind all others, in the process that answers, writes by that table:

- a reading before its first byte goes out, and only once for a while (``core.acts.Readings``);
- a change before it is made, and what became of it before that is answered;
- what is done to an interview that runs, and to the server, through the chronicle alone, which
  waits for the database in memory: such a thing must be possible while there is none.

So no change is made and nothing that was said goes out while it cannot be written down: the answer
is ``StateUnavailable`` then. Of refusals that had no effect each key has so many rows, and beyond
them one that tells how many there were (``core.acts.Refusals``).
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from weakref import WeakValueDictionary

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.exc import IntegrityError

from ..core import tokens
from ..core.acts import Act, Actor, Entry, Outcome, Reading, Readings, Refusals
from ..errors import (
    InsufficientScope,
    InterviewPeerError,
    RecordingNotReady,
    SessionBusy,
    StateUnavailable,
)
from ..notices.types import new_id
from ..state import acts
from ..state.chronicle import Chronicle
from ..state.database import Database
from ..state.happenings import Acted
from ..state.schema import now_us
from ..types import SessionId
from .access import KEY_ID_LENGTH, OPERATOR
from .forms import CODE, error_of

log = logging.getLogger(__name__)


class Kind(enum.Enum):
    """When an act is written down."""

    READING = "reading"
    CHANGE = "change"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A route whose every use is an act."""

    act: Act
    kind: Kind = Kind.CHANGE


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A route whose use is none."""

    because: str


_LISTS: Final = Unrecorded("It lists and describes; nothing that was said is in it.")
_ITSELF: Final = Unrecorded("It tells how the server fares, and of nobody.")
_TRANSCRIPT: Final = Recorded(Act.TRANSCRIPT_READ, Kind.READING)

ROUTES: Final[Mapping[str, Recorded | Unrecorded]] = {
    "POST /api/interviews": Recorded(Act.INTERVIEW_MADE),
    "GET /api/interviews": _LISTS,
    "GET /api/interviews/{interview_id}": _LISTS,
    "DELETE /api/interviews/{interview_id}": Recorded(Act.INTERVIEW_ERASED),
    "GET /api/interviews/{interview_id}/transcript": _TRANSCRIPT,
    "GET /api/interviews/{interview_id}/transcript.json": _TRANSCRIPT,
    "GET /api/interviews/{interview_id}/transcript.txt": _TRANSCRIPT,
    "GET /api/interviews/{interview_id}/transcript.vtt": _TRANSCRIPT,
    "GET /api/interviews/{interview_id}/transcript.srt": _TRANSCRIPT,
    "GET /api/interviews/{interview_id}/events": Recorded(Act.INTERVIEW_FOLLOWED, Kind.READING),
    # It may hold addresses at which the store gives the files to whoever has them.
    "GET /api/interviews/{interview_id}/recording": Recorded(Act.RECORDING_LISTED, Kind.READING),
    "GET /api/interviews/{interview_id}/recording/{which}": Recorded(
        Act.RECORDING_READ, Kind.READING
    ),
    "GET /api/interviews/{interview_id}/waveform": Unrecorded(
        "It tells how loud it was; nobody can be heard or known by that."
    ),
    "GET /api/interviews/{id}/deliveries": _LISTS,
    "POST /api/interviews/{interview_id}/end": Recorded(Act.INTERVIEW_ENDED, Kind.LIVE),
    "POST /api/interviews/{interview_id}/instruct": Recorded(Act.INTERVIEW_INSTRUCTED, Kind.LIVE),
    "POST /api/interviews/{interview_id}/say": Recorded(Act.INTERVIEW_SAID, Kind.LIVE),
    "POST /v1/realtime/calls/{call_id}/hangup": Recorded(Act.INTERVIEW_ENDED, Kind.LIVE),
    "POST /v1/realtime/client_secrets": Recorded(Act.CLIENT_SECRET_MADE),
    "GET /api/keys": _LISTS,
    "POST /api/keys": Recorded(Act.KEY_MADE),
    "DELETE /api/keys/{key_id}": Recorded(Act.KEY_REVOKED),
    "GET /api/webhooks": _LISTS,
    "POST /api/webhooks": Recorded(Act.WEBHOOK_MADE),
    "GET /api/webhooks/{id}": _LISTS,
    "PATCH /api/webhooks/{id}": Recorded(Act.WEBHOOK_CHANGED),
    "DELETE /api/webhooks/{id}": Recorded(Act.WEBHOOK_DELETED),
    "POST /api/webhooks/{id}/rotate": Recorded(Act.WEBHOOK_ROTATED),
    "POST /api/webhooks/{id}/test": Recorded(Act.WEBHOOK_TESTED),
    "GET /api/webhooks/deliveries": _LISTS,
    # Its body may be a turn, or a whole transcript.
    "GET /api/webhooks/deliveries/{id}": Recorded(Act.DELIVERY_READ, Kind.READING),
    "POST /api/webhooks/deliveries/{id}/retry": Recorded(Act.DELIVERY_RETRIED),
    "POST /api/webhooks/replay": Recorded(Act.DELIVERIES_REPLAYED),
    "GET /api/drain": _ITSELF,
    "POST /api/drain": Recorded(Act.DRAIN_BEGUN, Kind.LIVE),
    "GET /api/audit": _LISTS,
}
"""Every route that an operator's key opens, and no other."""

_PARTLY: Final = (RecordingNotReady.code, SessionBusy.code)
"""Refusals of an erasure that may have ended the interview before."""
SUM_SECONDS: Final = 60.0
"""How often it is written down how many refusals were left out."""
OVER_SECONDS: Final = 1.0
"""How long an answer waits until the outcome of its act is written down."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY_ID: Final = re.compile(rf"[0-9a-f]{{{KEY_ID_LENGTH}}}")
_SECRETS: Final = (tokens.ADMIN_PREFIX, tokens.RESUME_PREFIX, tokens.SDK_PREFIX, "whsec_")
"""What no id begins with. Whoever takes a key for its id puts the key into a path."""
_CALL: Final = "rtc_"
_GIVEN: Final = (200, 206)
"""Answers that hold what was asked for; by others the caller learns nothing new."""
_MAX_ADDRESS: Final = 64


@dataclass(slots=True)
class _UnderWay:
    """An act whose request is being answered."""

    recorded: Recorded
    interview_id: str | None
    object_id: str | None
    id: str = field(default_factory=lambda: new_id("act"))
    at: int = field(default_factory=now_us)
    read: Callable[[], Awaitable[None]] | None = None
    """Writes a reading down; none once it is written, and for what is no reading."""
    begun: bool = False
    """Whether it was written down before it was made."""
    in_effect: bool = False
    """Whether something of it may have been done."""

    def had_no_effect(self, refusal: int, code: str) -> bool:
        """Whether nothing was done, by the status and code of its refusal."""
        if not self.begun:
            return True
        return refusal < 500 and code not in _PARTLY and not self.in_effect

    def entry(
        self, request: web.Request, actor: Actor, outcome: Outcome, code: str | None = None
    ) -> Entry:
        """As it is kept."""
        address = request.remote
        return Entry(
            id=self.id,
            at=self.at,
            act=self.recorded.act,
            actor=actor,
            address=address[:_MAX_ADDRESS] if address else None,
            interview_id=self.interview_id,
            object_id=self.object_id,
            outcome=outcome,
            code=code,
        )


_UNDER_WAY: Final = web.RequestKey("act", _UnderWay)


def concerns(
    request: web.Request, *, interview_id: str | None = None, object_id: str | None = None
) -> None:
    """Say what a request was about, where its path does not."""
    act = request.get(_UNDER_WAY)
    if act is not None:
        act.interview_id = _id(interview_id) or act.interview_id
        act.object_id = _id(object_id) or act.object_id


def takes_effect(request: web.Request) -> None:
    """Say that from now on something may have been done, though the request be refused then."""
    act = request.get(_UNDER_WAY)
    if act is not None:
        act.in_effect = True


async def before_answer(request: web.Request) -> None:
    """Write the request's reading down, if it is one that was not yet.

    For handlers that send their answers themselves, before they prepare them: once an answer is
    prepared, no other can take its place.

    Raises:
        StateUnavailable: it cannot be, so nothing may be read.
    """
    act = request.get(_UNDER_WAY)
    if act is not None and act.read is not None:
        await act.read()
        act.read = None


class Acts:
    """Writes down the acts of one process."""

    def __init__(self, database: Database, chronicle: Chronicle) -> None:
        self._database = database
        self._tell = chronicle.tell
        self._readings = Readings()
        self._refusals = Refusals()
        self._summing: asyncio.TimerHandle | None = None
        self._writing = WeakValueDictionary[Reading, asyncio.Lock]()

    def add_to(self, app: web.Application) -> None:
        """Look at each answer before its first byte; the middleware is not added by this."""
        app.on_response_prepare.append(_not_unwritten)
        app.on_cleanup.append(self._close)

    @property
    def outer(self) -> Any:
        """A middleware for what is refused before it reaches the inner one, to be outside of all
        that looks at who asks."""

        @web.middleware
        async def kept_out(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except InsufficientScope as refused:
                act = _act_of(request)
                if act is not None and _UNDER_WAY not in request:
                    await self._refuse(request, act, refused.status, refused.code)
                raise

        return kept_out

    @property
    def middleware(self) -> Any:
        """The middleware, to be the innermost of all."""

        @web.middleware
        async def written_down(request: web.Request, handler: Handler) -> web.StreamResponse:
            act = _act_of(request)
            if act is None:
                return await handler(request)
            request[_UNDER_WAY] = act
            return await self._follow(request, handler, act)

        return written_down

    async def _follow(
        self, request: web.Request, handler: Handler, act: _UnderWay
    ) -> web.StreamResponse:
        kind, actor = act.recorded.kind, request.get(OPERATOR)
        if actor is not None and kind is Kind.READING:
            act.read = functools.partial(self._read, request, act, actor)
        elif actor is not None and kind is Kind.LIVE:
            act.begun = True
            self._tell_of(act.entry(request, actor, Outcome.BEGUN))
        try:
            if actor is not None and kind is Kind.CHANGE:
                act.begun = True
                await self._write(act.entry(request, actor, Outcome.BEGUN))
            response = await handler(request)
        except Exception as error:
            # What broke off after its beginning went out was read all the same.
            if kind is not Kind.READING or act.read is not None:
                told = error_of(error) or InterviewPeerError()
                await self._refuse(request, act, told.status, told.code)
            raise
        if response.status >= 400:
            code = response.get(CODE, InterviewPeerError.code)
            await self._refuse(request, act, response.status, code)
        elif kind is not Kind.READING:
            # A call is hung up by its candidate as well, whose act it is not: that is known by now.
            actor = request.get(OPERATOR)
            if actor is not None:
                await self._over(act, act.entry(request, actor, Outcome.DONE))
        elif response.status in _GIVEN:
            await before_answer(request)
        return response

    async def _read(self, request: web.Request, act: _UnderWay, actor: Actor) -> None:
        entry = act.entry(request, actor, Outcome.DONE)
        reading = _reading(entry)
        # Those that come at once are one as well.
        async with self._writing.setdefault(reading, asyncio.Lock()):
            if not self._readings.is_known(reading, time.monotonic()):
                await self._write(entry)
                self._readings.written(reading, time.monotonic())

    async def _refuse(self, request: web.Request, act: _UnderWay, refusal: int, code: str) -> None:
        """Write down that an act was refused, by status and code, if there is a row left for it."""
        actor, now = request.get(OPERATOR), time.monotonic()
        if actor is None:
            return
        entry = act.entry(request, actor, Outcome.REFUSED, code)
        if code == StateUnavailable.code:
            # An attempt to write it down may still come through: each such act needs its refusal.
            self._tell_of(entry)
            return
        # Of what was never begun one of a kind is enough.
        folds = not act.begun and (
            code == InsufficientScope.code or act.recorded.kind is Kind.READING
        )
        if folds and self._readings.is_known(_reading(entry), now):
            return
        if act.had_no_effect(refusal, code) and not self._refusals.take(actor, now):
            self._leave_out(entry)
            if not act.begun:
                return
            entry = replace(entry, left_out=True)
        elif folds:
            self._readings.written(_reading(entry), now)
        await self._over(act, entry)

    async def _over(self, act: _UnderWay, entry: Entry) -> None:
        """Write down what became of an act; if the database is away, as soon as it is back."""
        if act.recorded.kind is Kind.CHANGE and act.begun:
            try:
                return await self._write(entry, patience=OVER_SECONDS)
            except StateUnavailable:
                pass
        self._tell_of(entry)

    def _leave_out(self, entry: Entry) -> None:
        self._refusals.leave_out(entry.actor, entry.at)
        if self._summing is None:
            loop = asyncio.get_running_loop()
            self._summing = loop.call_later(SUM_SECONDS, self._sum_up)

    def _sum_up(self) -> None:
        """Write down how many refusals were left out."""
        self._summing = None
        for one in self._refusals.collect():
            log.warning(
                "refusals of a key were too many to be written down one by one",
                extra={"key": one.actor.id, "count": one.count},
            )
            self._tell_of(
                Entry(
                    id=new_id("act"),
                    at=one.at,
                    act=Act.REFUSALS_LEFT_OUT,
                    actor=one.actor,
                    address=None,
                    object_id=str(one.count),
                    outcome=Outcome.REFUSED,
                )
            )

    async def _close(self, app: web.Application) -> None:
        if self._summing is not None:
            self._summing.cancel()
            self._sum_up()

    def _tell_of(self, entry: Entry) -> None:
        self._tell(Acted(interview_id=SessionId(entry.interview_id or ""), entry=entry))

    async def _write(self, entry: Entry, patience: float | None = None) -> None:
        work = functools.partial(acts.write, entry=entry)
        try:
            await self._database.run(work, patience=patience)
        except IntegrityError:
            # By an attempt whose end was not heard of.
            pass


async def _not_unwritten(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Let no answer go out whose handler forgot to have it written down."""
    if isinstance(request, web.Request) and response.status in _GIVEN:
        await before_answer(request)


def _act_of(request: web.Request) -> _UnderWay | None:
    resource = request.match_info.route.resource
    if resource is None:
        return None
    # What HEAD tells is told by lists as well.
    recorded = ROUTES.get(f"{request.method} {resource.canonical}")
    if not isinstance(recorded, Recorded):
        return None
    named = request.match_info
    call = named.get("call_id", "")
    interview_id = named.get("interview_id") or call.removeprefix(_CALL)
    if "key_id" in named:
        key_id = named["key_id"]
        return _UnderWay(recorded, None, key_id if _KEY_ID.fullmatch(key_id) else None)
    return _UnderWay(recorded, _id(interview_id), _id(named.get("id")))


def _reading(entry: Entry) -> Reading:
    what = entry.object_id or entry.interview_id or ""
    return entry.actor.id, entry.act, what, entry.address or "", entry.code or ""


def _id(text: object) -> str | None:
    """An id that one of ours can be; nothing else that a caller writes is kept."""
    if not isinstance(text, str) or not _ID.fullmatch(text) or text.startswith(_SECRETS):
        return None
    return text
