"""Whether the voice service takes the key and has the models, and whether our clock is right."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import aiohttp

from .. import __version__
from ..core.consent import Operator
from ..errors import ConfigurationError
from ..model.check import Finding, Verdict, check_models
from ..model.openai_realtime import RealtimeConnector
from ..personas import Personas
from ..settings import Settings
from .report import Row, Status

MODEL: Final = "model"
CLOCK: Final = "clock"

MOST_AHEAD_SECONDS: Final = 5.0
"""Beyond it, tokens and signatures with short lives begin to be refused."""
FAR_AHEAD_SECONDS: Final = 60.0
"""Beyond it, most are."""
DATE_SECONDS: Final = 5.0

_CURES: Final = {
    Verdict.CLOSING: "Set INTERVIEW_MODEL, or the persona's model, to another.",
    Verdict.SHUT_DOWN: "Set INTERVIEW_MODEL, or the persona's model, to another.",
    Verdict.MISSING: "Set INTERVIEW_MODEL, or the persona's model, to one that this key may use.",
    Verdict.REFUSED: "Set OPENAI_API_KEY to a valid key of the project.",
    Verdict.NOT_KNOWN: "Let HTTPS to OPENAI_BASE_URL out, or try again later.",
}


def client() -> aiohttp.ClientSession:
    """A session that takes neither proxies nor cookies from its surroundings."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"interview_peer/{__version__}"},
    )


async def models(settings: Settings) -> list[Row]:
    """The key, and every model that an interview will ask for."""
    if settings.simulation or settings.openai_api_key is None:
        return [Row(MODEL, Status.PASS, "Simulation: neither a key nor a model is needed.")]
    try:
        personas = Personas.load(
            settings.personas_dir, Operator(settings.organisation, settings.privacy_contact)
        )
    except ConfigurationError:
        # Another check's row says so.
        personas = Personas.load()
    async with client() as http:
        key = settings.openai_api_key.get_secret_value()
        connector = RealtimeConnector(settings.openai_base_url, key, http)
        asked = personas.models(settings.openai_model)
        found = await check_models(connector, asked, datetime.now(UTC).date())
    return [_model_row(one) for one in found]


def _model_row(found: Finding) -> Row:
    if found.is_well:
        return Row(MODEL, Status.PASS, f"{found.sentence} No day of its end is known.")
    status = Status.WARN if found.verdict is Verdict.CLOSING else Status.FAIL
    return Row(MODEL, status, found.sentence, _CURES[found.verdict])


async def clock(
    settings: Settings, by_database: Callable[[], Awaitable[float | None]]
) -> list[Row]:
    """This machine's clock against the voice service's and the database's.

    ``by_database`` says by how many seconds the database's is ahead, if it has one of its own.
    """
    by_service, ahead = await asyncio.gather(_by_service(settings), by_database())
    measured = [
        (name, value)
        for name, value in (("the voice service's", by_service), ("the database's", ahead))
        if value is not None
    ]
    if not measured:
        finding = "There is no other clock to compare this machine's with."
        return [Row(CLOCK, Status.WARN, finding, "See that the machine's time is synchronised.")]
    return [_clock_row(name, value) for name, value in measured]


def _clock_row(name: str, ahead: float) -> Row:
    off = abs(ahead)
    if off <= MOST_AHEAD_SECONDS:
        return Row(CLOCK, Status.PASS, f"This machine's clock agrees with {name}.")
    way = "behind" if ahead > 0 else "ahead of"
    finding = f"This machine's clock is {off:.0f} s {way} {name}."
    cure = (
        "Synchronise the machines' time (NTP): tokens, TURN credentials and webhook signatures "
        "rest on it."
    )
    return Row(CLOCK, Status.WARN if off <= FAR_AHEAD_SECONDS else Status.FAIL, finding, cure)


async def _by_service(settings: Settings) -> float | None:
    """Seconds that the service's clock is ahead; None if it tells no time. Asked without a key."""
    if settings.simulation:
        return None
    before = time.time()
    try:
        async with (
            asyncio.timeout(DATE_SECONDS),
            client() as http,
            http.get(settings.openai_base_url, allow_redirects=False) as answer,
        ):
            told = answer.headers.get("Date", "")
    except (aiohttp.ClientError, OSError):
        return None
    after = time.time()
    try:
        theirs = email.utils.parsedate_to_datetime(told).timestamp()
    except (ValueError, OverflowError):
        return None
    # The header leaves the fraction of its second out.
    return theirs + 0.5 - (before + after) / 2
