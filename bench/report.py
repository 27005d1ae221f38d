"""From measured windows to one readable page: medians, ratios, goals beside figures.

Knows nothing of processes and sockets. A window is what ``bench.load`` answers to ``measure``.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from interview_peer import __version__
from interview_peer.types import Json

from . import machine

DISTURBED: Final = 0.06
"""Share of the server's core that others took, from which a window counts as disturbed."""

GENERATOR_FULL: Final = 0.9
LATEST_MS: Final = 20.0
STREAMS: Final = {"ours": 2, "plain": 2, "janus": 1, "direct": 2}
"""Streams that are forwarded for one call."""

Key = tuple[str, int, float]


@dataclass
class Results:
    """Every window of a run, by subject, calls and events per second of each call."""

    windows: dict[Key, list[Json]] = field(default_factory=dict)
    set_ups: list[Json] = field(default_factory=list)
    minutes: float = 0.0

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
    """Packets that were sent and did not arrive, but for those the generator itself dropped."""
    missing = sum(window["sent"]) - sum(window["received"]) - window["generator_drops"]
    return max(0, int(missing), int(window["kernel_drops"]))


def worst_p99(window: Json) -> float:
    """The later direction's p99 in milliseconds; infinite if nothing arrived that was timed."""
    found = [quantiles[2] for quantiles in window["delays_ms"] if quantiles is not None]
    return max(found) if found else 0.0


def per_call(window: Json) -> float:
    """Processor milliseconds per second and call."""
    return 1000 * float(window["cpu"]) / int(window["calls"])


def brief(window: Json) -> str:
    """One line about one window, for whoever watches."""
    delays = " | ".join(_delays(quantiles) for quantiles in window["delays_ms"])
    return (
        f"N={window['calls']} events={window['events_per_second']:g}: "
        f"{per_call(window):.2f} ms/s per call, core {window['cpu']:.0%}, delay {delays}, "
        f"lost {lost(window)}, others {foreign(window):.0%}, "
        f"generator {window['generator_cpu']:.0%}"
    )


# -- several windows ----------------------------------------------------------------------------


def median_of(windows: Iterable[Json], value: Callable[[Json], float]) -> float:
    """The median of a figure over the repetitions."""
    return statistics.median([value(window) for window in windows])


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


def fits(windows: Sequence[Json]) -> bool:
    """Whether this many calls are carried well: p99 in time, nothing lost, in the median."""
    return bool(windows) and (
        median_of(windows, worst_p99) <= LATEST_MS and median_of(windows, lost) == 0
    )


def largest(results: Results, rate: float) -> tuple[int, str]:
    """The most calls up to which every row fits, and what was found beyond."""
    best, beyond = 0, "no more were tried"
    for _, calls, found in results.rows("ours"):
        if found != rate:
            continue
        windows = results.of("ours", calls, rate)
        if not fits(windows):
            late = median_of(windows, worst_p99)
            beyond = f"at {calls}: p99 {late:.1f} ms, {median_of(windows, lost):.0f} lost"
            if median_of(windows, lambda window: window["generator_cpu"]) > GENERATOR_FULL:
                beyond += ", the load generator being full"
            break
        best = calls
    return best, beyond


# -- the page -----------------------------------------------------------------------------------


def document(results: Results, seconds: float, repeat: int, notes: Sequence[str]) -> str:
    """The whole page as Markdown."""
    parts = [
        "# Performance\n",
        "Written by `make bench`; do not edit. What it costs to stand in the middle, and how much\n"
        "later packets are for it.\n",
        _conditions(results, seconds, repeat, notes),
        "## Goals\n",
        _goals(results),
        "## Our server\n",
        "Live mode, recording, transcript, journal and statistics on. One interview is two\n"
        "forwarded streams of 50 packets/s each and its event channel. Delay is what the server\n"
        "adds one way: from the send call of one end to the kernel's receipt at the other.\n",
        _our_table(results),
        _set_up(results),
        _event_table(results),
        "## Beside others\n",
        _comparison(results),
        _method(),
    ]
    return "\n".join(part for part in parts if part)


def _conditions(results: Results, seconds: float, repeat: int, notes: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions().items())
    disturbed = [foreign(window) for found in results.windows.values() for window in found]
    calm = sum(share < DISTURBED for share in disturbed)
    lines = [
        f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, interview_peer {__version__}",
        f"- Machine: {machine.processor()}",
        f"- Versions: {versions}",
        f"- Windows of {seconds:g} s; medians of {repeat}; the whole run took "
        f"{results.minutes:.0f} minutes",
        f"- Load average at the end: {os.getloadavg()[1]:.1f} over 5 minutes. In {calm} of "
        f"{len(disturbed)} windows other processes had less than {DISTURBED:.0%} of the "
        "server's core.",
        "- Repeat it: `make bench`, or `make bench ARGS=--quick`; "
        "`python -m bench --help` lists what can be chosen",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _our_table(results: Results) -> str:
    head = [
        "interviews",
        "events/s each",
        "CPU ms/s per interview",
        "per stream",
        "core",
        "to model p50 / p95 / p99 ms",
        "to browser p50 / p95 / p99 ms",
        "lost",
        "RSS per interview",
        "threads",
        "generator",
    ]
    rows = []
    for key in results.rows("ours"):
        windows = results.windows[key]
        cost = median_of(windows, per_call)
        rows.append(
            [
                str(key[1]),
                f"{key[2]:g}",
                f"{cost:.2f}",
                f"{cost / 2:.2f}",
                f"{median_of(windows, lambda window: window['cpu']):.0%}",
                _median_delays(windows, 0),
                _median_delays(windows, 1),
                f"{median_of(windows, lost):.0f}",
                f"{median_of(windows, lambda window: window['rss_per_call']) / 1e6:.2f} MB",
                f"{median_of(windows, lambda window: window['threads']):.0f}",
                f"{median_of(windows, lambda window: window['generator_cpu']):.0%}",
            ]
        )
    return _table(head, rows)


def _set_up(results: Results) -> str:
    if not results.set_ups:
        return ""
    seconds = [1000 * one for found in results.set_ups for one in found["seconds"]]
    cpu = [1000 * one for found in results.set_ups for one in found["cpu"]]
    return (
        f"Set-up, offer received to both legs connected: p50 {statistics.median(seconds):.0f} ms, "
        f"p95 {_quantile(seconds, 0.95):.0f} ms; "
        f"CPU p50 {statistics.median(cpu):.1f} ms ({len(seconds)} calls).\n"
    )


def _event_table(results: Results) -> str:
    rows = []
    for _, calls, rate in results.rows("ours"):
        costs = event_cost(results, calls)
        if not rate or not costs:
            continue
        windows = results.of("ours", calls, rate)
        delays = [window["event_delays_ms"] for window in windows if window["event_delays_ms"]]
        sent = sum(window["events_sent"] for window in windows)
        arrived = sum(window["events_received"] for window in windows)
        p50, p99 = (
            statistics.median([one[index] for one in delays]) if delays else 0.0 for index in (0, 2)
        )
        rows.append(
            [
                str(calls),
                f"{statistics.median(costs):.3f}",
                f"{p50:.1f} / {p99:.1f}",
                f"{arrived} of {sent}",
            ]
        )
    head = ["interviews", "CPU ms per event", "delay p50 / p99 ms, both ends included", "arrived"]
    return _table(head, rows) if rows else ""


def _comparison(results: Results) -> str:
    names = {
        "ours": "interview_peer",
        "janus": "Janus echo test (C)",
        "plain": "plain aiortc relay, track to track",
        "direct": "no relay at all",
    }
    rows = []
    for kind in ("direct", "ours", "janus", "plain"):
        for key in results.rows(kind):
            if key[2] or (kind == "ours" and key[1] > 100):
                continue
            windows = results.windows[key]
            cost = per_stream(results, kind, key[1])
            rows.append(
                [
                    names[kind],
                    str(key[1]),
                    "-" if kind == "direct" or cost is None else f"{cost:.2f}",
                    _median_delays(windows, 0),
                    "-"
                    if kind == "direct"
                    else f"{median_of(windows, lambda window: window['rss_per_call']) / 1e6:.2f}",
                    f"{median_of(windows, lambda window: window['threads']):.0f}",
                ]
            )
    head = ["", "calls", "CPU ms/s per stream", "delay p50 / p95 / p99 ms", "RSS MB", "threads"]
    lines = [_table(head, rows)]
    for calls in (10, 50, 100):
        # Twice as many echo calls are as many streams: the more there are, the less each costs.
        for other, other_calls in (("janus", calls), ("janus", 2 * calls), ("plain", 4)):
            found = ratio(results, calls, other, other_calls)
            if found:
                spread = f"{min(found):.3f} to {max(found):.3f}"
                lines.append(
                    f"- CPU per stream at {calls} interviews = "
                    f"**{statistics.median(found):.3f}** x {names[other]} at {other_calls} "
                    f"({spread}, {len(found)} pairs)"
                )
    return "\n".join(lines) + "\n"


def _goals(results: Results) -> str:
    rows = []
    for calls in (50, 100):
        for other, other_calls, limit in (("janus", calls, 0.8), ("plain", 4, 1 / 25)):
            found = ratio(results, calls, other, other_calls)
            if found:
                rows.append(
                    _goal(
                        f"CPU per stream, N = {calls}, over {other} at {other_calls}",
                        limit,
                        statistics.median(found),
                        "{:.3f}",
                    )
                )
    if windows := results.of("ours", 50):
        for index, limit, name in ((0, 0.2, "p50"), (2, 2.0, "p99")):
            worst = max(_median_delay(windows, direction, index) for direction in (0, 1))
            rows.append(_goal(f"added delay {name}, N = 50, ms", limit, worst, "{:.2f}"))
    costs = {calls: event_cost(results, calls) for calls in (50, 100)}
    rows += [
        _goal(f"CPU of one event, N = {calls}, ms", 0.25, statistics.median(found), "{:.3f}")
        for calls, found in costs.items()
        if found
    ]
    rates = sorted({rate for kind, _, rate in results.windows if kind == "ours"})
    for rate in rates:
        wanted = 150 if rate else 200
        best, beyond = largest(results, rate)
        verdict = "reached" if best >= wanted else "**missed**"
        rows.append(
            [
                f"interviews with p99 <= 20 ms, nothing lost, {rate:g} events/s each",
                f">= {wanted}",
                f"{best} ({beyond})",
                verdict,
            ]
        )
    for calls in (50, 100, 200):
        if windows := results.of("ours", calls):
            memory = median_of(windows, lambda window: window["rss_per_call"]) / 1e6
            rows.append(_goal(f"memory per interview, N = {calls}, MB", 1.0, memory, "{:.2f}"))
    if results.set_ups:
        seconds = [1000 * one for found in results.set_ups for one in found["seconds"]]
        cpu = [1000 * one for found in results.set_ups for one in found["cpu"]]
        rows.append(_goal("set-up p50, ms", 150, statistics.median(seconds), "{:.0f}"))
        rows.append(_goal("CPU of one set-up, ms", 20, statistics.median(cpu), "{:.1f}"))
    return _table(["", "goal", "measured", ""], rows) if rows else ""


def _goal(name: str, limit: float, value: float, form: str) -> list[str]:
    verdict = "reached" if value <= limit else "**missed**"
    return [name, f"<= {limit:g}", form.format(value), verdict]


def _method() -> str:
    return (
        "## How it is measured\n\n"
        "The server is a process of its own on one core; one other process on another core plays\n"
        "all browsers and all models. ICE, DTLS and SCTP are real; so is every SRTP packet, sent\n"
        "every 20 ms in both directions all the time, by an absolute schedule, evenly spread.\n"
        "The audio is the simulator's speech. Eight bytes of Opus padding carry the time of\n"
        "sending; the arrival is the kernel's receive time stamp. *No relay at all* is the same\n"
        "generator with both ends joined directly: what it adds by itself. CPU is the scheduler's\n"
        "run time of all threads of the server. A packet counts as lost if it was sent in the\n"
        "window and has not arrived 1.5 s after it, or if the kernel dropped a datagram at the\n"
        "server; what the generator's own sockets dropped is left out.\n"
        "Events are transcript deltas of about 250 bytes from the model's end, relayed,\n"
        "journalled and fed to the transcript.\n\n"
        "Janus forwards one stream a call (its echo test), the others two; per stream is what\n"
        "compares. Every server's cost of a stream falls as streams are added, so we are set\n"
        "beside Janus with as many calls (goals) and, where measured, with as many streams. It\n"
        "does other work and has no recording on: a yardstick of a mature server in C, not a\n"
        "contest. The plain relay hands each received track to the other connection, so\n"
        "it decodes and encodes; its delay is the time from the first packet of a burst of speech\n"
        "after silence to the first packet that is not silence at the other end.\n\n"
        "The padding makes each Opus packet one of code 3, which costs our recorder a little more\n"
        "than real speech does.\n\n"
        "Limits: loopback, so no network; windows of seconds; one virtual machine whose host is\n"
        "shared. Read ratios within one run rather than absolute figures.\n"
    )


# -- small helpers ------------------------------------------------------------------------------


def _median_delay(windows: Sequence[Json], direction: int, index: int) -> float:
    found = [
        window["delays_ms"][direction][index]
        for window in windows
        if window["delays_ms"][direction] is not None
    ]
    return statistics.median(found) if found else float("nan")


def _median_delays(windows: Sequence[Json], direction: int) -> str:
    if not any(window["delays_ms"][direction] for window in windows):
        return "-"
    return _delays([_median_delay(windows, direction, index) for index in (0, 1, 2)])


def _delays(quantiles: Sequence[float] | None) -> str:
    return " / ".join(f"{one:.2f}" for one in quantiles[:3]) if quantiles else "-"


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
