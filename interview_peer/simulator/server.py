"""The simulator's HTTP side: an OpenAI Realtime endpoint for tests and for running without a key.

It answers ``POST /v1/realtime/calls`` as the real service does, refusals included, keeps the calls
and ends them. What is said within a call is no business of this module.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, web

from ..errors import InvalidSdp
from ..media.udp import UdpPort
from ..types import Json
from .call import Call, make_id
from .commands import Rules
from .mouth import IdleAudio
from .session_config import Fault, new_session

MAX_BODY_BYTES = 1024 * 1024
SHUTDOWN_SECONDS = 1.0
WHIP_MESSAGE = "Invalid SDP offer. Please try again with a WHIP-compliant offer."
BETA_MESSAGE = (
    "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
)
_FAILURE_CODES = {429: "insufficient_quota", 401: "invalid_api_key", 404: "model_not_found"}


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """How the simulator behaves. Seconds where a field is a time.

    Attributes:
        api_key: the only bearer taken; None takes any.
        udp_host: address the calls' sockets are bound to and announce.
        echo_key: put the received and the expected key into every error body and into an
            ``error`` event at the beginning of each session: proves that clients do not pass it on.
        answer_status: answer every call with this HTTP status and an error body.
        answer_delay: wait so long before answering a call.
        answer_garbage: answer calls with 201 and a body that is no SDP.
        hang: never answer a call.
        max_calls: calls at a time; more are refused with 429.
        connect_seconds: a call nobody connects to ends after this.
        idle_audio: what goes out while nobody speaks, see ``mouth.IdleAudio``.
        seed: of all that is left to chance, with the call's number.
        rules: how the simulated model behaves.
    """

    api_key: str | None = None
    udp_host: str = "127.0.0.1"
    echo_key: bool = False
    answer_status: int | None = None
    answer_delay: float = 0.0
    answer_garbage: bool = False
    hang: bool = False
    max_calls: int = 256
    connect_seconds: float = 20.0
    idle_audio: IdleAudio = "silence"
    seed: int = 1
    rules: Rules = field(default_factory=Rules)


class RunningSimulator:
    """A simulator that takes calls until ``close``."""

    def __init__(self, base_url: str, runner: web.AppRunner, simulator: Simulator) -> None:
        self.base_url = base_url
        self._runner = runner
        self._simulator = simulator

    @property
    def calls(self) -> int:
        """How many calls there are now."""
        return len(self._simulator.calls)

    async def close(self) -> None:
        """Stop listening and end every call; nothing is left behind. Idempotent."""
        self._simulator.shutting_down.set()
        await self._runner.cleanup()
        await self._simulator.close()


async def start_simulator(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0
) -> RunningSimulator:
    """Listen on an address; port 0 picks a free one. Raises OSError if it cannot be bound."""
    simulator = Simulator(settings)
    runner = web.AppRunner(
        simulator.application(),
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


class Refusal(Exception):
    """A request is answered with an error body."""

    def __init__(
        self, status: int, code: str | None, message: str, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {
            "message": message,
            "type": "invalid_request_error" if status < 500 else "server_error",
            "param": param,
            "code": code,
        }


class Simulator:
    """The calls and the routes that make and end them."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.calls: dict[str, Call] = {}
        self.shutting_down = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0
        self._beginning = 0

    def application(self) -> web.Application:
        """The aiohttp application with every route."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post("/v1/realtime/calls", self._create)
        app.router.add_post("/v1/realtime/calls/{call_id}/hangup", self._hang_up)
        for path in ("/v1/realtime", "/v1/realtime/sessions"):
            app.router.add_post(path, self._beta)
        return app

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
        try:
            self._check_key(request)
            if "realtime=v1" in request.headers.get("OpenAI-Beta", ""):
                raise Refusal(400, "beta_api_shape_disabled", BETA_MESSAGE)
            response: web.StreamResponse = await handler(request)
            return response
        except Refusal as refusal:
            return self._refused(request, refusal)
        except web.HTTPException as error:
            return self._refused(request, Refusal(error.status, None, error.reason))

    def _check_key(self, request: web.Request) -> None:
        received = _bearer(request)
        expected = self.settings.api_key
        if received and expected is None:
            return
        if expected is None or not hmac.compare_digest(received.encode(), expected.encode()):
            message = "Incorrect API key provided: ***. You can find your API key in the settings."
            raise Refusal(401, "invalid_api_key", message)

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        error = dict(refusal.body)
        if self.settings.echo_key:
            error["message"] += f" {self._keys(_bearer(request))}"
        body: Json = {"error": error}
        if refusal.status == 401:
            body["status"] = 401
        # The service labels some of its JSON as plain text; clients must parse it all the same.
        kind = "text/plain" if refusal.status == 401 else "application/json"
        return web.Response(status=refusal.status, text=json.dumps(body), content_type=kind)

    def _keys(self, received: str) -> str:
        return f"(received {received!r}, expected {self.settings.api_key!r})"

    async def _beta(self, request: web.Request) -> web.Response:
        raise Refusal(400, "beta_api_shape_disabled", BETA_MESSAGE)

    async def _create(self, request: web.Request) -> web.Response:
        settings = self.settings
        offer, requested = await _offer_and_session(request)
        if settings.hang:
            await self.shutting_down.wait()
        if settings.answer_delay > 0:
            await self._pause(settings.answer_delay)
        if self.shutting_down.is_set():
            raise Refusal(503, "server_shutting_down", "The simulator is closing.")
        if settings.answer_status is not None:
            code = _FAILURE_CODES.get(settings.answer_status, "server_error")
            raise Refusal(settings.answer_status, code, "The simulator was told to refuse.")
        if settings.answer_garbage:
            return _created("this is not a session description\r\n", make_id("rtc_"))
        try:
            session = new_session(requested)
        except Fault as fault:
            status = 404 if fault.code == "model_not_found" else 400
            raise Refusal(status, fault.code, fault.message, fault.param) from None
        if "m=audio" not in offer or not offer.endswith("\n"):
            raise Refusal(400, "invalid_offer", WHIP_MESSAGE)
        if len(self.calls) + self._beginning >= settings.max_calls:
            raise Refusal(429, "rate_limit_exceeded", "Too many calls at a time.")
        self._beginning += 1
        try:
            call, answer = await self._begin_call(offer, session, _bearer(request))
        finally:
            self._beginning -= 1
        return _created(answer, call.call_id)

    async def _begin_call(self, offer: str, session: Json, key: str) -> tuple[Call, str]:
        settings = self.settings
        rules = settings.rules
        if settings.echo_key:
            rules = replace(rules, planted_error=f"A planted fault. {self._keys(key)}")
        self._made += 1
        seed = f"{settings.seed}/{self._made}"
        port = await UdpPort.open(settings.udp_host)
        call_id = make_id("rtc_u1_")
        call = Call(call_id, port, session, rules, settings.idle_audio, seed, self._ended)
        self.calls[call_id] = call
        try:
            answer = await call.answer(offer, settings.connect_seconds)
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


def _created(answer: str, call_id: str) -> web.Response:
    # Bytes, so that no charset is added: the service's type is bare.
    return web.Response(
        status=201,
        body=answer.encode(),
        content_type="application/sdp",
        headers={"Location": f"/v1/realtime/calls/{call_id}"},
    )


async def _offer_and_session(request: web.Request) -> tuple[str, Any]:
    """The offer's text and the decoded ``session`` part, None where there is none."""
    if request.content_type == "application/sdp":
        return _text(await request.read()), None
    if request.content_type != "multipart/form-data":
        message = "Expected multipart/form-data or application/sdp."
        raise Refusal(400, "invalid_value", message, None)
    parts = await _parts(request)
    if "sdp" not in parts:
        message = "Missing required parameter: 'sdp'."
        raise Refusal(400, "missing_required_parameter", message, "sdp")
    session = None
    if "session" in parts:
        try:
            session = json.loads(parts["session"])
        except (ValueError, RecursionError):
            message = "Invalid type for 'session': expected an object."
            raise Refusal(400, "invalid_type", message, "session") from None
        if session is None:
            raise Refusal(400, "invalid_type", "Expected an object, got null.", "session")
    return _text(parts["sdp"]), session


async def _parts(request: web.Request) -> dict[str, bytes]:
    """Every part of a form by name, whatever it calls its own content type."""
    parts: dict[str, bytes] = {}
    size = 0
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, MultipartReader):
                raise Refusal(400, "invalid_value", "A part of the form is a form itself.")
            assert isinstance(part, BodyPartReader)
            data = bytearray()
            while chunk := await part.read_chunk():
                data += chunk
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise Refusal(413, "too_large", "The form is too large.")
            parts[part.name or ""] = bytes(data)
    except ValueError:
        raise Refusal(400, "invalid_value", "The form could not be read.") from None
    for name in parts:
        if name not in ("sdp", "session"):
            raise Refusal(400, "unknown_parameter", f"Unknown parameter: '{name}'.", name)
    return parts


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "invalid_offer", WHIP_MESSAGE) from None
