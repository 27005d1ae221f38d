"""Sends what is due, to several receivers at once, each on its own.

Two tasks: one hands out due deliveries, one writes down how they went. A receiver that is slow,
down or full slows only itself: its deliveries have their own queue, few at a time, and after some
failures in a row it is asked by one delivery now and then. Order and retries are rules of
``core.backoff``, kept by the statements of ``ledger``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..core.backoff import REST_AFTER, Meaning, meaning, rest
from ..errors import StateUnavailable
from ..state.database import Database
from ..state.schema import now_us
from .ledger import SECOND, Claimed, Default, Ledger, Result, kind_of
from .sender import Attempt, Sender
from .types import new_id

log = logging.getLogger(__name__)

SLOW_MS: Final = 1_000
QUICK_MS: Final = 250
REST_SECONDS: Final = 0.1
"""Between two looks whether everything was sent."""
REMEMBERED: Final = 1_000
"""Destinations, beyond which what is known of the idle ones is forgotten."""


@dataclass(frozen=True)
class Limits:
    """How much at once, how long at most."""

    per_destination: int = 4
    per_slow_destination: int = 2
    quick: int = 32
    """Attempts under way to destinations that answered quickly last time."""
    slow: int = 64
    """The same to all others, apart: hanging receivers leave the quick ones their room."""
    ahead: int = 32
    """Deliveries of a quick destination that are held in advance."""
    fresh_seconds: float = 0.5
    """What was claimed longer ago is read again before it is sent: it may be erased since."""
    lease_seconds: float = 60.0
    """Longer than an attempt, with room for clocks that differ."""
    poll_seconds: float = 2.0
    """How often to look for what other processes wrote."""
    unavailable_seconds: float = 1.0
    close_seconds: float = 5.0


@dataclass
class _Destination:
    """What is known of one receiver since the start of this process."""

    waiting: deque[Claimed] = field(default_factory=deque)
    busy: set[str] = field(default_factory=set)
    """Interviews of which a notice is on its way: the next one waits for it."""
    running: int = 0
    failures: int = 0
    """In a row."""
    rest_until: int = 0
    last_ms: int | None = None

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def slow(self) -> bool:
        """Whether it may take its time again: it did, or nothing is known of it."""
        return self.failures > 0 or self.last_ms is None or self.last_ms > SLOW_MS

    def width(self, limits: Limits) -> int:
        """How many attempts at once."""
        if self.failures >= REST_AFTER or self.last_ms is None:
            return 1
        return limits.per_slow_destination if self.slow else limits.per_destination

    def next(self) -> Claimed | None:
        """Take the first whose interview is not busy out of those that wait."""
        for one in self.waiting:
            if one.interview_id not in self.busy:
                self.waiting.remove(one)
                return one
        return None

    def room(self, limits: Limits) -> int:
        """How many more to claim: in advance only where they will be gone in a moment."""
        quick = self.failures == 0 and self.last_ms is not None and self.last_ms <= QUICK_MS
        if not quick:
            return self.width(limits) - len(self.waiting) - self.running
        room = limits.ahead - len(self.waiting) - self.running
        return room if room * 2 >= limits.ahead else 0


class NoticeWorker:
    """Delivers notices until closed. Several may share one PostgreSQL.

    A notice is sent at least once and never by two workers at the same time, as long as their
    clocks differ by less than the lease is longer than an attempt.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        *,
        default: Default | None = None,
        limits: Limits | None = None,
        now: Callable[[], int] = now_us,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits or Limits()
        if self.limits.lease_seconds <= sender.total_seconds:
            raise ValueError("a lease must outlast an attempt")
        self.owner = new_id("worker")
        self.counts: Counter[str] = Counter()
        """Attempts by outcome since the start: the meaning's name, or the error's word."""
        self.gone: Counter[str] = Counter()
        """Answers 410 since the start, by the sort of receiver that gave them."""
        self._now = now
        self._sender = sender
        self._ledger = Ledger(
            database,
            self.owner,
            default=default,
            lease=int(self.limits.lease_seconds * SECOND),
            chance=chance,
        )
        self._places: dict[str, _Destination] = {}
        self._quick = asyncio.Semaphore(self.limits.quick)
        self._slow = asyncio.Semaphore(self.limits.slow)
        self._finished: list[Result] = []
        self._woken = asyncio.Event()
        self._to_settle = asyncio.Event()
        self._senders: set[asyncio.Task[None]] = set()
        self._own: list[asyncio.Task[None]] = []
        self._closing = False

    # -- from outside ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver."""
        self._own = [
            asyncio.create_task(self._forever(self._hand_out), name="notices: hand out"),
            asyncio.create_task(self._forever(self._write_down), name="notices: write down"),
        ]

    def wake(self) -> None:
        """Something was written that may be due now. Cheap; may be called at any time."""
        self._woken.set()

    async def close(self) -> None:
        """Let attempts under way end, give the rest back, leave nothing running. Idempotent."""
        self._closing = True
        self._woken.set()
        self._to_settle.set()
        # What was being claimed must be known before it can be given back.
        await _end(self._own, self.limits.close_seconds)
        await _end(self._senders, self.limits.close_seconds)
        self._own = []
        for place in self._places.values():
            self._give_back(place, self._now())
        with contextlib.suppress(StateUnavailable):
            # Otherwise the leases run out, and what arrived is sent again: at least once.
            await self._settle()
        await self._sender.close()

    async def rested(self) -> None:
        """Wait until nothing is due just now, and what was sent is written down.

        What a receiver refused is due later, and not waited for. For as long as it takes: the
        caller has a bound.
        """
        while not self._closing:
            with contextlib.suppress(StateUnavailable):
                due = await self._ledger.destinations()
                if not (self._senders or self._finished or self._any_due(due)):
                    return
            self._woken.set()
            await asyncio.sleep(REST_SECONDS)

    def _any_due(self, due: Mapping[str, int]) -> bool:
        now = self._now()
        rests = {name: place.rest_until for name, place in self._places.items()}
        return any(max(at, rests.get(name, 0)) <= now for name, at in due.items())

    async def drain(self) -> int | None:
        """Without ``start``: deliver all that is due; when the next one will be (None: nothing is).

        For tests and tools, which move the clock themselves.
        """
        while True:
            soonest = await self._top_up()
            if self._senders:
                await asyncio.wait(self._senders)
            if self._finished:
                await self._settle()
            elif soonest is None or soonest > self._now():
                return soonest

    # -- handing out ----------------------------------------------------------------------------

    async def _forever(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeat one round of work; a database that is away, or a fault of ours, ends nothing."""
        while not self._closing:
            try:
                await work()
                continue
            except StateUnavailable:
                log.warning("notices wait for the database")
            except Exception:
                log.exception("a round of delivering notices failed by a fault of ours")
            await asyncio.sleep(self.limits.unavailable_seconds)

    async def _hand_out(self) -> None:
        self._woken.clear()
        soonest = await self._top_up()
        seconds = self.limits.poll_seconds
        if soonest is not None:
            seconds = min(seconds, max(0.0, (soonest - self._now()) / SECOND))
        if seconds:
            # Not ``wait_for``, which makes a task for each wait before Python 3.12.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()

    async def take_back(self) -> None:
        """At a start, before anything else: see ``Ledger.take_back``."""
        await self._ledger.take_back(self._now())

    async def _top_up(self) -> int | None:
        """Claim what is due and start sending it; when to look again (None: on being woken)."""
        now = self._now()
        soonest: int | None = None
        wanted: dict[str, int] = {}
        for name, next_at in (await self._ledger.destinations()).items():
            place = self._places.get(name) or _Destination()
            at = max(next_at, place.rest_until)
            room = place.room(self.limits)
            if at <= now and room > 0:
                self._places[name] = place
                wanted[name] = room
            elif at > now:
                soonest = at if soonest is None else min(soonest, at)
        if wanted:
            for name, claim in (await self._ledger.claim(wanted, now)).items():
                self._start(name, claim.taken)
                if claim.looked_at and not claim.taken:
                    # All of them must wait for others: see what is due now that they are put off.
                    soonest = now
        if len(self._places) > REMEMBERED:
            self._places = {name: one for name, one in self._places.items() if not one.idle}
        return soonest

    def _start(self, name: str, taken: list[Claimed]) -> None:
        place = self._places[name]
        place.waiting.extend(taken)
        for _ in range(min(len(place.waiting), place.width(self.limits) - place.running)):
            place.running += 1
            task = asyncio.create_task(self._serve(place), name=f"notices: send to {name}")
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)

    async def _serve(self, place: _Destination) -> None:
        """One of a destination's few: send what waits, one after the other."""
        try:
            while place.waiting and not self._closing:
                async with self._slow if place.slow else self._quick:
                    one = None if self._closing else place.next()
                    if one is None:
                        break
                    await self._send(place, one)
                if place.rest_until > self._now():
                    self._give_back(place, place.rest_until)
        finally:
            place.running -= 1
            self._woken.set()

    async def _send(self, place: _Destination, one: Claimed) -> None:
        interview, delivered = one.interview_id, False
        if interview is not None:
            place.busy.add(interview)
        result = Result(one, None, self._now())
        try:
            attempt = await self._try(one)
            if attempt is not None:
                result = Result(one, attempt)
                delivered = self._note(place, attempt)
                if meaning(attempt.status) is Meaning.GONE:
                    self.gone[kind_of(one)] += 1
        finally:
            # Also when cancelled: nobody knows then whether it arrived, so it is due again.
            self._finish(result)
            if interview is not None:
                place.busy.discard(interview)
                if not delivered:
                    self._give_back(place, self._now(), interview)

    async def _try(self, one: Claimed) -> Attempt | None:
        """One attempt; None if its lease leaves no time for it, or it was erased meanwhile."""
        body: bytes | None = one.body
        if self._now() - one.read_at >= self.limits.fresh_seconds * SECOND:
            try:
                body = await self._ledger.body(one)
            except StateUnavailable:
                return None
        now = self._now()
        if body is None or one.lease_until - now <= self._sender.total_seconds * SECOND:
            # Somebody else may take it before our attempt would be over.
            return None
        if not one.secrets:
            return Attempt(now, 0, error="no_secret")
        return await self._sender.send(one.url, one.notice_id, body, one.secrets, now)

    def _note(self, place: _Destination, attempt: Attempt) -> bool:
        """Remember how the destination did; whether it took the notice."""
        what = meaning(attempt.status)
        self.counts[attempt.error or what.value] += 1
        place.last_ms = attempt.milliseconds
        if what in (Meaning.DELIVERED, Meaning.GONE):
            place.failures = 0
            return what is Meaning.DELIVERED
        place.failures += 1
        seconds = rest(place.failures, what is Meaning.SLOWER, attempt.asked)
        place.rest_until = max(place.rest_until, self._now() + int(seconds * SECOND))
        return False

    def _give_back(self, place: _Destination, next_at: int, interview: str | None = None) -> None:
        """Give back what waits, or what waits of one interview."""
        for one in list(place.waiting):
            if interview is None or one.interview_id == interview:
                place.waiting.remove(one)
                self._finish(Result(one, None, next_at))

    # -- writing down ---------------------------------------------------------------------------

    def _finish(self, result: Result) -> None:
        self._finished.append(result)
        self._to_settle.set()

    async def _write_down(self) -> None:
        await self._to_settle.wait()
        await self._settle()
        self._woken.set()

    async def _settle(self) -> None:
        """Write down all that is finished; it stays finished until the database has it."""
        self._to_settle.clear()
        results = list(self._finished)
        if not results:
            return
        try:
            await self._ledger.settle(results, self._now())
        except BaseException:
            self._to_settle.set()
            raise
        del self._finished[: len(results)]


async def _end(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks to end by themselves, then cancel what is left."""
    if running := set(tasks):
        _, late = await asyncio.wait(running, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
