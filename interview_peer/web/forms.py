"""What every request passes through, and the error form of each family of paths.

- paths of an ephemeral-key proxy: ``{"error": sentence, "message": sentence, "code"}``
- OpenAI's paths (``/v1/…``): ``{"error": {"message", "type", "param", "code"}}``
- all others: ``{"error": {"code", "message"}}``, and ``field`` where one field is at fault
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.typedefs import Handler

from ..core import scopes
from ..core.proxies import FORWARDED_FOR, Network, caller_behind, may_be_proxy, within
from ..errors import (
    CallerError,
    InsufficientScope,
    InterviewPeerError,
    InvalidJson,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
    UnsupportedContentType,
)
from ..types import Json
from . import messages
from .access import Access
from .delivery import be_patient
from .limits import LIMITS
from .origins import Origins, is_candidates

log = logging.getLogger(__name__)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

PROXY_PATHS: Final = ("/api/generate-ephemeral-key", "/api/sdp-exchange", "/api/sessions")
"""What front ends of an ephemeral-key proxy use."""
OPERATOR_PATHS: Final = (
    "/api/interviews",
    "/api/webhooks",
    "/api/keys",
    "/api/drain",
    "/api/audit",
    "/v1/realtime/client_secrets",
)
"""What only operators and the systems around an interview may use."""
OFFER_PATHS: Final = ("/api/sdp-exchange", "/v1/realtime/calls")
"""What candidates post offers to, which may name an interview. Other bodies of theirs are short."""
PROBES: Final = ("/health", "/healthz", "/readyz")
"""What supervisors and load balancers ask."""


def error_body(path: str, error: InterviewPeerError) -> Json:
    """The error in the form that callers of ``path`` read."""
    field = getattr(error, "field", None)
    if path.startswith("/v1/"):
        return {
            "error": {
                "message": error.message,
                "type": error.openai_type,
                "param": field,
                "code": error.openai_code,
            }
        }
    if path.startswith(PROXY_PATHS):
        return {"error": error.message, "message": error.message, "code": error.code}
    told = {"code": error.code, "message": error.message}
    return {"error": told if field is None else {**told, "field": field}}


def error_response(path: str, error: InterviewPeerError) -> web.Response:
    """An error as a whole answer."""
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, InsufficientScope):
        # As RFC 6750, section 3.1, has it.
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    if error.status in (429, 503):
        headers["Retry-After"] = str(error.retry_after)
    response = web.json_response(error_body(path, error), status=error.status, headers=headers)
    response[CODE] = error.code
    return response


async def read_json(request: web.Request, load: Callable[[str], Any] = json.loads) -> Json:
    """The request's JSON object, of somebody who has a key.

    Raises:
        UnsupportedContentType: the body is not labelled as JSON.
        InvalidJson: it is not a JSON object.
        TooLarge: it is longer than this path takes.
    """
    if request.content_type != "application/json":
        raise UnsupportedContentType("This path takes application/json.")
    text = await read_text(request)
    try:
        value = load(text)
    except (ValueError, RecursionError):
        raise InvalidJson("The body is not a JSON object.") from None
    if not isinstance(value, dict):
        raise InvalidJson("The body is not a JSON object.")
    return value


async def read_message(request: web.Request) -> Json:
    """The request's JSON object, of anybody. Raises as ``read_json``."""
    return await read_json(request, messages.load)


async def read_text(request: web.Request) -> str:
    """The request's body as UTF-8 text. Raises ``TooLarge`` and ``InvalidJson``."""
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge from None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJson("The body is not UTF-8 text.") from None


CODE: Final = web.ResponseKey("code", str)
"""The stable code of an answer that is a refusal."""


def error_of(raised: Exception) -> InterviewPeerError | None:
    """What the caller is told of an exception that a handler raised; None if it is a fault of
    ours."""
    match raised:
        case InterviewPeerError():
            return raised
        case web.HTTPNotFound():
            return NotFound()
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed()
        case web.HTTPRequestEntityTooLarge():
            return TooLarge()
        case web.RequestPayloadError():
            return CallerError("The body could not be read.")
        case web.HTTPException():
            return NotFound(raised.reason)
    return None


def middlewares(
    access: Access,
    origins: Origins,
    proxies: Sequence[Network] = (),
    proxy_header: str = FORWARDED_FOR,
    first: Sequence[Any] = (),
    last: Sequence[Any] = (),
) -> list[Any]:
    """The middlewares of the application, outermost first.

    ``proxies`` are the networks whose ``proxy_header`` tells from whom a request came; of another
    that seems to be one the log tells, once. ``first``
    are before all that looks at who asks, ``last`` behind all that may refuse a request.
    """

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as raised:
            if isinstance(raised, web.HTTPException) and raised.status < 400:
                raise
            error = error_of(raised)
            if isinstance(raised, ConnectionError) and request.transport is None:
                log.debug("whoever asked went away")
                error = CallerError()
            if error is None:
                log.exception("a request failed by a fault of ours")
                error = InterviewPeerError()
            response = error_response(request.path, error)
            if isinstance(raised, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(raised.allowed_methods))
            return response

    @web.middleware
    async def pages(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "OPTIONS" and is_candidates(request.path):
            return origins.preflight(request)
        origins.check(request)
        return await handler(request)

    @web.middleware
    async def candidates(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and is_candidates(request.path):
            # An integrator may end hundreds of interviews from one address.
            if not (_takes_key(request) and await access.is_operators(request)):
                request.app[LIMITS].request(request.remote)
            if request.path not in OFFER_PATHS:
                most = min(messages.SHORT_BYTES, request.client_max_size)
                request = request.clone(client_max_size=most)
        return await handler(request)

    @web.middleware
    async def operator(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(OPERATOR_PATHS):
            await access.check_operator(request)
            be_patient(request)
        return await handler(request)

    @web.middleware
    async def uncompressed(request: web.Request, handler: Handler) -> web.StreamResponse:
        check_uncompressed(request)
        return await handler(request)

    suspected = False

    @web.middleware
    async def behind(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal suspected
        values = request.headers.getall(proxy_header, ())
        if values:
            peer = request.remote
            caller = caller_behind(peer, proxy_header, values, proxies)
            if caller != peer:
                request = request.clone(remote=caller or "")
            elif not suspected and may_be_proxy(peer) and not within(peer, proxies):
                suspected = True
                log.warning(
                    "requests come through a proxy that is not trusted: its callers count as one",
                    extra={"proxy": peer, "setting": "INTERVIEW_TRUSTED_PROXIES"},
                )
        return await handler(request)

    @web.middleware
    async def in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
        wait = request.app[LIMITS].turn(request.remote, probes=request.path in PROBES)
        if wait:
            await asyncio.sleep(wait)
            if request.transport is None:
                raise ConnectionResetError
        return await handler(request)

    outer = [errors, behind, *first, in_turn]
    return [*outer, pages, candidates, operator, uncompressed, *last]


def _takes_key(request: web.Request) -> bool:
    """Whether an operator's key opens this path, be it that others may use it too."""
    resource = request.match_info.route.resource
    return resource is not None and f"{request.method} {resource.canonical}" in scopes.NEEDED


def check_uncompressed(body: web.Request | BodyPartReader) -> None:
    """Refuse a body, or a part of one, that is compressed: a small one may unfold without end.

    Raises:
        UnsupportedContentType: it is.
    """
    if body.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedContentType("Bodies must not be compressed: leave Content-Encoding out.")
