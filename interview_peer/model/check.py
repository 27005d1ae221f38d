"""Asks the voice service whether the models that interviews will use are there, and for how long.

What is found is told to the log and changes nothing: an interview that cannot be held is refused
when it is asked for, with the service's own word.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from ..errors import UpstreamAuthFailed, UpstreamError
from ..tasks import stop
from .openai_realtime import RealtimeConnector

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Models that are asked for at the same time."""


class Verdict(enum.Enum):
    """What the service says of a model. The value goes into logs."""

    WELL = "well"
    CLOSING = "closing"
    """It works, and the day on which it is shut down is known."""
    SHUT_DOWN = "shut_down"
    MISSING = "missing"
    """There is none of that name, or none for this key."""
    REFUSED = "refused"
    """The key is not taken."""
    NOT_KNOWN = "not_known"
    """The service did not answer, or not in a way that says anything."""


_SENTENCES: Final = {
    Verdict.WELL: "The model {model} is there.",
    Verdict.CLOSING: "The model {model} will be shut down on {day}; choose another before.",
    Verdict.SHUT_DOWN: "The model {model} was shut down on {day}; choose another.",
    Verdict.MISSING: "The voice service has no model {model} for this key; choose another.",
    Verdict.REFUSED: "The voice service does not take the key, so {model} could not be looked for.",
    Verdict.NOT_KNOWN: "Whether the voice service has the model {model} could not be learned.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was learned of one model."""

    model: str
    verdict: Verdict
    shutdown: date | None = None
    """The last day that the service names for it, if it names one."""

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to be done."""
        return self.verdict is Verdict.WELL

    @property
    def sentence(self) -> str:
        """The finding for people."""
        return _SENTENCES[self.verdict].format(model=self.model, day=self.shutdown)


async def check_model(connector: RealtimeConnector, model: str, today: date) -> Finding:
    """Ask for one model. Takes ``openai_realtime.MODEL_SECONDS`` at most, and never raises."""
    try:
        described = await connector.model(model)
    except UpstreamAuthFailed:
        return Finding(model, Verdict.REFUSED)
    except UpstreamError:
        return Finding(model, Verdict.NOT_KNOWN)
    if described is None:
        return Finding(model, Verdict.MISSING)
    day = _day(described.get("shutdown_date"))
    if day is None:
        return Finding(model, Verdict.WELL)
    return Finding(model, Verdict.SHUT_DOWN if day <= today else Verdict.CLOSING, day)


async def check_models(
    connector: RealtimeConnector, models: Iterable[str], today: date
) -> list[Finding]:
    """Ask for several models, each once, in order of their names."""
    few = asyncio.Semaphore(AT_ONCE)

    async def check(model: str) -> Finding:
        async with few:
            return await check_model(connector, model, today)

    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(check(model), name=f"check model {model}")
            for model in sorted(set(models))
        ]
    return [one.result() for one in asking]


class StartupCheck:
    """Looks after the models once, beside the start, which does not wait for it."""

    def __init__(self, connector: RealtimeConnector, models: Iterable[str]) -> None:
        self._connector = connector
        self._models = frozenset(models)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._check(), name="check models")

    async def close(self) -> None:
        """Stop asking. Idempotent."""
        await stop(self._task)

    async def _check(self) -> None:
        for found in await check_models(self._connector, self._models, datetime.now(UTC).date()):
            extra: dict[str, Any] = {"model": found.model, "finding": found.verdict.value}
            if found.shutdown is not None:
                extra["shutdown"] = found.shutdown.isoformat()
            if found.is_well:
                log.info("a model was looked for", extra=extra)
            else:
                log.warning(found.sentence, extra=extra)


def _day(told: Any) -> date | None:
    """The day that the service names, as a date or in Unix seconds; None if it names none."""
    try:
        if isinstance(told, str):
            return date.fromisoformat(told[:10])
        if isinstance(told, int | float) and not isinstance(told, bool):
            return datetime.fromtimestamp(told, UTC).date()
    except (ValueError, OverflowError, OSError):
        pass
    return None
