"""The simulator's HTTP side: an OpenAI Realtime endpoint for tests and for running without a key.

It answers ``POST /v1/realtime/calls`` as the real service does, refusals included, makes ephemeral
keys, keeps the calls and ends them. What is said within a call is no business of this module.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..errors import InvalidSdp
from ..types import Json
from .admin import PREFIX, Admin
from .call import Call, make_id
from .checks import Fault
from .ephemeral import EphemeralKeys
from .refusals import MAX_BODY_BYTES, WHIP_MESSAGE, Refusal, json_body, offer_and_session
from .session_config import MODELS, TRANSCRIBERS, new_session
from .settings import SimulatorSettings
from .wire import Wire

__all__ = ["RunningSimulator", "Simulator", "SimulatorSettings", "start_simulator"]

SHUTDOWN_SECONDS = 1.0
ENDED_KEPT = 100
KNOWN_MODELS = MODELS | TRANSCRIBERS
MODELS_MADE = 1_756_339_200
BETA_MESSAGE = (
    "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
)
BETA_PATHS = ("/v1/realtime", "/v1/realtime/sessions", "/v1/realtime/transcription_sessions")
CALLS = "/v1/realtime/calls"
EPHEMERAL = "ek_"
_FAILURE_CODES = {429: "insufficient_quota", 401: "invalid_api_key", 404: "model_not_found"}
_QUOTA = "You exceeded your current quota, please check your plan and billing details."


class RunningSimulator:
    """A simulator that takes calls until ``close``. ``base_url`` ends in ``/v1``."""

    def __init__(self, base_url: str, runner: web.AppRunner, simulator: Simulator) -> None:
        self.base_url = base_url
        self._runner = runner
        self._simulator = simulator

    @property
    def calls(self) -> int:
        """How many calls there are now."""
        return len(self._simulator.calls)

    @property
    def running_calls(self) -> dict[str, Call]:
        """The calls there are now, by their ids."""
        return dict(self._simulator.calls)

    @property
    def ended_calls(self) -> list[Json]:
        """The last calls that ended, each with its ``id`` and ``reason``, oldest first."""
        return self._simulator.ended_calls()

    @property
    def settings(self) -> SimulatorSettings:
        """How the next request is answered and the next call behaves; may be set."""
        return self._simulator.settings

    @settings.setter
    def settings(self, settings: SimulatorSettings) -> None:
        self._simulator.settings = settings

    async def close(self) -> None:
        """Stop listening and end every call; nothing is left behind. Idempotent."""
        self._simulator.shutting_down.set()
        await self._runner.cleanup()
        await self._simulator.close()


async def start_simulator(
    settings: SimulatorSettings | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    admin: bool = True,
    clock: Callable[[], float] = time.time,
) -> RunningSimulator:
    """Listen on an address; port 0 picks a free one. Raises OSError if it cannot be bound.

    ``admin`` opens the admin path; ``clock`` tells the time in epoch seconds.
    """
    simulator = Simulator(settings or SimulatorSettings(), clock)
    runner = web.AppRunner(
        simulator.application(admin=admin),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    bound = runner.addresses[0]
    name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return RunningSimulator(f"http://{name}:{bound[1]}/v1", runner, simulator)


class Simulator:
    """The calls and the routes that make and end them."""

    def __init__(self, settings: SimulatorSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.calls: dict[str, Call] = {}
        self.shutting_down = asyncio.Event()
        self._clock = clock
        self._admin = Admin(self)
        self._keys = EphemeralKeys()
        self._ended_calls: deque[Json] = deque(maxlen=ENDED_KEPT)
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0
        self._beginning = 0

    def application(self, *, admin: bool = True) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post(CALLS, self._create)
        app.router.add_post(f"{CALLS}/{{call_id}}/hangup", self._hang_up)
        app.router.add_post("/v1/realtime/client_secrets", self._mint)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model}", self._model)
        for path in BETA_PATHS:
            app.router.add_post(path, self._beta)
        app.router.add_options(CALLS, self._preflight)
        if admin:
            self._admin.add_to(app.router)
        return app

    def ended_calls(self) -> list[Json]:
        """The last calls that ended, each with its ``id`` and ``reason``, oldest first."""
        return list(self._ended_calls)

    async def close(self) -> None:
        """End every call and wait until nothing of any is left."""
        self.shutting_down.set()
        for call in list(self.calls.values()):
            call.end("simulator closed")
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    # Routes

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Check the key and the beta header; turn refusals into bodies of the service's shape."""
        begun = time.monotonic()
        try:
            if request.path.startswith(f"{PREFIX}/"):
                self._admin.check(request, _bearer(request))
            elif request.method != "OPTIONS":
                self._check_key(request)
            if "realtime=v1" in request.headers.get("OpenAI-Beta", ""):
                raise Refusal(400, "beta_api_shape_disabled", BETA_MESSAGE)
            response: web.StreamResponse = await handler(request)
        except Refusal as refusal:
            response = self._refused(request, refusal)
        except web.HTTPException as error:
            response = self._refused(request, Refusal(error.status, None, error.reason))
        response.headers["x-request-id"] = make_id("req_")
        response.headers["openai-processing-ms"] = str(int((time.monotonic() - begun) * 1000))
        if request.path == CALLS and "Origin" in request.headers:
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Access-Control-Expose-Headers"] = "Location"
        return response

    def _check_key(self, request: web.Request) -> None:
        """A standard key is good for everything, an ephemeral one to begin calls."""
        received = _bearer(request)
        expected = self.settings.api_key
        if received.startswith(EPHEMERAL):
            is_good = (
                request.path == CALLS and self._keys.session(received, self._clock()) is not None
            )
        elif expected is None:
            is_good = bool(received)
        else:
            is_good = hmac.compare_digest(received.encode(), expected.encode())
        if not is_good:
            message = "Incorrect API key provided: ***. You can find your API key in the settings."
            raise Refusal(401, "invalid_api_key", message)

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        error = dict(refusal.body)
        if self.settings.echo_key:
            error["message"] += f" {self._told_keys(_bearer(request))}"
        body: Json = {"error": error}
        if refusal.status == 401:
            body["status"] = 401
        # The service labels some of its JSON as plain text; clients must parse it all the same.
        kind = "text/plain" if refusal.status == 401 else "application/json"
        return web.Response(status=refusal.status, text=json.dumps(body), content_type=kind)

    def _told_keys(self, received: str) -> str:
        return f"(received {received!r}, expected {self.settings.api_key!r})"

    async def _beta(self, request: web.Request) -> web.Response:
        raise Refusal(400, "beta_api_shape_disabled", BETA_MESSAGE)

    async def _preflight(self, request: web.Request) -> web.Response:
        headers = {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": (
                "authorization, content-type, x-openai-agents-sdk, openai-safety-identifier"
            ),
        }
        return web.Response(status=204, headers=headers)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [_model(name) for name in KNOWN_MODELS]}
        )

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name not in KNOWN_MODELS:
            message = f"The model '{name}' does not exist"
            raise Refusal(404, "model_not_found", message, "model")
        return web.json_response(_model(name))

    async def _mint(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        try:
            made = self._keys.mint({} if body is None else body, self._clock(), make_id("sess_"))
        except Fault as fault:
            raise _refusal_of(fault) from None
        return web.json_response(made)

    async def _create(self, request: web.Request) -> web.Response:
        settings = self.settings
        key = _bearer(request)
        offer, requested = await offer_and_session(request)
        if settings.hang:
            await self.shutting_down.wait()
        if settings.answer_delay > 0:
            await self._pause(settings.answer_delay)
        if self.shutting_down.is_set():
            raise Refusal(503, "server_shutting_down", "The simulator is closing.")
        if settings.answer_status is not None:
            status = settings.answer_status
            code = settings.answer_code or _FAILURE_CODES.get(status, "server_error")
            told = _QUOTA if code == "insufficient_quota" else "The simulator was told to refuse."
            raise Refusal(status, code, told)
        if settings.answer_garbage:
            return _created("this is not a session description\r\n", make_id("rtc_"))
        session = self._session_for(request, key, requested)
        if "m=audio" not in offer or not offer.endswith("\n"):
            raise Refusal(400, "invalid_offer", WHIP_MESSAGE)
        if len(self.calls) + self._beginning >= settings.max_calls:
            raise Refusal(429, "rate_limit_exceeded", "Too many calls at a time.")
        if settings.single_use_secrets:
            self._keys.spend(key)
        self._beginning += 1
        try:
            call, answer = await self._begin_call(settings, offer, session, key)
        finally:
            self._beginning -= 1
        return _created(answer, call.call_id)

    def _session_for(self, request: web.Request, key: str, requested: Any) -> Json:
        """The effective session: of the ephemeral key, or of the form's part."""
        if key.startswith(EPHEMERAL):
            if requested is not None:
                message = "The session of an ephemeral key comes with the key."
                raise Refusal(400, "unknown_parameter", message, "session")
            session = self._keys.session(key, self._clock())
            if session is None:
                raise Refusal(401, "invalid_api_key", "Incorrect API key provided: ***.")
            return session
        if request.content_type == "application/sdp":
            message = "Missing required parameter: 'session'. A bare offer needs an ephemeral key."
            raise Refusal(400, "missing_required_parameter", message, "session")
        try:
            return new_session(requested)
        except Fault as fault:
            raise _refusal_of(fault) from None

    async def _begin_call(
        self, settings: SimulatorSettings, offer: str, session: Json, key: str
    ) -> tuple[Call, str]:
        if settings.echo_key:
            planted = f"A planted fault. {self._told_keys(key)}"
            settings = settings.changed(planted_error=planted)
        self._made += 1
        seed = f"{settings.seed}/{self._made}"
        wire = await Wire.open(settings.udp_host)
        call_id = make_id("rtc_u1_")
        call = Call(call_id, wire, session, settings, seed, self._ended)
        self.calls[call_id] = call
        try:
            answer = await call.answer(offer)
        except BaseException as error:
            call.end("not answered")
            if isinstance(error, InvalidSdp):
                raise Refusal(400, "invalid_offer", WHIP_MESSAGE) from None
            raise
        return call, answer

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["call_id"])
        if call is None:
            message = "No session found for the provided call_id."
            raise Refusal(404, "call_id_not_found", message)
        call.end("hung up")
        return web.Response(status=200)

    def _ended(self, call: Call, reason: str) -> None:
        self.calls.pop(call.call_id, None)
        self._ended_calls.append({"id": call.call_id, "reason": reason})
        task = asyncio.create_task(call.close(), name=f"close simulated call {call.call_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.shutting_down.wait()
        except TimeoutError:
            return


def _bearer(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _refusal_of(fault: Fault) -> Refusal:
    status = 404 if fault.code == "model_not_found" else 400
    return Refusal(status, fault.code, fault.message, fault.param)


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": MODELS_MADE,
        "owned_by": "system",
        "shutdown_date": KNOWN_MODELS[name],
    }


def _created(answer: str, call_id: str) -> web.Response:
    # Bytes, so that no charset is added: the service's type is bare.
    return web.Response(
        status=201,
        body=answer.encode(),
        content_type="application/sdp",
        headers={"Location": f"{CALLS}/{call_id}"},
    )
