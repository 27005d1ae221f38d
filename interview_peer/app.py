"""Puts the rooms together: settings in, a running server out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import click
from aiohttp import web

from . import __version__
from .core.redaction import Redactor
from .errors import ConfigurationError
from .media.engine import check_versions
from .media.meters import LoopWatch, media_health
from .media.udp import UdpPort, default_address
from .model.openai_realtime import RealtimeConnector
from .personas import Personas
from .session.interview import Surroundings
from .session.registry import Interviews
from .settings import Settings
from .simulator.server import SimulatorSettings, start_simulator
from .storage import folder
from .storage.worker import StorageWorker
from .web.api import make_app
from .web.http import Runner

log = logging.getLogger(__name__)

SIMULATED_KEY = "sk-simulated-key-of-no-worth"
"""The simulator takes any key; a real one is never sent to it by a simulating server."""


@dataclass(frozen=True)
class Server:
    """A server that is running."""

    url: str
    """Where the page is: ``http://host:port``."""
    port: int
    interviews: Interviews
    browser_port: UdpPort
    storage: StorageWorker
    loop_watch: LoopWatch


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """Run the whole server; on leaving, end every interview and close everything.

    Raises:
        ConfigurationError: a setting cannot be used.
        StartFailed: the UDP port is in use.
        OSError: the HTTP port cannot be opened.
    """
    check_versions()
    personas = Personas.load(settings.personas_dir)
    try:
        await asyncio.to_thread(folder.prepare, settings.data_dir)
    except OSError as error:
        raise ConfigurationError(
            f"INTERVIEW_DATA_DIR {settings.data_dir} cannot be written to: "
            f"{error.strerror or error}."
        ) from None
    media_host = settings.udp_host or default_address()
    async with contextlib.AsyncExitStack() as stack:
        announced = await _resolved(settings.public_ips)
        browser_port = await UdpPort.open(media_host, settings.udp_port, announced)
        stack.callback(browser_port.close)
        # A name like fly-global-services is for what comes in; what we open ourselves takes the
        # ordinary route.
        model_host = media_host if _is_address(media_host) else default_address()

        base_url, key = settings.openai_base_url, settings.openai_api_key
        api_key = key.get_secret_value() if key is not None else ""
        if settings.simulation:
            simulator = await start_simulator(SimulatorSettings(udp_host=model_host))
            stack.push_async_callback(simulator.close)
            base_url, api_key = simulator.base_url, SIMULATED_KEY
        elif not api_key:
            raise ConfigurationError("OPENAI_API_KEY must be set to talk to OpenAI.")

        # No environment proxies or cookies: the key goes to the configured address alone.
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"interview_peer/{__version__}"},
            )
        )
        loop_watch = LoopWatch()
        loop_watch.start()
        stack.push_async_callback(loop_watch.close)
        storage = StorageWorker()
        storage.start()
        stack.push_async_callback(storage.close)
        connector = RealtimeConnector(base_url, api_key, http)
        stack.push_async_callback(connector.close)
        interviews = Interviews(
            Surroundings(
                connector=connector,
                browser_port=browser_port,
                model_host=model_host,
                storage=storage,
                data_dir=settings.data_dir,
                redactor=Redactor([*settings.secrets, api_key]),
                model=settings.openai_model,
                connect_seconds=settings.connect_seconds,
                hold_seconds=settings.hold_seconds,
            ),
            personas,
            idle_seconds=settings.idle_seconds,
            keep_seconds=settings.record_keep_seconds,
            max_interviews=settings.max_interviews,
        )
        interviews.start()
        stack.push_async_callback(interviews.close)

        runner = Runner(
            make_app(settings, interviews, lambda: media_health(browser_port, loop_watch)),
            shutdown_timeout=5,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        port = int(runner.addresses[0][1])
        name = "localhost" if settings.on_loopback else settings.host
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        log.info(
            "listening",
            extra={
                "url": url,
                "mode": "simulation" if settings.simulation else "live",
                "udp": f"{browser_port.address[0]}:{browser_port.address[1]}",
                "announced": ",".join(browser_port.announced),
                "version": __version__,
            },
        )
        # What lives now lives as long as the process: keep it out of every later collection.
        gc.freeze()
        try:
            yield Server(url, port, interviews, browser_port, storage, loop_watch)
        finally:
            # Interviews end before the HTTP server does, so that clients are told over signalling.
            await interviews.close()


async def _resolved(hosts: tuple[str, ...]) -> list[str]:
    """Addresses of hosts that are announced; a candidate cannot carry a name.

    Raises ``ConfigurationError`` for a name that leads nowhere.
    """
    loop, found = asyncio.get_running_loop(), []
    for host in hosts:
        if _is_address(host):
            found.append(host)
            continue
        try:
            answers = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except OSError:
            raise ConfigurationError(
                f"INTERVIEW_PUBLIC_IP names {host}, which has no address."
            ) from None
        found.append(str(answers[0][4][0]))
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def serve(settings: Settings) -> None:
    """Run until cancelled, after printing one line with the address to open."""
    async with running(settings) as server:
        click.echo(f"interview_peer is ready: {server.url}")
        await asyncio.get_running_loop().create_future()
