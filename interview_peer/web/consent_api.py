"""``/api/consent/{id}``: agreeing to being recorded, for clients that use no WebSocket."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ..errors import ConsentOutdated, InterviewPeerError
from ..session.interview import Interview
from . import forms, messages
from .consents import status
from .joining import Joining
from .limits import Limits

PATH: Final = "/api/consent/{session_id}"


class ConsentPaths:
    """The routes. An invited candidate shows the token that opens the interview."""

    def __init__(self, joining: Joining, limits: Limits) -> None:
        self._joining = joining
        self._limits = limits

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        router.add_get(PATH, self.get)
        router.add_post(PATH, self.post)

    async def get(self, request: web.Request) -> web.Response:
        """The text, and whether it was agreed to."""
        admission = await self._joining.admit(request)
        name = request.match_info["session_id"]
        interview = await self._joining.enter(admission, name, must_exist=True)
        return web.json_response(status(interview))

    async def post(self, request: web.Request) -> web.Response:
        """Agree or refuse. The text comes along where another version was agreed to."""
        # It may make a session, as a socket does.
        self._limits.socket(request.remote)
        admission = await self._joining.admit(request)
        agreed, version = messages.consent(await forms.read_message(request))
        interview = await self._joining.enter(admission, request.match_info["session_id"])
        try:
            await self._joining.consents.decide(interview, agreed=agreed, version=version)
        except ConsentOutdated as error:
            return self._refused(request, error, interview)
        return web.json_response(status(interview))

    def _refused(
        self, request: web.Request, error: InterviewPeerError, interview: Interview
    ) -> web.Response:
        body = {**forms.error_body(request.path, error), "consent": status(interview)}
        return web.json_response(body, status=error.status)
