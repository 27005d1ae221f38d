"""All checks of ``interview-peer doctor``, in the order in which they are read.

They run at once, beside a server that may be running, and change nothing of its.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ..core.consent import Operator
from ..errors import ConfigurationError
from ..personas import Personas
from ..settings import Settings
from . import kept, machine, network, service
from .report import Check, Row, Status, run_all

SETTINGS: Final = "settings"

CHECKS: Final = (
    SETTINGS,
    service.MODEL,
    network.UDP,
    network.TURN,
    service.CLOCK,
    machine.DISK,
    kept.DATABASE,
    kept.STORE,
    network.WEBHOOKS,
)
"""Every check by its name; each has one row or more."""


async def examine(settings: Settings, *, send_test: bool = False) -> list[Row]:
    """Try everything. Takes about fifteen seconds at most; never raises for what it finds."""
    database = kept.DatabaseLook(settings)
    looking = asyncio.create_task(database.row(), name="look at the database")

    async def by_database() -> float | None:
        await asyncio.wait([looking])
        return None if database.found is None else database.found.ahead

    async def notices() -> list[Row]:
        await asyncio.wait([looking])
        receivers = () if database.found is None else database.found.receivers
        return await network.webhooks(settings, receivers, send_test=send_test)

    async def state() -> list[Row]:
        return [await asyncio.shield(looking)]

    checks = (
        Check(SETTINGS, lambda: _settings(settings)),
        Check(service.MODEL, lambda: service.models(settings)),
        Check(network.UDP, lambda: network.udp(settings), 25.0),
        Check(network.TURN, lambda: network.relays(settings)),
        Check(service.CLOCK, lambda: service.clock(settings, by_database)),
        Check(machine.DISK, lambda: machine.disk(settings)),
        Check(kept.DATABASE, state),
        Check(kept.STORE, lambda: kept.store(settings), 20.0),
        Check(network.WEBHOOKS, notices, 25.0),
    )
    try:
        return await run_all(checks)
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _settings(settings: Settings) -> list[Row]:
    try:
        Personas.load(
            settings.personas_dir, Operator(settings.organisation, settings.privacy_contact)
        )
    except ConfigurationError as error:
        return [Row(SETTINGS, Status.FAIL, error.message, "Correct the persona file.")]
    rows = []
    if not settings.simulation and settings.allow_anonymous:
        finding = "INTERVIEW_ALLOW_ANONYMOUS lets anyone hold interviews at your expense."
        cure = "Set INTERVIEW_JOIN_SECRET and INTERVIEW_ADMIN_KEY instead."
        rows.append(Row(SETTINGS, Status.WARN, finding, cure))
    if not settings.simulation and not settings.on_loopback and settings.public_url is None:
        finding = "INTERVIEW_PUBLIC_URL is not set, so links name whatever host a request named."
        cure = "Set it to the https:// address that candidates and receivers use."
        rows.append(Row(SETTINGS, Status.WARN, finding, cure))
    would = "simulate the voice service" if settings.simulation else "be live"
    return rows or [Row(SETTINGS, Status.PASS, f"All can be used; the server would {would}.")]
