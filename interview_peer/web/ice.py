"""``GET /api/ice-servers``: relays for the browser that cannot send UDP to us directly."""

from __future__ import annotations

import secrets
import time
from typing import Final

from aiohttp import web

from ..core.allowance import Allowance, caller_of
from ..core.turn import for_browser
from ..errors import RateLimited
from ..settings import Settings
from .joining import Joining

PATH: Final = "/api/ice-servers"

PER_SECOND: Final = 5.0
BURST: Final = 20
"""Generous, because behind a proxy all browsers come from one address."""

LABEL_BYTES: Final = 9


class IceServersPath:
    """Hands out the configured servers, with credentials made for this one request."""

    def __init__(self, settings: Settings, joining: Joining) -> None:
        self._joining = joining
        self._servers = settings.ice_servers
        secret = settings.turn_secret
        self._secret = secret.get_secret_value() if secret is not None else None
        self._ttl = settings.turn_ttl_seconds
        self._allowance = Allowance(PER_SECOND, BURST)

    async def get(self, request: web.Request) -> web.Response:
        """What to give to ``RTCPeerConnection``, and for how many seconds it is good.

        Raises:
            RateLimited: this address asks too often.
            Unauthorized: this caller may not join any interview.
        """
        if not self._allowance.take(caller_of(request.remote), time.monotonic()):
            raise RateLimited
        await self._joining.admit(request)
        # Random, and forgotten at once: the relay's operator learns nothing of the interview.
        label = secrets.token_urlsafe(LABEL_BYTES)
        return web.json_response(
            {
                "iceServers": for_browser(
                    self._servers, self._secret, self._ttl, time.time(), label
                ),
                "iceTransportPolicy": "all",
                "ttl": self._ttl,
            }
        )
