"""A real nginx or Caddy on loopback, run with the very configuration that ``deploy/`` holds.

Name, ports, certificate and logs are this machine's own; nothing else is another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from .caller import Caller
from .certificates import self_signed
from .machine import program
from .ports import HOST, free_port
from .server import ROOT
from .waiting import eventually

NAME: Final = "interviews.example.org"
"""The public host name that the files in ``deploy/`` have."""
READY_WITHIN: Final = 10.0
STOPS_WITHIN: Final = 10.0


class Proxy:
    """A running proxy: where it is reached, and every line it has printed."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, plain: int, folder: Path
    ) -> None:
        self.process = process
        self.port = port
        self.plain = plain
        self.folder = folder
        self.lines: deque[str] = deque(maxlen=5000)

    @property
    def url(self) -> str:
        """Its address, by the name that it serves."""
        return f"https://{NAME}:{self.port}"

    async def without_tls(self, path: str) -> tuple[int, str | None]:
        """The status of a GET over plain HTTP, and where it is sent on to."""
        connector = aiohttp.TCPConnector(resolver=_AtHome(), force_close=True)
        url = f"http://{NAME}:{self.plain}{path}"
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.get(url, allow_redirects=False) as answer,
        ):
            return answer.status, answer.headers.get("Location")

    def tail(self) -> str:
        """Its last lines, for the message of a failing test."""
        return "\n".join(list(self.lines)[-40:])

    @contextlib.asynccontextmanager
    async def calling(self, address: str) -> AsyncIterator[Caller]:
        """A caller through the proxy, from one of this machine's addresses."""
        trust = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        connector = aiohttp.TCPConnector(
            ssl=trust, resolver=_AtHome(), local_addr=(address, 0), force_close=True
        )
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            caller = Caller(self.url, http)
            try:
                yield caller
            finally:
                await caller.close()


class _AtHome(AbstractResolver):
    """Every name is of this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=kind,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, one in ((socket.AF_INET, HOST), (socket.AF_INET6, "::1"))
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def nginx(folder: Path, server: str) -> AsyncIterator[Proxy]:
    """nginx with ``deploy/nginx.conf`` before the server at ``server``, an address and a port."""
    command = program("nginx")
    port, plain = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a folder of the test's own
    cert, key = self_signed(folder, NAME)
    site = _documented(
        "nginx.conf",
        {
            "server 127.0.0.1:8080;": f"server {server};",
            "listen 80;": f"listen {HOST}:{plain};",
            "listen [::]:80;": f"listen [::1]:{plain};",
            "listen 443 ssl;": f"listen {HOST}:{port} ssl;",
            "listen [::]:443 ssl;": f"listen [::1]:{port} ssl;",
            f"/etc/letsencrypt/live/{NAME}/fullchain.pem": str(cert),
            f"/etc/letsencrypt/live/{NAME}/privkey.pem": str(key),
            "/var/log/nginx/interview-peer.log": str(folder / "access.log"),
        },
    )
    (folder / "site.conf").write_text(site)
    # Workers of a root's nginx would be somebody else, who cannot write here.
    user = "user root;\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {folder / kind};\n" for kind in kinds)
    (folder / "main.conf").write_text(
        f"{user}daemon off;\npid {folder / 'pid'};\nerror_log stderr info;\n"
        "events { worker_connections 512; }\n"
        # Debian's own file says this too.
        f"http {{\n{temporary}  gzip on;\n  sendfile on;\n  include {folder / 'site.conf'};\n}}\n"
    )
    arguments = ["-p", str(folder), "-c", str(folder / "main.conf"), "-e", "stderr"]
    async with _running([command, *arguments], folder, port, plain) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def caddy(folder: Path, server: str) -> AsyncIterator[Proxy]:
    """Caddy with ``deploy/Caddyfile`` before the server at ``server``, an address and a port."""
    command = program("caddy")
    port, plain = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a folder of the test's own
    cert, key = self_signed(folder, NAME)
    site = _documented(
        "Caddyfile",
        {
            f"\n{NAME} {{\n": f"\n{NAME}:{port} {{\n\tbind {HOST} ::1\n\ttls {cert} {key}\n",
            "127.0.0.1:8080\n": f"{server}\n",
        },
    )
    # Nothing is asked of anybody, and nothing of this machine is changed.
    own = f"{{\n\tadmin off\n\thttp_port {plain}\n\thttps_port {port}\n\tskip_install_trust\n}}\n"
    (folder / "Caddyfile").write_text(own + site)
    arguments = ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    async with _running([command, *arguments], folder, port, plain, home) as proxy:
        yield proxy


Before = Callable[[Path, str], AbstractAsyncContextManager[Proxy]]
PROXIES: Final[Mapping[str, Before]] = {"nginx": nginx, "caddy": caddy}
"""What puts a proxy before a server: of a folder for its files, the server's address and port."""


def _documented(name: str, values: Mapping[str, str]) -> str:
    """A file of ``deploy/`` with `values` put in; each of what they replace must be there."""
    text = (ROOT / "deploy" / name).read_text()
    for old, new in values.items():
        assert old in text, f"deploy/{name} no longer has {old!r}"
        text = text.replace(old, new)
    return text


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str],
    folder: Path,
    port: int,
    plain: int,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Proxy]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    proxy = Proxy(process, port, plain, folder)
    reader = asyncio.create_task(_read(proxy), name="read a proxy's output")
    try:
        await eventually(lambda: _answers(proxy), within=READY_WITHIN, what="the proxy answers")
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOPS_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()
        await reader


async def _read(proxy: Proxy) -> None:
    assert proxy.process.stdout is not None
    async for raw in proxy.process.stdout:
        proxy.lines.append(raw.decode(errors="replace").rstrip())


async def _answers(proxy: Proxy) -> bool:
    assert proxy.process.returncode is None, f"the proxy ended:\n{proxy.tail()}"
    # Without TLS, Caddy 2.6 listens on one of a site's addresses alone.
    for places in (((HOST, proxy.port),), ((HOST, proxy.plain), ("::1", proxy.plain))):
        if not any([await _takes(*place) for place in places]):
            return False
    return True


async def _takes(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
