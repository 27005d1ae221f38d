"""What browsers are told and held to: whose pages may use this server, and the headers of answers.

Pages of the server's own may do everything. Pages of other origins may do what candidates do, if
``INTERVIEW_ALLOWED_ORIGINS`` lists them, or if the server is open to all and nothing is listed;
what operators do is for no other page. A request without ``Origin`` was made for no page, and is
not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web

from ..core.origins import Pages, origin_of
from ..core.proxies import FORWARDED_PROTO, Network, is_secure_behind
from ..errors import NotFound, OriginNotAllowed
from ..settings import Settings

CANDIDATE_PATHS: Final = (
    "/api/generate-ephemeral-key",
    "/api/sdp-exchange",
    "/api/sessions",
    "/api/personas",
    "/api/consent",
    "/api/ice-servers",
    "/v1/realtime/calls",
    "/health",
)
"""What front ends call, wherever they are served from."""

ALLOWED_HEADERS: Final = (
    "authorization, content-type, x-openai-agents-sdk, openai-safety-identifier"
)
"""The names OpenAI's browser SDK asks for, and what a JSON POST needs."""

PREFLIGHT_SECONDS: Final = 600
HSTS: Final = "max-age=31536000"
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

_BENEATH: Final = tuple(f"{path}/" for path in CANDIDATE_PATHS)

_HEADERS: Final = {
    # A frame of another origin gets the microphone by its `allow` attribute, not by this.
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_SERVER: Final = "interview_peer"
"""In the place of aiohttp's own header, which tells strangers its version and Python's."""
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"


class Origins:
    """The rules of one server, and the headers that follow from them."""

    def __init__(self, settings: Settings, proxies: Sequence[Network] = ()) -> None:
        """``proxies`` are believed when they say that a request came over TLS."""
        listed = settings.allowed_origins
        self._pages = Pages(
            listed=frozenset(listed),
            public=None if settings.public_url is None else origin_of(settings.public_url),
            anybodys=settings.open_to_all and not listed,
        )
        self._proxies = proxies
        self._tls = (settings.public_url or "").startswith("https://")
        self._framed = _policy(listed, frames=" ".join(listed) or "'none'", wide=self.open)
        self._alone = _policy(listed, frames="'none'", wide=self.open)

    @property
    def open(self) -> bool:
        """Whether pages of every origin may do what candidates do."""
        return self._pages.anybodys

    def check(self, request: web.Request) -> None:
        """Refuse what a page must not do here: requests that change something, and WebSockets.

        What is only read is answered; without a header of ours a browser shows it to no other page.

        Raises:
            OriginNotAllowed: the page is of an origin that may not.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or (request.method in SAFE_METHODS and not is_socket(request)):
            return
        candidates = is_socket(request) or is_candidates(request.path)
        if not (self._admits(request, origin) if candidates else self._is_own(request, origin)):
            raise OriginNotAllowed

    def preflight(self, request: web.Request) -> web.Response:
        """What a browser asks before a page's request to a candidates' path is sent.

        Raises:
            NotFound: there is nothing at that path.
            OriginNotAllowed: pages of this origin may not.
        """
        refused = request.match_info.http_exception
        if not isinstance(refused, web.HTTPMethodNotAllowed):
            raise NotFound
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._admits(request, origin):
            raise OriginNotAllowed
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(
                    sorted(refused.allowed_methods - {"HEAD"})
                ),
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_SECONDS),
            },
        )

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give an answer its headers, just before it is sent; streams and failures as well."""
        headers = response.headers
        headers[hdrs.SERVER] = _SERVER
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        framed = request.path == "/" or request.path.startswith("/i/")
        headers.setdefault("Content-Security-Policy", self._framed if framed else self._alone)
        # A page's files may be kept, but not used unasked: after an upgrade a browser would put
        # scripts of the version before beside newer ones.
        kept = "no-cache" if request.path.startswith("/static/") else "no-store"
        headers.setdefault(hdrs.CACHE_CONTROL, kept)
        if self._came_by_tls(request):
            headers.setdefault("Strict-Transport-Security", HSTS)
        if is_candidates(request.path):
            self._share(request, response)

    def _share(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell browsers which other origin's page may see the answer."""
        headers = response.headers
        if self.open:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
        else:
            # A cache must not give one page what was meant for another.
            headers[hdrs.VARY] = "Origin"
            origin = request.headers.get(hdrs.ORIGIN)
            if origin is None or not self._admits(request, origin):
                return
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "Location, Retry-After"

    def _admits(self, request: web.Request, origin: str) -> bool:
        return self._pages.admit(origin, request.host)

    def _is_own(self, request: web.Request, origin: str) -> bool:
        return self._pages.is_own(origin, request.host)

    def _came_by_tls(self, request: web.Request) -> bool:
        if self._tls or request.secure:
            return True
        # Of the connection itself: who the request came from may have been replaced by now.
        peer = request.get_extra_info("peername")
        values = request.headers.getall(FORWARDED_PROTO, ())
        return is_secure_behind(peer[0] if peer else None, values, self._proxies)


def bare(response: web.StreamResponse) -> web.StreamResponse:
    """Give an answer, which no application will ``dress``, what is the same for all of them."""
    response.headers[hdrs.SERVER] = _SERVER
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", _NOTHING)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    return response


def is_socket(request: web.Request) -> bool:
    """Whether the request wants to become a WebSocket."""
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def is_candidates(path: str) -> bool:
    """Whether the path, or what is beneath it, is what front ends call."""
    return path in CANDIDATE_PATHS or path.startswith(_BENEATH)


def _policy(listed: Sequence[str], *, frames: str, wide: bool) -> str:
    """The content security policy of a page.

    The page's server field may name another server, which works with this one if each lists the
    other; on a server that is open to all it may name any.
    """
    others = [one for origin in listed for one in (origin, origin.replace("http", "ws", 1))]
    if wide:
        others = ["http:", "https:", "ws:", "wss:"]
    return "; ".join(
        (
            "default-src 'none'",
            *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "font")),
            "media-src 'self' blob:",
            " ".join(("connect-src 'self'", *others)),
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {frames}",
        )
    )
