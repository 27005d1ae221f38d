"""The HTTP paths of webhooks: endpoints, deliveries, sending again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from ..errors import InvalidWebhook, SessionNotFound
from ..notices.desk import Desk
from . import forms
from .acts import concerns

PREFIX = "/api/webhooks"

Authorise = Callable[[web.Request], Awaitable[None]]
"""Lets an operator through and raises ``Unauthorized`` for anybody else."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebhooksApi:
    """The routes. Every one of them asks ``authorise`` first."""

    def __init__(self, desk: Desk, authorise: Authorise) -> None:
        self._desk = desk
        self._authorise = authorise

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        for method, path, handler in (
            ("GET", "", self.list),
            ("POST", "", self.create),
            ("GET", "/deliveries", self.deliveries),
            ("GET", "/deliveries/{id}", self.delivery),
            ("POST", "/deliveries/{id}/retry", self.retry),
            ("POST", "/replay", self.replay),
            ("GET", "/{id}", self.show),
            ("PATCH", "/{id}", self.change),
            ("DELETE", "/{id}", self.remove),
            ("POST", "/{id}/rotate", self.rotate),
            ("POST", "/{id}/test", self.test),
        ):
            app.router.add_route(method, PREFIX + path, self._guarded(handler))
        app.router.add_get("/api/interviews/{id}/deliveries", self._guarded(self.of_interview))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            await self._authorise(request)
            return await handler(request)

        return guarded

    async def list(self, request: web.Request) -> web.Response:
        """Every endpoint."""
        return web.json_response({"webhooks": await self._desk.endpoints()})

    async def create(self, request: web.Request) -> web.Response:
        """Keep an endpoint; the only answer, but for a rotation's, that holds its secret."""
        key = request.headers.get("Idempotency-Key")
        made, repeated = await self._desk.create(await forms.read_json(request), key)
        concerns(request, object_id=made["id"])
        headers = {"Location": f"{PREFIX}/{made['id']}"}
        if repeated:
            headers["Idempotent-Replayed"] = "true"
        return web.json_response(made, status=201, headers=headers)

    async def show(self, request: web.Request) -> web.Response:
        """One endpoint and the states of its deliveries."""
        return web.json_response(await self._desk.endpoint(request.match_info["id"]))

    async def change(self, request: web.Request) -> web.Response:
        """Change some fields of an endpoint."""
        body = await forms.read_json(request)
        return web.json_response(await self._desk.change(request.match_info["id"], body))

    async def remove(self, request: web.Request) -> web.Response:
        """Forget an endpoint and what waits for it."""
        await self._desk.remove(request.match_info["id"])
        return web.Response(status=204)

    async def rotate(self, request: web.Request) -> web.Response:
        """Give an endpoint a new secret."""
        return web.json_response(await self._desk.rotate(request.match_info["id"]))

    async def test(self, request: web.Request) -> web.Response:
        """Send a test notice."""
        written = await self._desk.test(request.match_info["id"])
        return web.json_response(written, status=202)

    async def deliveries(self, request: web.Request) -> web.Response:
        """Deliveries by state, endpoint or interview, newest first."""
        query = request.query
        found = await self._desk.deliveries(
            state=query.get("state"),
            endpoint_id=query.get("endpoint_id"),
            interview_id=query.get("interview_id"),
            cursor=query.get("cursor"),
            limit=_limit(request),
        )
        return web.json_response(found)

    async def of_interview(self, request: web.Request) -> web.Response:
        """The deliveries of one interview."""
        interview_id = request.match_info["id"]
        if not await self._desk.interview_exists(interview_id):
            raise SessionNotFound
        cursor = request.query.get("cursor")
        found = await self._desk.of_interview(interview_id, cursor, _limit(request))
        return web.json_response(found)

    async def delivery(self, request: web.Request) -> web.Response:
        """One delivery with its attempts and its body."""
        found = await self._desk.delivery(request.match_info["id"])
        concerns(request, interview_id=found["interview_id"])
        return web.json_response(found)

    async def retry(self, request: web.Request) -> web.Response:
        """Send one delivery again, from the schedule's beginning."""
        changed = await self._desk.retry(request.match_info["id"])
        concerns(request, interview_id=changed["interview_id"])
        return web.json_response(changed, status=202)

    async def replay(self, request: web.Request) -> web.Response:
        """Send again what did not arrive since some time."""
        body = await forms.read_json(request)
        counted = await self._desk.replay(body)
        concerns(request, object_id=body.get("endpoint_id"))
        return web.json_response(counted, status=202)


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "50")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidWebhook("limit must be a whole number.")
    return int(text)
