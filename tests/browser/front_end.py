"""OpenAI's browser SDK as its users install it, and a page of another origin that uses it.

The SDK comes from its registry, in the versions and with the hashes of ``sdk/package-lock.json``,
into pytest's cache folder, once for each lock file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Page, Response

from tests.support.machine import lacking, program

SDK = Path(__file__).with_name("sdk")
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund")
INSTALL_SECONDS = 100
INSTALLED = ".installed"
"""Stands where all of it was installed."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A front end</title></head>
<body><script src="/bundle.js"></script></body></html>
"""


def bundled(cache: pytest.Cache, target: Path) -> Path:
    """The page's script with the SDK in it, in the folder ``target``."""
    npm = program("npm")
    mark = hashlib.sha256((SDK / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(cache.mkdir("sdk")) / mark
    # Several workers of one run share the folder.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Path(shutil.copy(_bundle(npm, folder), target))


def _bundle(npm: str, folder: Path) -> Path:
    commands: list[tuple[str, ...]] = [(npm, "run", "--silent", "bundle")]
    if not (folder / INSTALLED).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        commands.insert(0, (npm, *INSTALL))
    for name in ("package.json", "package-lock.json", "page.js"):
        shutil.copy(SDK / name, folder)
    for command in commands:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            lacking("the registry of npm does not answer")
        if done.returncode != 0:
            lacking(f"{' '.join(command[1:])} failed: {done.stderr[-2000:]}")
    (folder / INSTALLED).touch()
    return folder / "bundle.js"


@contextlib.asynccontextmanager
async def front_end(bundle: Path) -> AsyncIterator[str]:
    """Serves the page; its origin."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def script(request: web.Request) -> web.FileResponse:
        return web.FileResponse(bundle)

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/bundle.js", script)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Received:
    """Everything that a page gets of a server: heads and bodies of answers, frames of sockets,
    events of data channels."""

    def __init__(self, page: Page, server_url: str) -> None:
        self._page = page
        self._texts: list[str] = []
        self._reading: list[asyncio.Task[None]] = []
        place = server_url.partition("://")[2]

        def answered(response: Response) -> None:
            if response.url.partition("://")[2].startswith(place):
                task = asyncio.create_task(self._read(response), name=f"read {response.url}")
                self._reading.append(task)

        page.on("response", answered)
        page.on("websocket", lambda socket: socket.on("framereceived", self._frame))

    def _frame(self, data: str | bytes) -> None:
        self._texts.append(data if isinstance(data, str) else data.decode("latin-1"))

    async def _read(self, response: Response) -> None:
        body = ""
        # The answer to a preflight, and one without a body, have nothing to read.
        with contextlib.suppress(Exception):
            body = await response.text()
        self._texts.append(json.dumps([response.url, await response.all_headers(), body]))

    async def text(self) -> str:
        """All of it so far."""
        await asyncio.gather(*self._reading)
        events = await self._page.evaluate("captured.events")
        return "\n".join([*self._texts, *map(json.dumps, events)])
