"""Serves the metrics, on a port of their own that nobody outside should reach."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..errors import StartFailed, StateUnavailable
from ..notices.depth import Depth
from .collector import ServerCollector

log = logging.getLogger(__name__)

PATH: Final = "/metrics"


class MetricsPort:
    """One HTTP server with one path."""

    def __init__(self, collector: ServerCollector, depth: Callable[[], Awaitable[Depth]]) -> None:
        self._collector = collector
        self._depth = depth
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        app = web.Application()
        app.router.add_get(PATH, self._metrics)
        self._runner = web.AppRunner(app, access_log=None)

    async def open(self, host: str, port: int) -> int:
        """Listen; the port, which was chosen here where 0 was asked for.

        Raises:
            StartFailed: it cannot be had; the sentence says what to do.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartFailed(_problem(error, host, port)) from None
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            self._collector.depth = await self._depth()
        except StateUnavailable:
            self._collector.depth = None
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _problem(error: OSError, host: str, port: int) -> str:
    what = f"INTERVIEW_METRICS_PORT {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{what} is already in use; stop what uses it, or set INTERVIEW_METRICS_PORT to "
            "another."
        )
    return (
        f"{what} cannot be opened ({error.strerror or error}); set INTERVIEW_METRICS_PORT to a "
        "port above 1023, and INTERVIEW_HOST to an address of this machine."
    )
