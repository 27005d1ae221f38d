"""What must be reached: every goal beside what was measured, and one sentence about all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from interview_peer.types import Json

from . import health
from .figures import (
    LATEST_MS,
    NOT_MEASURED,
    Results,
    event_cost,
    lag,
    largest,
    late,
    lost,
    median_delay,
    median_of,
    ratio,
    worst_of,
)


@dataclass(frozen=True)
class Goal:
    """One line of what must be reached."""

    name: str
    limit: str
    measured: str
    reached: bool | None
    """None: not measured in this run."""

    @classmethod
    def at_most(cls, name: str, limit: float, value: float | None, form: str) -> Goal:
        """A figure that may not be larger; infinite is one that could not be measured."""
        if value is None:
            return cls(name, f"<= {limit:g}", NOT_MEASURED, None)
        measured = NOT_MEASURED if math.isinf(value) else form.format(value)
        return cls(name, f"<= {limit:g}", measured, value <= limit)


def goals(results: Results) -> list[Goal]:
    """Every goal, whether this run has measured it or not."""
    found = []
    for calls in (50, 100):
        for other, other_calls, limit in (("janus", calls, 0.8), ("plain", 4, 1 / 25)):
            name = f"CPU per stream, N = {calls}, over {other} at {other_calls}"
            ratios = ratio(results, calls, other, other_calls)
            found.append(Goal.at_most(name, limit, _median(ratios), "{:.3f}"))
    for kind, what in (("ours", ""), ("backlog", " with a backlog of notices")):
        windows = results.of(kind, 50)
        for index, limit, name in ((0, 0.2, "p50"), (2, 2.0, "p99")):
            worst = max(median_delay(windows, direction, index) for direction in (0, 1))
            name = f"added delay {name}, N = 50{what}, ms"
            found.append(Goal.at_most(name, limit, worst if windows else None, "{:.2f}"))
    for calls in (50, 100):
        windows = results.of("ours", calls)
        for name, limit, value, form in (
            ("longest hold of the loop, N = {}, ms", health.LAG_LIMIT_MS, lag, "{:.1f}"),
            ("share of late packets, N = {}", health.LATE_LIMIT, late, "{:.4f}"),
            ("packets lost, N = {}", 0, lost, "{:.0f}"),
        ):
            worst_found = worst_of(windows, value) if windows else None
            found.append(Goal.at_most(name.format(calls), limit, worst_found, form))
    for calls in (50, 100):
        cost = _median(event_cost(results, calls))
        found.append(Goal.at_most(f"CPU of one event, N = {calls}, ms", 0.25, cost, "{:.3f}"))
    found += [_most(results, 0.0, 200), _most(results, 5.0, 150)]
    for calls in (50, 100, 200):
        windows = results.of("ours", calls)
        memory = median_of(windows, _memory) if windows else None
        found.append(Goal.at_most(f"memory per interview, N = {calls}, MB", 1.0, memory, "{:.2f}"))
    few, many = results.of("ours", 1), results.of("ours", 50)
    more = median_of(many, _threads) - median_of(few, _threads) if few and many else None
    found.append(Goal.at_most("threads of 49 interviews more", 0, more, "{:.0f}"))
    for what, limit, name, form in (
        ("seconds", 150, "set-up p50, ms", "{:.0f}"),
        ("cpu", 20, "CPU of one set-up, ms", "{:.1f}"),
    ):
        each = [1000 * one for one_run in results.set_ups for one in one_run[what]]
        found.append(Goal.at_most(name, limit, _median(each), form))
    return found


def _most(results: Results, rate: float, wanted: int) -> Goal:
    name = f"interviews with p99 <= {LATEST_MS:g} ms, nothing lost, {rate:g} events/s each"
    tried = [calls for _, calls, found in results.rows("ours") if found == rate]
    best, beyond = largest(results, rate)
    if best == max(tried, default=0) and best < wanted:
        return Goal(name, f">= {wanted}", f"{best} ({beyond})" if tried else NOT_MEASURED, None)
    return Goal(name, f">= {wanted}", f"{best} ({beyond})", best >= wanted)


def summary(found: Sequence[Goal]) -> str:
    """One sentence that cannot be overlooked."""
    missed = [goal.name for goal in found if goal.reached is False]
    open_ones = sum(goal.reached is None for goal in found)
    text = f"{sum(goal.reached is True for goal in found)} of {len(found)} goals reached"
    if open_ones:
        text += f", {open_ones} not measured"
    return f"{text}, {len(missed)} MISSED: {'; '.join(missed)}." if missed else f"{text}."


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _memory(window: Json) -> float:
    return float(window["rss_per_call"]) / 1e6


def _threads(window: Json) -> float:
    return float(window["threads"])
