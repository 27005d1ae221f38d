"""What a check found: a row with pass, warn or fail, and what to do. Runs checks, all at once.

A check never takes longer than its time, and one that breaks is a row as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ..types import Json

SECONDS: Final = 12.0
"""How long one check may take, unless it says otherwise."""

T = TypeVar("T")


class Status(enum.Enum):
    """How a check went; the value is what is printed."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    check: str
    """Which check: one of a few fixed words."""
    status: Status
    finding: str
    """What was found, a sentence."""
    cure: str | None = None
    """What to do about it, a sentence; None where there is nothing to do."""

    def to_json(self) -> Json:
        """The row as an object."""
        return {**dataclasses.asdict(self), "status": self.status.value}


@dataclass(frozen=True, slots=True)
class Check:
    """Something to be tried."""

    name: str
    work: Callable[[], Awaitable[list[Row]]]
    seconds: float = SECONDS


async def run_all(checks: Sequence[Check]) -> list[Row]:
    """The rows of all checks, in their order; never raises for what a check meets."""
    async with asyncio.TaskGroup() as group:
        trying = [group.create_task(_run(one), name=f"check {one.name}") for one in checks]
    return [row for one in trying for row in one.result()]


async def _run(check: Check) -> list[Row]:
    try:
        async with asyncio.timeout(check.seconds):
            return await check.work()
    except TimeoutError:
        sentence = f"This took longer than {check.seconds:g} s."
        return [Row(check.name, Status.FAIL, sentence, "Something hangs; try again.")]
    except Exception as error:
        # The kind alone: a library's text may repeat addresses with passwords.
        sentence = f"This could not be tried ({type(error).__name__})."
        return [Row(check.name, Status.FAIL, sentence, "This is a defect; please report it.")]


async def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, done in a thread that nothing waits for at the end.

    For disks and name servers that may never answer: the event loop's own threads are waited for
    when a program ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        raised: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            raised = error
        try:
            loop.call_soon_threadsafe(settle, result, raised)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await done
