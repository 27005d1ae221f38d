"""The HTTP paths: the page, signalling as an ephemeral-key proxy has it (docs/migration.md), and
how the server fares."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from ..core import consent
from ..core.lifecycle import WAITING
from ..core.persona import ga_model
from ..errors import SessionNotFound, Unauthorized
from ..session.archive import Archive
from ..session.drain import Drain
from ..session.registry import Interviews
from ..settings import Settings
from ..state.parts import StateParts
from ..types import INVITED, Json
from . import forms, ice, messages, openapi, signalling
from .access import Access
from .acts import Acts
from .audit_api import AuditApi
from .calls_api import CallsApi
from .client_secrets import ClientSecrets
from .consent_api import ConsentPaths
from .control_api import ControlApi
from .events_api import EventsApi
from .interview_store import InterviewStore
from .interviews_api import InterviewsApi
from .joining import Joining
from .keys_api import KeysApi
from .limits import LIMITS, Limits
from .machines import Machines
from .new_interview import Terms
from .operations_api import OperationsApi, Readiness
from .origins import Origins
from .pages import FRONT, StaticFiles, static_dir
from .partings import Partings
from .recordings_api import RecordingPaths
from .waiting_room import WaitingRoom
from .webhooks_api import WebhooksApi

KEY_SECONDS: Final = 60
"""How long a proxy's ephemeral keys lived; the answer keeps saying so."""

HELD: Final = "held-by-server"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Health:
    """Whoever has figures for operators."""

    media: Callable[[], Json]
    recordings: Callable[[], Json]
    refused: Callable[[], Json]
    passed_on: Callable[[], Json]


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
        partings: Partings,
    ) -> None:
        self._state = state
        self._partings = partings
        self._settings = settings
        self._interviews = interviews
        self._joining = joining
        self._limits = limits
        self._health = health
        self._started = time.monotonic()
        self._static = StaticFiles(static_dir())
        asked = consent.policy(settings.require_consent, invited=False)
        self._asks_open_clients = asked is consent.Policy.REQUIRED

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
        ConsentPaths(self._joining, limits=self._limits).add_to(router)
        router.add_get(ice.PATH, ice.IceServersPath(self._settings, self._joining).get)
        router.add_get("/health", self.health)
        router.add_get("/healthz", self.healthz)
        router.add_get("/static/{path:.+}", self.static)

    # -- the page and the socket ----------------------------------------------------------------

    async def front(self, request: web.Request) -> web.StreamResponse:
        """The page; or signalling, for a client that connects a WebSocket here."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.socket(request)
        return self._static.answer(request, FRONT)

    async def invitation(self, request: web.Request) -> web.StreamResponse:
        """The page again: which interview it is for, and by which token, it reads by itself.

        The token stands behind the ``#`` of the link, so it is never sent here.
        """
        return self._static.answer(request, FRONT)

    async def static(self, request: web.Request) -> web.StreamResponse:
        """One of the page's files; what is missing is told in our own form."""
        return self._static.answer(request, request.match_info["path"])

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The signalling WebSocket."""
        return await signalling.handle(
            request,
            self._interviews,
            self._joining,
            self._limits,
            self._partings,
            self._settings.hold_seconds,
        )

    # -- as an ephemeral-key proxy ----------------------------------------------------------------

    async def ephemeral_key(self, request: web.Request) -> web.Response:
        """Answer in the shape of an ephemeral key, whose secret never leaves the server.

        For a known session, voice and model are noted. A client may post an id of its own
        making: it gets the same answer and nothing is kept.
        """
        body = await forms.read_message(request)
        voice = messages.voice(messages.optional_text(body, "voice"))
        model = ga_model(messages.optional_text(body, "model"))
        session_id = messages.optional_text(body, "sessionId")
        now = time.time()
        try:
            interview = self._interviews.find(session_id or "")
            if interview.origin == INVITED:
                # Nobody else may keep an invited candidate's interview from being idle.
                await self._joining.check_own(request, interview.id)
        except (SessionNotFound, Unauthorized):
            pass
        else:
            interview.touch()
            interview.key_asked_at = now
            if interview.phase in WAITING and interview.origin != INVITED:
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
        admission = await self._joining.admit(request)
        body = await forms.read_message(request)
        offer = self._joining.take_offer(request, messages.offer_sdp(body.get("sdpOffer")))
        session_id = messages.optional_text(body, "sessionId")
        persona_name = messages.optional_text(body, "aiPersona")
        persona = self._interviews.personas.find(persona_name) if persona_name else None
        interview = await self._joining.enter(admission, session_id)
        if persona is not None and admission.is_open:
            interview.meet(persona)
        answer, resume = await self._joining.answer_or_forget(request, admission, interview, offer)
        told = {
            "sessionId": interview.id,
            "sdpAnswer": answer,
            "answer": {"type": "answer", "sdp": answer},
        }
        return web.json_response(told if resume is None else {**told, "resumeToken": resume})

    async def session(self, request: web.Request) -> web.Response:
        """What is known of a session, in a proxy's fields and our phase; to who may know."""
        name = request.match_info["session_id"]
        await self._joining.check_own(request, name)
        interview = self._interviews.find(name)
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
                "consentRequired": self._asks_open_clients,
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

    # -- operators ------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """Whether the server answers."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return web.json_response({"status": "ok", "timestamp": now})

    async def healthz(self, request: web.Request) -> web.Response:
        """The same with figures, in a proxy's fields."""
        settings = self._settings
        here = request.get_extra_info("sockname")
        return web.json_response(
            {
                "status": "ok",
                "uptime": round(time.monotonic() - self._started, 3),
                "sessions": len(self._interviews),
                "interviews": self._interviews.running,
                "tasks": len(asyncio.all_tasks()),
                "without_token": self._joining.unknown.statistics(),
                "refused": self._health.refused(),
                "passed_on": self._health.passed_on(),
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
    proxies = [ipaddress.ip_network(one) for one in settings.trusted_proxies]
    origins = Origins(settings, proxies)
    limits = Limits(settings)
    machines = Machines(settings, interviews, state, limits)
    acts = Acts(state.database, state.chronicle)
    app = web.Application(
        middlewares=forms.middlewares(
            access,
            origins,
            proxies,
            settings.proxy_header,
            first=[*machines.first, acts.outer],
            last=[*machines.last, acts.middleware],
        ),
        client_max_size=settings.max_body_kb * 1024,
    )
    app[LIMITS] = limits
    machines.add_to(app)
    app.on_response_prepare.append(origins.dress)
    acts.add_to(app)
    unknown = WaitingRoom(settings.waiting_per_address, settings.waiting_sockets)
    joining = Joining(access, interviews, state, unknown)
    health = Health(media_health, archive.statistics, limits.statistics, machines.statistics)
    partings = Partings()
    drain.openings.listen(partings.begin)
    app.on_shutdown.append(partings.close)
    Api(settings, interviews, joining, limits, health, state, partings).add_to(app)
    CallsApi(interviews, joining).add_to(app)
    store = InterviewStore(interviews, archive, state)
    terms = Terms(
        interviews.personas,
        state.notices.guard,
        can_sign=settings.webhook_secret is not None,
        require_consent=settings.require_consent,
    )
    made = InterviewsApi(settings, terms, access, store)
    made.add_to(app)
    ClientSecrets(settings, terms, access, store).add_to(app)
    ControlApi(store, made.whole).add_to(app)
    EventsApi(store, access.check_operator).add_to(app)
    RecordingPaths(archive).add_to(app)
    KeysApi(state.database).add_to(app)
    AuditApi(state.database).add_to(app)
    WebhooksApi(state.notices.desk, access.check_operator).add_to(app)
    OperationsApi(Readiness(interviews, drain.openings, state), drain).add_to(app)
    openapi.add_to(app)
    app.cleanup_ctx.append(store.expiring)
    app.on_cleanup.append(lambda app: joining.claims.close())
    return app
