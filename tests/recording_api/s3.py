"""A real S3-protocol server on loopback, and a bad network in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
from aiohttp import web

from interview_peer.errors import RecordingElsewhere, StoreUnavailable
from interview_peer.storage.finished import Place
from interview_peer.storage.store import S3Access, Store
from tests.support.server import clean_environment

_READY = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=0"

Action = Callable[[web.Request, bytes], Awaitable[bytes | web.Response | None]]
"""Gets a request and its body before they are passed on. Returns the body to pass on instead, an
answer of its own, or None to break the connection."""


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 in a process of its own; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = next(
            (match.group(1) for line in process.stdout if (match := _READY.search(line))), None
        )
        assert url is not None, "the S3 server did not start"
        # It logs every request; a full pipe would stop it.
        drain = threading.Thread(target=process.stdout.read, name="s3 log", daemon=True)
        drain.start()
        yield url
        process.kill()
        drain.join()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@dataclass
class Network:
    """What passes between the store's client and the server. ``act`` may spoil it."""

    url: str
    bucket: str
    act: Action | None = None
    puts: Counter[str] = field(default_factory=Counter)
    """Uploads that were begun, by the last part of the key; parts of one file count each."""

    def store(self, prefix: str = "kept") -> Store:
        """A client that gives up soon."""
        return _patient(Place(f"s3://{self.bucket}/{prefix}", self.url), StoreUnavailable)

    def reopen(self, place: Place) -> Store:
        """The same for a place of earlier settings."""
        return _patient(place, RecordingElsewhere)


def _patient(place: Place, trouble: type[StoreUnavailable]) -> Store:
    return Store.open(
        place.url,
        S3Access(place.endpoint, None, "test", "test-secret"),
        client={"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=10)},
        retry={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
        trouble=trouble,
    )


@contextlib.asynccontextmanager
async def network(server: str) -> AsyncIterator[Network]:
    """A fresh bucket behind a relay that can be told to misbehave."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        headers = {"Authorization": _SIGNED}
        async with http.put(f"{server}/{bucket}", headers=headers) as made:
            assert made.status == 200, await made.text()
        relay = Network("", bucket)

        async def pass_on(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            if request.method == "PUT":
                relay.puts[request.path.rpartition("/")[2]] += 1
            if relay.act is not None:
                spoilt = await relay.act(request, body)
                if isinstance(spoilt, web.Response):
                    return spoilt
                if spoilt is None:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                body = spoilt
            kept = {name: value for name, value in request.headers.items() if name != "Host"}
            async with http.request(
                request.method, server + request.raw_path, headers=kept, data=io.BytesIO(body)
            ) as answer:
                named = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("transfer-encoding", "connection", "date", "server")
                }
                if request.method == "HEAD":
                    response = web.StreamResponse(status=answer.status, headers=named)
                    await response.prepare(request)
                    return response
                named.pop("Content-Length", None)
                return web.Response(status=answer.status, headers=named, body=await answer.read())

        runner = web.AppRunner(
            _application(pass_on), handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield relay
        finally:
            await runner.cleanup()


def _application(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def never(request: web.Request, body: bytes) -> bytes:
    """Hold every upload for ever; let all else through."""
    if request.method in ("PUT", "POST"):
        await asyncio.Event().wait()
    return body


async def out_of_order(request: web.Request, body: bytes) -> web.Response:
    """Refuse everything, as a store in trouble does."""
    return web.Response(status=503)
