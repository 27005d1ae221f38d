"""Puts the rooms together: settings in, a running server out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import click
from aiohttp import TCPConnector, web

from . import __version__
from .core import speech_redaction
from .core.consent import Operator
from .core.redaction import Redactor
from .doctor import relays
from .errors import ConfigurationError
from .finishing.worker import Finisher
from .media import native
from .media.addresses import default_address, towards_model
from .media.descriptors import Descriptors, raise_limit
from .media.engine import check_versions
from .media.meters import DelayMeter, LoopWatch, media_health
from .media.udp import RECEIVE_BUFFER_BYTES, UdpPort
from .metrics.collector import ServerCollector, Sources
from .metrics.port import MetricsPort
from .model.check import StartupCheck
from .model.openai_realtime import RealtimeConnector
from .notices.depth import depth
from .notices.names import Names
from .notices.service import Notices
from .personas import Personas
from .session import outdated
from .session.announcer import Announcer
from .session.archive import Archive
from .session.drain import Drain
from .session.erasures import Erasures
from .session.openings import Openings
from .session.reader import EventReader
from .session.recovery import Recovery
from .session.registry import Interviews
from .session.stop_request import StopRequest
from .session.surroundings import Surroundings
from .session.tally import Tally
from .session.told import Told
from .settings import Settings
from .simulator.server import SimulatorSettings, start_simulator
from .state import migrate
from .state.chronicle import Chronicle
from .state.database import Database
from .state.nodes import Heartbeat, NodeName, Reach
from .state.parts import StateParts
from .state.place import place_of
from .state.pruning import Pruner, Retention
from .state.records import Records
from .storage import folder
from .storage.eraser import BY_AGE
from .storage.keeper import Keeper
from .storage.room import MEGABYTE, Room
from .storage.shelf import Shelf
from .storage.store import S3Access, Store
from .storage.stores import reopening
from .storage.worker import StorageWorker
from .types import Json
from .watchdog import watching
from .web.api import make_app
from .web.http import Runner
from .web.limits import LIMITS

log = logging.getLogger(__name__)

GC_THRESHOLDS: Final = (2000, 10, 10)
"""For ``gc.set_threshold``. A pass over all objects of 20 interviews and 400 connections holds the
event loop for 20 to 35 ms; with Python's own (700, 10, 10) there are three times as many of them.
Ended interviews wait for it: at thresholds three times as high again the server of ``make soak``
took 430 MB under load instead of 265."""
LOOK_UP_SECONDS: Final = 3.0
"""How long the start waits to learn where the voice service is."""

DRAIN_FILES_SECONDS: Final = 25.0
"""How long mixes and manifests of interviews that are over are waited for before a planned end."""

DRAIN_RECORDS_SECONDS: Final = 3.0
"""The same for what is to be written to the database."""

DRAIN_NOTICES_SECONDS: Final = 10.0
"""The same for notices that receivers can take."""

REQUESTS_SECONDS: Final = 5.0
"""How long requests that are being answered are waited for at the end, and as long again once they
are cancelled."""

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
    finishing: Finisher
    loop_watch: LoopWatch
    state: StateParts
    keeper: Keeper
    archive: Archive
    erasures: Erasures
    drain: Drain
    metrics_port: int | None


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """Run the whole server; on leaving, end every interview and close everything.

    Raises:
        ConfigurationError: a setting cannot be used.
        StartFailed: the UDP port is in use.
        OSError: the HTTP port cannot be opened.
    """
    check_versions()
    personas = Personas.load(
        settings.personas_dir,
        Operator(settings.organisation, settings.privacy_contact, settings.retention_days),
    )
    try:
        await asyncio.to_thread(folder.prepare, settings.data_dir)
    except OSError as error:
        raise ConfigurationError(
            f"INTERVIEW_DATA_DIR {settings.data_dir} cannot be written to: "
            f"{error.strerror or error}."
        ) from None
    if not settings.simulation:
        for one in await relays.require(settings):
            log.warning(
                "a TURN address cannot be used; candidates who need it get no audio",
                extra={"url": one.relay.url, "finding": one.verdict.value},
            )
    descriptors = Descriptors(raise_limit())
    media_host = settings.udp_host or default_address()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(loop.set_exception_handler, loop.get_exception_handler())
        loop.set_exception_handler(descriptors.guard)
        announced = await _resolved(settings.public_ips)
        use_native = _forwards_natively(settings.forwarder)
        browser_port = await UdpPort.open(
            media_host, settings.udp_port, announced, use_native=use_native
        )
        stack.callback(browser_port.close)

        base_url, key = settings.openai_base_url, settings.openai_api_key
        api_key = key.get_secret_value() if key is not None else ""
        if settings.simulation:
            simulator = await start_simulator(SimulatorSettings(), admin=False)
            stack.push_async_callback(simulator.close)
            base_url, api_key = simulator.base_url, SIMULATED_KEY
        elif not api_key:
            raise ConfigurationError("OPENAI_API_KEY must be set to talk to OpenAI.")

        # INTERVIEW_UDP_HOST is for what comes in; what we open ourselves takes the ordinary route.
        model_host = functools.partial(towards_model, await _addresses_of(base_url))

        # Not in the event loop's own few threads, which may all wait for a disk.
        names = Names()
        stack.push_async_callback(names.close)
        # No environment proxies or cookies: the key goes to the configured address alone.
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=TCPConnector(resolver=names),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"interview_peer/{__version__}"},
            )
        )
        to_browser = DelayMeter()
        loop_watch = LoopWatch()
        loop_watch.start()
        stack.push_async_callback(loop_watch.close)
        storage = StorageWorker()
        storage.start()
        stack.push_async_callback(storage.close)
        room = Room(settings.data_dir / folder.INTERVIEWS, settings.min_free_mb * MEGABYTE)
        room.start()
        stack.callback(room.close)
        openings = Openings(settings.max_interviews, room)
        connector = RealtimeConnector(base_url, api_key, http)
        stack.push_async_callback(connector.close)
        at = [f"[{one}]" if ":" in one else one for one in announced]
        audio = tuple(f"{one}:{browser_port.address[1]}" for one in at)
        state = await _open_state(stack, settings, audio)
        announcer = Announcer(state.database, settings.data_dir, state.chronicle.tell)
        announcer.start(after=state.recovered)
        stack.push_async_callback(announcer.close)
        finishing = Finisher(settings.data_dir, storage)
        finishing.listen(announcer.made)
        finishing.listen_to_failures(announcer.lost)
        # What is read from a folder for the database is read before the folder is mended.
        await finishing.start(after=state.recovered)
        stack.push_async_callback(finishing.close)
        redactor = Redactor([*settings.secrets, api_key])
        speech = speech_redaction.redactor(settings.redact_speech or "")
        reader = EventReader(redactor, speech)
        stack.push_async_callback(reader.close)
        tally = Tally()
        interviews = Interviews(
            Surroundings(
                connector=connector,
                browser_port=browser_port,
                model_host=model_host,
                model_delay=to_browser,
                descriptors=descriptors,
                use_native=use_native,
                storage=storage,
                finishing=finishing,
                data_dir=settings.data_dir,
                redactor=redactor,
                reader=reader,
                speech=speech,
                model=settings.openai_model,
                connect_seconds=settings.connect_seconds,
                hold_seconds=settings.hold_seconds,
                max_seconds=settings.max_seconds,
                max_tokens=settings.max_tokens,
                events_per_second=settings.events_per_second,
                tell=state.chronicle.tell,
                node_id=state.node_id,
                tally=tally,
            ),
            personas,
            idle_seconds=settings.idle_seconds,
            keep_seconds=settings.record_keep_seconds,
            openings=openings,
            require_consent=settings.require_consent,
        )
        finishing.spare(interviews.runs)
        interviews.start()
        stack.push_async_callback(interviews.close)

        access = _s3_access(settings)
        url = settings.recordings_url
        store = None if url is None else Store.open(url, access)
        shelf = Shelf(settings.data_dir, store, reopening(access))
        days = settings.retention_days
        keeper = Keeper(
            shelf,
            retention=None if days is None else timedelta(days=days),
            busy=interviews.runs,
            aged=lambda session_id: announcer.erased(session_id, BY_AGE),
            drop=finishing.drop,
        )
        finishing.listen(lambda folder: keeper.take(folder.session_id))
        keeper.start()
        stack.push_async_callback(keeper.close)
        archive = Archive(interviews, shelf, keeper)
        erasures = Erasures(state.database, settings.data_dir, state.place, archive.erase)
        erasures.start(after=state.recovered)
        stack.push_async_callback(erasures.close)
        if days is not None:
            told_of = outdated.Sources(
                state.database,
                shelf,
                state.place,
                state.chronicle.tell,
                state.chronicle.drained,
                busy=interviews.runs,
            )
            without_files = outdated.Outdated(told_of, timedelta(days=days))
            without_files.start(after=state.recovered)
            stack.push_async_callback(without_files.close)

        def health() -> Json:
            interviews.settle()
            return {
                **media_health(browser_port, to_browser, loop_watch, descriptors),
                "large_events": reader.statistics(),
            }

        drain = Drain(
            interviews,
            openings,
            seconds=settings.drain_seconds,
            finish=lambda: _finish_work(finishing, announcer, state),
        )
        stack.push_async_callback(drain.close)
        application = make_app(settings, interviews, health, state, archive, drain)
        metrics_port: int | None = None
        if settings.metrics_port is not None:
            sources = Sources(
                interviews=interviews,
                tally=tally,
                browser_port=browser_port,
                to_browser=to_browser,
                loop_watch=loop_watch,
                descriptors=descriptors,
                capacity=settings.max_interviews,
                draining=lambda: openings.draining,
                recordings=archive.statistics,
                chronicle=state.chronicle.statistics,
                notices=state.notices.statistics,
                limits=application[LIMITS].statistics,
                tasks=lambda: len(asyncio.all_tasks()),
                forwarder="native" if use_native else "python",
            )
            metrics = MetricsPort(ServerCollector(sources), lambda: depth(state.database))
            metrics_port = await metrics.open(settings.host, settings.metrics_port)
            stack.push_async_callback(metrics.close)
        runner = Runner(application, shutdown_timeout=REQUESTS_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        port = int(runner.addresses[0][1])
        name = "localhost" if settings.on_loopback else settings.host
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        if not settings.simulation:
            check = StartupCheck(connector, personas.models(settings.openai_model))
            check.start()
            stack.push_async_callback(check.close)
        _tell_of_limits(settings, browser_port, descriptors)
        log.info(
            "listening",
            extra={
                "url": url,
                "mode": "simulation" if settings.simulation else "live",
                "udp": f"{browser_port.address[0]}:{browser_port.address[1]}",
                "announced": ",".join(browser_port.announced),
                "descriptors": descriptors.limit,
                "forwarder": "native" if use_native else "python",
                "metrics": metrics_port,
                "version": __version__,
            },
        )
        # What lives now lives as long as the process: keep it out of every later collection.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            yield Server(
                url=url,
                port=port,
                interviews=interviews,
                browser_port=browser_port,
                storage=storage,
                finishing=finishing,
                loop_watch=loop_watch,
                state=state,
                keeper=keeper,
                archive=archive,
                erasures=erasures,
                drain=drain,
                metrics_port=metrics_port,
            )
        finally:
            # Interviews end before the HTTP server does, so that clients are told over signalling.
            await interviews.close()


async def _open_state(
    stack: contextlib.AsyncExitStack, settings: Settings, announced: tuple[str, ...]
) -> StateParts:
    """Open the database, close what an earlier process left, begin to write and to deliver.

    ``announced`` are the public addresses with ports that browsers are told.
    """
    database = await Database.open(settings.state_url, settings.data_dir)
    stack.push_async_callback(database.close)
    # Two processes on one SQLite file could damage it.
    node = await asyncio.to_thread(NodeName.claim, settings.data_dir, alone=database.is_sqlite)
    stack.callback(node.release)
    await migrate.prepare(database)
    place = await asyncio.to_thread(place_of, settings.data_dir)
    heartbeat: Heartbeat | None = None
    if not database.is_sqlite:
        reach = Reach(
            place=place,
            address=settings.internal_url,
            instance=settings.machine_id,
            announced=announced,
        )
        heartbeat = Heartbeat(database, node.name, reach=reach)
        await heartbeat.start()
        stack.push_async_callback(heartbeat.close)
    secret = settings.webhook_secret
    notices = Notices.open(
        database,
        url=settings.webhook_url,
        secret=None if secret is None else secret.get_secret_value(),
        allow=settings.webhook_allow,
        public_url=settings.public_url,
    )
    stack.push_async_callback(notices.close)
    chronicle = Chronicle(database, Records(notices.outbox, node.name, place), notices.wake)
    told = Told(settings.data_dir)
    told.start()
    stack.push_async_callback(told.close)
    chronicle.listen(told.written)
    chronicle.start()
    stack.push_async_callback(chronicle.close)
    recovery = Recovery(database, settings.data_dir, node.name, chronicle.tell, heartbeat)
    await recovery.start()
    stack.push_async_callback(recovery.close)
    await notices.start()
    dead = settings.dead_notice_days
    pruner = Pruner(
        database,
        Retention(
            notices=timedelta(days=settings.notice_days),
            dead=None if dead is None else timedelta(days=dead),
            keys=timedelta(days=settings.idempotency_days),
            acts=timedelta(days=settings.audit_days),
        ),
    )
    pruner.start()
    stack.push_async_callback(pruner.close)
    return StateParts(database, notices, chronicle, place, recovery.told, node.name, heartbeat)


def _s3_access(settings: Settings) -> S3Access:
    key, secret = settings.s3_access_key, settings.s3_secret_key
    return S3Access(
        settings.s3_endpoint,
        settings.s3_region,
        None if key is None else key.get_secret_value(),
        None if secret is None else secret.get_secret_value(),
    )


def _tell_of_limits(settings: Settings, port: UdpPort, descriptors: Descriptors) -> None:
    """Say what this machine gives less of than was asked for."""
    if not descriptors.suffice_for(settings.max_interviews):
        log.warning(
            "fewer files and sockets can be open than INTERVIEW_MAX_INTERVIEWS needs; raise the "
            "hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) or lower the setting",
            extra={"limit": descriptors.limit, "interviews": settings.max_interviews},
        )
    if port.receive_buffer < RECEIVE_BUFFER_BYTES:
        log.log(
            logging.INFO if settings.simulation else logging.WARNING,
            "the kernel gives the media port a small receive buffer; packets that come while the "
            "server is held up are lost sooner (Linux: sysctl -w net.core.rmem_max=%d)",
            RECEIVE_BUFFER_BYTES,
            extra={"bytes": port.receive_buffer},
        )


async def _addresses_of(base_url: str) -> tuple[str, ...]:
    """The IP addresses of the voice service's host; none where they cannot be learned."""
    host = urlsplit(base_url).hostname or ""
    if _is_address(host):
        return (host,)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            answers = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError:
        # It may be back when an interview needs it.
        return ()
    return tuple(str(answer[4][0]) for answer in answers)


async def _resolved(hosts: tuple[str, ...]) -> list[str]:
    """Addresses of hosts that are announced; a candidate cannot carry a name.

    A name may stand for one address of each family.

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
        # The first of each family: a browser may have but one of them.
        firsts: dict[int, str] = {}
        for family, _, _, _, address in answers:
            firsts.setdefault(family, str(address[0]))
        found += firsts.values()
    return found


def _forwards_natively(wanted: str) -> bool:
    if wanted == "native" and not native.BUILT:
        raise ConfigurationError(
            "INTERVIEW_FORWARDER is native, but this installation has no native forwarder; "
            "install a C compiler and Python's headers and install again, or leave it at auto."
        )
    if native.missing is not None:
        log.info("audio is forwarded by Python", extra={"reason": native.missing})
    return wanted != "python" and native.BUILT


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def serve(settings: Settings, stop: StopRequest | None = None) -> None:
    """Run until cancelled, or drained with a wish to end; first print a line with the address."""
    # Also while it starts and ends: the door is open before the one is over and after the other
    # has begun. What takes long in either (a migration, a slow disk) waits in threads.
    with watching(settings.watchdog_seconds):
        async with running(settings) as server:
            if stop is not None:
                stop.serves(server.drain)
            click.echo(f"interview_peer is ready: {server.url}")
            await server.drain.over.wait()


def work_to_finish(
    finishing: Finisher, announcer: Announcer, state: StateParts
) -> list[tuple[Callable[[], Awaitable[None]], float]]:
    """What is waited for once no interview runs any more, in order, and for how many seconds."""
    return [
        (state.chronicle.drained, DRAIN_RECORDS_SECONDS),
        (finishing.rested, DRAIN_FILES_SECONDS),
        (announcer.rested, DRAIN_RECORDS_SECONDS),
        (state.chronicle.drained, DRAIN_RECORDS_SECONDS),
        (state.notices.rested, DRAIN_NOTICES_SECONDS),
    ]


async def _finish_work(finishing: Finisher, announcer: Announcer, state: StateParts) -> None:
    """Wait, within bounds, until recordings are finished and notices are sent; what is left is
    taken up by the next start."""
    for work, seconds in work_to_finish(finishing, announcer, state):
        try:
            async with asyncio.timeout(seconds):
                await work()
        except TimeoutError:
            log.warning("not everything was finished before the end; the next start goes on")
