"""The HTTP server beneath the application: callers' faults that aiohttp would answer itself.

A request that cannot be parsed, or expects what we do not do, never reaches the application's
middlewares. Here it gets an error in our own form, and no traceback in the log: anybody can send
such a thing as often as they like.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import hdrs, web

from ..errors import CallerError, ExpectationFailed
from . import forms

log = logging.getLogger(__name__)


class Runner(web.AppRunner):
    """Runs an application behind a server of this module."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        # Compressed bodies are refused by the application, in its own form; decompressing them
        # before would let a small request become a large one.
        return _Connection(self, loop=asyncio.get_running_loop(), auto_decompress=False)


class _Connection(web.RequestHandler):
    __slots__ = ()

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: forms.Answer
    ) -> tuple[web.StreamResponse, bool]:
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            request_handler = _refuse_expectation
        return await super()._handle_request(request, start_time, request_handler)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != 400 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        log.debug("a request could not be parsed", extra={"error": type(exc).__name__})
        response = forms.error_response(
            request.path,
            CallerError("The request is not HTTP that could be read; a header may be too long."),
        )
        response.force_close()
        return response


async def _refuse_expectation(request: web.BaseRequest) -> web.StreamResponse:
    response = forms.error_response(request.path, ExpectationFailed())
    # The client may never send the body it announced.
    response.force_close()
    return response
