"""``/readyz`` and ``/api/drain``: whether new interviews should be sent here, and emptying it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import web

from ..errors import AtCapacity, InvalidField, StateUnavailable
from ..session.drain import Drain
from ..session.openings import Openings
from ..session.registry import Interviews
from ..state.parts import StateParts
from ..types import Json
from . import forms

READY: Final = "/readyz"
DRAIN: Final = "/api/drain"
MOST_SECONDS: Final = 86_400
PING_SECONDS: Final = 1.0
"""How long the database may take to answer, and how long its answer is good for."""

RECOVERING: Final = "RECOVERING"
DISK_UNUSABLE: Final = "DISK_UNUSABLE"


class Readiness:
    """Whether this server should get new interviews; not whether it is well (``/healthz``)."""

    def __init__(self, interviews: Interviews, openings: Openings, state: StateParts) -> None:
        self._interviews = interviews
        self._openings = openings
        self._state = state
        self._asking: asyncio.Task[bool] | None = None
        self._asked_at = -PING_SECONDS
        self._answers = False

    async def reasons(self) -> list[str]:
        """Codes of all that speaks against it; none where it is ready."""
        found = [one.code for one in self._openings.hindrances(self._interviews.running)]
        if self._interviews.crowded and AtCapacity.code not in found:
            found.append(AtCapacity.code)
        if not self._state.recovered.is_set():
            found.append(RECOVERING)
        if self._openings.disk_unusable:
            found.append(DISK_UNUSABLE)
        if not await self._database_answers():
            found.append(StateUnavailable.code)
        return found

    async def close(self) -> None:
        """Leave no question open."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    async def _database_answers(self) -> bool:
        """One question at a time, whoever asks how often."""
        if self._asking is None and time.monotonic() - self._asked_at < PING_SECONDS:
            return self._answers
        if self._asking is None:
            self._asking = asyncio.create_task(self._ping(), name="ask the database")
        return await asyncio.shield(self._asking)

    async def _ping(self) -> bool:
        try:
            await self._state.database.ping(patience=PING_SECONDS)
            self._answers = True
        except StateUnavailable:
            self._answers = False
        finally:
            self._asked_at = time.monotonic()
            self._asking = None
        return self._answers


class OperationsApi:
    """The routes."""

    def __init__(self, readiness: Readiness, drain: Drain) -> None:
        self._readiness = readiness
        self._drain = drain

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get(READY, self.ready)
        app.router.add_get(DRAIN, self.show)
        app.router.add_post(DRAIN, self.begin)
        app.on_cleanup.append(self._close)

    async def ready(self, request: web.Request) -> web.Response:
        """200 where new interviews are welcome, else 503 with what speaks against it."""
        reasons = await self._readiness.reasons()
        body: Json = {"status": "not_ready" if reasons else "ready", "reasons": reasons}
        return web.json_response(body, status=503 if reasons else 200)

    async def show(self, request: web.Request) -> web.Response:
        """How far it is."""
        return web.json_response(self._drain.document())

    async def begin(self, request: web.Request) -> web.Response:
        """Begin to drain, or change how long that may take."""
        body = await forms.read_json(request) if request.can_read_body else {}
        seconds, exit_after = _asked(body)
        self._drain.begin(seconds, exit_after=exit_after)
        return web.json_response(self._drain.document(), status=202)

    async def _close(self, app: web.Application) -> None:
        await self._readiness.close()


def _asked(body: Json) -> tuple[float | None, bool]:
    if set(body) - {"seconds", "exit"}:
        raise InvalidField("body", "body: takes seconds and exit alone.")
    seconds, exit_after = body.get("seconds"), body.get("exit", False)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
        seconds = -1
    if seconds is not None and not 0 <= seconds <= MOST_SECONDS:
        raise InvalidField("seconds", f"seconds: must be a number from 0 to {MOST_SECONDS}.")
    if not isinstance(exit_after, bool):
        raise InvalidField("exit", "exit: must be true or false.")
    return seconds, exit_after
