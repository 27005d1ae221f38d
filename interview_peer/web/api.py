"""The HTTP paths: signalling as the seeds have it, OpenAI's way in, and what operators ask."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from ..core import sdp
from ..core.lifecycle import OVER, Phase, Reason
from ..core.persona import ga_model
from ..errors import (
    CallerError,
    InvalidMessage,
    InvalidSdp,
    NotFound,
    SdpTooLarge,
    SessionNotFound,
    TokenInvalid,
    TokenRequired,
    TooLarge,
    UnsupportedContentType,
)
from ..session.archive import Archive
from ..session.drain import Drain
from ..session.interview import Interview
from ..session.registry import Interviews
from ..settings import Settings, static_dir
from ..state.parts import StateParts
from ..types import Json
from . import forms, ice, messages, openapi, signalling
from .access import Access, Admission, token_of
from .control_api import ControlApi
from .events_api import EventsApi
from .interview_store import InterviewStore
from .interviews_api import InterviewsApi
from .joining import API, Joining
from .keys_api import KeysApi
from .limits import LIMITS, Limits
from .operations_api import OperationsApi, Readiness
from .recordings_api import RecordingPaths
from .waiting_room import WaitingRoom
from .webhooks_api import WebhooksApi

KEY_SECONDS: Final = 60
"""How long the seeds' ephemeral keys lived; the answer keeps saying so."""

HELD: Final = "held-by-server"
CALL_PREFIX: Final = "rtc_"
"""OpenAI's call ids begin so, and its clients may look."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Health:
    """Whoever has figures for operators."""

    media: Callable[[], Json]
    recordings: Callable[[], Json]
    refused: Callable[[], Json]


class Api:
    """The routes and what they need."""

    def __init__(
        self,
        settings: Settings,
        interviews: Interviews,
        joining: Joining,
        limits: Limits,
        health: Health,
        state: StateParts,
    ) -> None:
        self._state = state
        self._settings = settings
        self._interviews = interviews
        self._joining = joining
        self._limits = limits
        self._health = health
        self._started = time.monotonic()
        self._static = static_dir()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        router = app.router
        router.add_get("/", self.front)
        router.add_get("/i/{interview_id}", self.invitation)
        router.add_get("/ws", self.socket)
        router.add_get("/ws/{session_id}", self.socket)
        router.add_post("/api/generate-ephemeral-key", self.ephemeral_key)
        router.add_post("/api/sdp-exchange", self.sdp_exchange)
        router.add_get("/api/sessions/{session_id}", self.session)
        router.add_get("/api/personas", self.personas)
        router.add_get(ice.PATH, ice.IceServersPath(self._settings, self._joining).get)
        router.add_post("/v1/realtime/calls", self.create_call)
        router.add_post("/v1/realtime/calls/{call_id}/hangup", self.hang_up)
        router.add_get("/health", self.health)
        router.add_get("/healthz", self.healthz)
        router.add_get("/static/{path:.+}", self.static)

    # -- the page and the socket ----------------------------------------------------------------

    async def front(self, request: web.Request) -> web.StreamResponse:
        """The page; or signalling, for a client that connects a WebSocket here."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.socket(request)
        return web.FileResponse(self._static / "index.html")

    async def invitation(self, request: web.Request) -> web.StreamResponse:
        """The page again: which interview it is for, and by which token, it reads by itself.

        The token stands behind the ``#`` of the link, so it is never sent here.
        """
        return web.FileResponse(self._static / "index.html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        """One of the page's files; what is missing is told in our own form."""
        name, root = request.match_info["path"], self._static.resolve()
        try:
            path = (root / name).resolve()
            # One name for each file: not `app.css/`, nor a way around through another folder.
            found = path.relative_to(root).as_posix() == name and path.is_file()
        except ValueError:
            found = False
        if not found:
            raise NotFound
        return web.FileResponse(path)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The signalling WebSocket."""
        return await signalling.handle(
            request, self._interviews, self._joining, self._limits, self._settings.hold_seconds
        )

    # -- the seeds' HTTP ------------------------------------------------------------------------

    async def ephemeral_key(self, request: web.Request) -> web.Response:
        """Answer in the shape of an ephemeral key, whose secret never leaves the server.

        For a known session, voice and model are noted. A client may post an id of its own
        making: it gets the same answer and nothing is kept.
        """
        body = await forms.read_json(request)
        voice = messages.voice(messages.optional_text(body, "voice"))
        model = ga_model(messages.optional_text(body, "model"))
        session_id = messages.optional_text(body, "sessionId")
        now = time.time()
        try:
            interview = self._interviews.find(session_id or "")
        except SessionNotFound:
            pass
        else:
            interview.touch()
            interview.key_asked_at = now
            if interview.phase is Phase.CREATED and interview.origin != API:
                if voice is not None:
                    interview.persona = interview.persona.with_voice(voice)
                interview.model = model or interview.model
        return web.json_response(
            {
                "success": True,
                "expires_in": KEY_SECONDS,
                "client_secret": {"value": HELD, "expires_at": int(now) + KEY_SECONDS},
            }
        )

    async def sdp_exchange(self, request: web.Request) -> web.Response:
        """Answer an offer over HTTP instead of the WebSocket."""
        body = await forms.read_json(request)
        offer = messages.offer_sdp(body.get("sdpOffer"))
        sdp.check_offer(offer)
        session_id = messages.optional_text(body, "sessionId")
        persona_name = messages.optional_text(body, "aiPersona")
        persona = self._interviews.personas.find(persona_name) if persona_name else None
        admission = await self._joining.admit(request)
        interview = await self._joining.enter(admission, session_id)
        if persona is not None and admission.is_open and interview.phase is Phase.CREATED:
            interview.persona = persona
        answer, resume = await self._answer(request, admission, interview, offer)
        told = {
            "sessionId": interview.id,
            "sdpAnswer": answer,
            "answer": {"type": "answer", "sdp": answer},
        }
        return web.json_response(told if resume is None else {**told, "resumeToken": resume})

    async def session(self, request: web.Request) -> web.Response:
        """What is known of a session, in the seeds' fields and our phase."""
        interview = self._interviews.find(request.match_info["session_id"])
        asked = interview.key_asked_at
        last = time.time() - (time.monotonic() - interview.last_activity)
        return web.json_response(
            {
                "sessionId": interview.id,
                "connected": int(interview.created_at * 1000),
                "lastActivity": int(last * 1000),
                "hasEphemeralKey": asked is not None,
                "keyValid": asked is not None and time.time() < asked + KEY_SECONDS,
                "phase": interview.phase.value,
                "reason": interview.reason.value if interview.reason else None,
            }
        )

    async def personas(self, request: web.Request) -> web.Response:
        """Who can interview."""
        library = self._interviews.personas
        return web.json_response(
            {
                "default": library.default.name,
                "personas": [
                    {
                        "name": one.name,
                        "title": one.title,
                        "description": one.description,
                        "voice": one.voice,
                    }
                    for one in library.all()
                ],
            }
        )

    # -- OpenAI's way in ------------------------------------------------------------------------

    async def create_call(self, request: web.Request) -> web.Response:
        """Take an offer as OpenAI's own endpoint does: bare SDP, or multipart."""
        offer = await _call_offer(request)
        sdp.check_offer(offer)
        admission = await self._joining.admit(request)
        interview = await self._joining.enter(admission, None)
        answer, _ = await self._answer(request, admission, interview, offer)
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{CALL_PREFIX}{interview.id}"},
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call; a second time it is not found, as at OpenAI."""
        call_id = request.match_info["call_id"]
        interview = self._interviews.find(call_id.removeprefix(CALL_PREFIX))
        if not call_id.startswith(CALL_PREFIX) or interview.phase in OVER:
            raise SessionNotFound
        if interview.origin == API:
            token = token_of(request)
            if token is None:
                raise TokenRequired
            if await self._joining.access.recognise(token, request.remote) != interview.id:
                raise TokenInvalid
        interview.end_soon(Reason.CLIENT_REQUEST)
        return web.Response(status=200)

    async def _answer(
        self, request: web.Request, admission: Admission, interview: Interview, offer: str
    ) -> tuple[str, str | None]:
        """Answer, or forget a session that was only made for this failed request."""
        try:
            self._limits.offer(request.remote, interview.id, offer)
            return await self._joining.answer(admission, interview, offer)
        except BaseException:
            if not interview.watched:
                self._interviews.forget(interview)
            raise

    # -- operators ------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """Whether the server answers."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return web.json_response({"status": "ok", "timestamp": now})

    async def healthz(self, request: web.Request) -> web.Response:
        """The same with figures, in the seeds' fields."""
        settings = self._settings
        here = request.get_extra_info("sockname")
        return web.json_response(
            {
                "status": "ok",
                "uptime": round(time.monotonic() - self._started, 3),
                "sessions": len(self._interviews),
                "interviews": self._interviews.running,
                "without_token": self._joining.unknown.statistics(),
                "refused": self._health.refused(),
                "media": self._health.media(),
                "recordings": self._health.recordings(),
                "chronicle": self._state.chronicle.statistics(),
                "notices": self._state.notices.statistics(),
                "env": {
                    "node_env": "development" if settings.simulation else "production",
                    "mode": "simulation" if settings.simulation else "live",
                    "port": here[1] if here else settings.port,
                    "has_openai_key": settings.openai_api_key is not None,
                },
            }
        )


async def _call_offer(request: web.Request) -> str:
    """The offer of a create call; a session that comes with it is not the client's to choose."""
    if request.content_type == "application/sdp":
        text = await forms.read_text(request)
    elif request.content_type == "multipart/form-data":
        text = await _multipart_offer(request)
    else:
        raise UnsupportedContentType("This path takes application/sdp or multipart/form-data.")
    if not text.strip():
        raise InvalidSdp
    return text


async def _multipart_offer(request: web.Request) -> str:
    offer: str | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in ("sdp", "session"):
                raise InvalidMessage("The parts are sdp and session.")
            forms.check_uncompressed(part)
            body = await part.read(decode=True)
            if len(body) > sdp.MAX_SDP_BYTES * 2:
                raise SdpTooLarge
            if part.name == "sdp":
                offer = body.decode("utf-8")
            else:
                _check_session(json.loads(body))
    except CallerError:
        raise
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge from None
    except (ValueError, RecursionError, RuntimeError, HttpProcessingError):
        # A RuntimeError stands for a Content-Transfer-Encoding that is not known.
        raise InvalidMessage("The multipart body could not be read.") from None
    if offer is None:
        raise InvalidSdp("The part sdp is missing.")
    return offer


def _check_session(session: Any) -> None:
    if not isinstance(session, dict):
        raise InvalidMessage("The part session must be a JSON object.")


def make_app(
    settings: Settings,
    interviews: Interviews,
    media_health: Callable[[], Json],
    state: StateParts,
    archive: Archive,
    drain: Drain,
) -> web.Application:
    """The HTTP application; the caller runs it."""
    access = Access(settings, state.database, interviews.has_used)
    app = web.Application(
        middlewares=forms.middlewares(
            access,
            [ipaddress.ip_network(one) for one in settings.trusted_proxies],
            settings.proxy_header,
        ),
        client_max_size=settings.max_body_kb * 1024,
    )
    unknown = WaitingRoom(settings.waiting_per_address, settings.waiting_sockets)
    limits = app[LIMITS] = Limits(settings)
    joining = Joining(access, interviews, state, unknown)
    health = Health(media_health, archive.statistics, limits.statistics)
    Api(settings, interviews, joining, limits, health, state).add_to(app)
    store = InterviewStore(interviews, archive, state)
    guard = state.notices.guard
    made = InterviewsApi(settings, interviews.personas, access, store, guard)
    made.add_to(app)
    ControlApi(store, made.whole).add_to(app)
    EventsApi(store).add_to(app)
    RecordingPaths(archive).add_to(app)
    KeysApi(state.database).add_to(app)
    WebhooksApi(state.notices.desk, access.check_operator).add_to(app)
    OperationsApi(Readiness(interviews, drain.openings, state), drain).add_to(app)
    openapi.add_to(app)
    app.cleanup_ctx.append(store.expiring)
    app.on_cleanup.append(lambda app: joining.claims.close())
    return app
