"""From measured windows to figures: medians, ratios, what was lost or late.

Knows nothing of processes and sockets. A window is what ``bench.load`` answers to ``measure``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from interview_peer.types import Json

DISTURBED: Final = 0.06
"""Share of the server's core that others took, from which a window counts as disturbed."""

GENERATOR_FULL: Final = 0.9
LATEST_MS: Final = 20.0
NOT_MEASURED: Final = "not measured"
STREAMS: Final = {"ours": 2, "plain": 2, "janus": 1, "direct": 2}
"""Streams that are forwarded for one call."""

Key = tuple[str, int, float]


@dataclass
class Results:
    """Every window of a run, by subject, calls and events per second of each call."""

    windows: dict[Key, list[Json]] = field(default_factory=dict)
    set_ups: list[Json] = field(default_factory=list)
    minutes: float = 0.0
    repetitions: int = 0
    """Those that were finished."""

    def add(self, kind: str, calls: int, rate: float, window: Json) -> None:
        """Keep one window."""
        self.windows.setdefault((kind, calls, rate), []).append(window)

    def of(self, kind: str, calls: int, rate: float = 0.0) -> list[Json]:
        """The windows of one row, one for each repetition."""
        return self.windows.get((kind, calls, rate), [])

    def rows(self, kind: str) -> list[Key]:
        """The rows of one subject, in order."""
        return sorted(key for key in self.windows if key[0] == kind)

    def raw(self) -> Json:
        """Everything, for other tools."""
        windows = [
            {"subject": kind, "calls": calls, "rate": rate, **window}
            for (kind, calls, rate), found in self.windows.items()
            for window in found
        ]
        return {"windows": windows, "set_ups": self.set_ups}


# -- one window ---------------------------------------------------------------------------------


def foreign(window: Json) -> float:
    """Share of the server's core that something else had."""
    return max(0.0, float(window["core_busy"]) - float(window["cpu"]))


def lost(window: Json) -> int:
    """Packets that were sent and did not arrive, whoever dropped them.

    What the generator's own sockets dropped may hide losses of the server's, so it is not taken
    off; ``generator_drops`` tells the reader.
    """
    missing = sum(window["sent"]) - sum(window["received"])
    return max(0, int(missing), int(window["kernel_drops"]))


def events_lost(window: Json) -> int:
    """Events that were sent and did not arrive."""
    return int(window["events_sent"]) - int(window["events_received"])


def delays(window: Json, direction: int) -> Sequence[float] | None:
    """p50, p95, p99 and largest in ms: infinite where packets were sent and none could be timed.

    None for a direction that the subject does not have.
    """
    found: Sequence[float] | None = window["delays_ms"][direction]
    if found is not None:
        return found
    return (math.inf,) * 4 if window["sent"][direction] else None


def worst_p99(window: Json) -> float:
    """The later direction's p99 in milliseconds; infinite if one could not be timed."""
    found = [one[2] for direction in (0, 1) if (one := delays(window, direction)) is not None]
    return max(found, default=math.inf)


def lag(window: Json) -> float:
    """The longest time in ms that the server's event loop was held; infinite if it told nothing."""
    said = window.get("health")
    return float(said["lag_ms"]) if said is not None else math.inf


def late(window: Json) -> float:
    """Share of packets that the server held longer than 5 ms; infinite if it told nothing."""
    said, received = window.get("health"), sum(window["received"])
    return sum(said["late"]) / received if said is not None and received else math.inf


def per_call(window: Json) -> float:
    """Processor milliseconds per second and call."""
    return 1000 * float(window["cpu"]) / int(window["calls"])


def brief(window: Json) -> str:
    """One line about one window, for whoever watches."""
    both = " | ".join(told_delays(delays(window, direction)) for direction in (0, 1))
    said = ""
    if window.get("health") is not None:
        said = f"longest hold {lag(window):.1f} ms, late {sum(window['health']['late'])}, "
    return (
        f"N={window['calls']} events={window['events_per_second']:g}: "
        f"{per_call(window):.2f} ms/s per call, core {window['cpu']:.0%}, delay {both}, "
        f"lost {told_lost(window)}, {said}others {foreign(window):.0%}, "
        f"generator {window['generator_cpu']:.0%}"
    )


# -- several windows ----------------------------------------------------------------------------


def median_of(windows: Iterable[Json], value: Callable[[Json], float]) -> float:
    """The median of a figure over the repetitions."""
    return statistics.median([value(window) for window in windows])


def median_delay(windows: Sequence[Json], direction: int, index: int) -> float:
    """Of the windows that have this direction; infinite if none was timed in half of them."""
    found = [one[index] for window in windows if (one := delays(window, direction)) is not None]
    return statistics.median_high(found) if found else math.inf


def per_stream(results: Results, kind: str, calls: int) -> float | None:
    """Median processor milliseconds per second and forwarded stream."""
    windows = results.of(kind, calls)
    return median_of(windows, per_call) / STREAMS[kind] if windows else None


def ratio(
    results: Results, calls: int, other: str, other_calls: int, rate: float = 0.0
) -> list[float]:
    """Our cost of a stream over another's, for each repetition that has both."""
    others = {window["repetition"]: window for window in results.of(other, other_calls)}
    return [
        (per_call(window) / STREAMS["ours"])
        / (per_call(others[window["repetition"]]) / STREAMS[other])
        for window in results.of("ours", calls, rate)
        if window["repetition"] in others
    ]


def event_cost(results: Results, calls: int) -> list[float]:
    """Processor milliseconds of one relayed event, for each repetition."""
    rates = {rate for kind, n, rate in results.windows if (kind, n) == ("ours", calls) and rate}
    without = {window["repetition"]: window for window in results.of("ours", calls)}
    return [
        (per_call(window) - per_call(without[window["repetition"]])) / rate
        for rate in rates
        for window in results.of("ours", calls, rate)
        if window["repetition"] in without
    ]


def worst_of(windows: Iterable[Json], value: Callable[[Json], float]) -> float:
    """The largest of a figure over the repetitions."""
    return max(value(window) for window in windows)


def fits(windows: Sequence[Json]) -> bool:
    """Whether this many calls are carried well: p99 in time in the median, nothing ever lost."""
    return bool(windows) and (
        median_of(windows, worst_p99) <= LATEST_MS
        and worst_of(windows, lost) == 0
        and worst_of(windows, events_lost) == 0
    )


def largest(results: Results, rate: float) -> tuple[int, str]:
    """The most calls up to which every row fits, and what was found beyond."""
    best, beyond = 0, "no more were tried"
    for _, calls, found in results.rows("ours"):
        if found != rate:
            continue
        windows = results.of("ours", calls, rate)
        if not fits(windows):
            beyond = f"at {calls}: p99 {told_ms(median_of(windows, worst_p99), 1)} ms"
            worst = max(windows, key=lost)
            beyond += f", {told_lost(worst)} lost"
            if events := int(worst_of(windows, events_lost)):
                beyond += f", {events} events lost"
            if median_of(windows, lambda window: window["generator_cpu"]) > GENERATOR_FULL:
                beyond += ", the load generator being full"
            break
        best = calls
    return best, beyond


# -- in words -----------------------------------------------------------------------------------


def told_delays(quantiles: Sequence[float] | None) -> str:
    if quantiles is None:
        return "-"
    return NOT_MEASURED if math.inf in quantiles else " / ".join(f"{o:.2f}" for o in quantiles[:3])


def told_ms(value: float, digits: int) -> str:
    return NOT_MEASURED if math.isinf(value) else f"{value:.{digits}f}"


def told_share(value: float) -> str:
    return NOT_MEASURED if math.isinf(value) else f"{value:.2%}"


def told_lost(window: Json) -> str:
    own = window["generator_drops"]
    return f"{lost(window)} ({own} dropped by the generator)" if own else f"{lost(window)}"
