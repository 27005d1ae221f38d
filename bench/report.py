"""From measured figures to one readable page.

Knows nothing of processes and sockets. A window is what ``bench.load`` answers to ``measure``.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime

from interview_peer import __version__
from interview_peer.media import native
from interview_peer.types import Json

from . import health, machine
from .figures import (
    DISTURBED,
    LATEST_MS,
    NOT_MEASURED,
    Results,
    delays,
    event_cost,
    foreign,
    lag,
    late,
    lost,
    median_delay,
    median_of,
    per_call,
    per_stream,
    ratio,
    told_delays,
    told_lost,
    told_ms,
    told_share,
    worst_of,
)
from .goals import Goal, goals, summary

# -- the page -----------------------------------------------------------------------------------


def document(
    results: Results, seconds: float, notes: Sequence[str], repeat_it: str = "make bench"
) -> str:
    """The whole page as Markdown; ``repeat_it`` is the command that it came from."""
    found = goals(results)
    parts = [
        "# Performance\n",
        "Written by `make bench`; do not edit. What it costs to stand in the middle, and how much\n"
        "later packets are for it.\n",
        _conditions(results, seconds, notes, repeat_it),
        "## Goals\n",
        f"**{summary(found)}**\n",
        _goal_table(found),
        "## Our server\n",
        "Live mode, recording, transcript, journal and statistics on. One interview is two\n"
        "forwarded streams of 50 packets/s each and its event channel. Delay is what the server\n"
        "adds one way: from the send call of one end to the kernel's receipt at the other.\n",
        _our_table(results),
        _set_up(results),
        _event_table(results),
        _backlog_table(results),
        "## Beside others\n",
        _comparison(results),
        _method(),
    ]
    return "\n".join(part for part in parts if part)


def _conditions(results: Results, seconds: float, notes: Sequence[str], repeat_it: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions().items())
    disturbed = [foreign(window) for found in results.windows.values() for window in found]
    calm = sum(share < DISTURBED for share in disturbed)
    lines = [
        f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, interview_peer {__version__}",
        f"- Machine: {machine.processor()}",
        f"- Versions: {versions}",
        f"- Our audio is forwarded by {_forwarder()}",
        f"- Windows of {seconds:g} s; medians of {results.repetitions}; the whole run took "
        f"{results.minutes:.0f} minutes",
        f"- Load average at the end: {os.getloadavg()[1]:.1f} over 5 minutes. In {calm} of "
        f"{len(disturbed)} windows other processes had less than {DISTURBED:.0%} of the "
        "server's core.",
        f"- Repeat it: `{repeat_it}`; `python -m bench --help` lists what can be chosen",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _forwarder() -> str:
    return "native code" if native.BUILT else "Python alone: the native code was not compiled here"


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
        "longest hold of the loop, ms",
        "late",
        "set-up p50, ms",
        "CPU of a set-up, ms",
        "RSS per interview",
        "threads",
        "generator, core / lateness p99 ms",
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
                *_kept(windows),
                _ramp(windows, "ramp_seconds"),
                _ramp(windows, "ramp_cpu"),
                f"{median_of(windows, lambda window: window['rss_per_call']) / 1e6:.2f} MB",
                f"{median_of(windows, lambda window: window['threads']):.0f}",
                f"{median_of(windows, lambda window: window['generator_cpu']):.0%} / "
                f"{median_of(windows, lambda window: window['late_ms'][2]):.1f}",
            ]
        )
    return (
        _table(head, rows)
        + "\nBold is what no row should have. *Lost*, *longest hold* and *late* are the worst of\n"
        "the repetitions: packets of the window that did not arrive; how long the server's event\n"
        "loop was held at most; packets that the server held longer than 5 ms. The last two are\n"
        "the server's own word, by `/healthz` before and after each window. *Set-up* is of the\n"
        "calls that were added for the row, one at a time, while those before stood idle; their\n"
        "CPU counts as well.\n"
    )


def _kept(windows: Sequence[Json]) -> list[str]:
    """Three cells: lost, longest hold, late; the worst of each, bold if it should not be."""
    worst = max(windows, key=lost)
    longest, share = worst_of(windows, lag), worst_of(windows, late)
    return [
        _bold(told_lost(worst), lost(worst) > 0),
        _bold(told_ms(longest, 1), longest > health.LAG_LIMIT_MS),
        _bold(told_share(share), share > health.LATE_LIMIT),
    ]


def _ramp(windows: Sequence[Json], what: str) -> str:
    found = [1000 * one for window in windows for one in window.get(what, ())]
    return f"{statistics.median(found):.0f}" if found else "-"


def _backlog_table(results: Results) -> str:
    """The same number of interviews without and with a backlog of notices."""
    keys = results.rows("backlog")
    rows = []
    for _, calls, rate in keys:
        for kind in ("ours", "backlog"):
            windows = results.of(kind, calls, rate)
            if not windows:
                continue
            rows.append(
                [
                    f"{calls} with backlog" if kind == "backlog" else f"{calls}",
                    f"{median_of(windows, per_call):.2f}",
                    _median_delays(windows, 0),
                    _median_delays(windows, 1),
                    *_kept(windows),
                    f"{median_of(windows, _notices):.0f}" if kind == "backlog" else "-",
                    f"{median_of(windows, _waiting):.0f}" if kind == "backlog" else "-",
                ]
            )
    head = [
        "interviews",
        "CPU ms/s per interview",
        "to model p50 / p95 / p99 ms",
        "to browser p50 / p95 / p99 ms",
        "lost",
        "longest hold of the loop, ms",
        "late",
        "notices/s",
        "still waiting",
    ]
    if not rows:
        return ""
    return (
        "With a backlog the same server has notices due to a webhook whose receiver takes its\n"
        "time for each answer, and works on them meanwhile.\n\n" + _table(head, rows)
    )


def _notices(window: Json) -> float:
    return float(window["notices_per_second"])


def _waiting(window: Json) -> float:
    return float(window["notices_waiting"])


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
    rows, inf = [], math.inf
    for _, calls, rate in results.rows("ours"):
        costs = event_cost(results, calls)
        if not rate or not costs:
            continue
        windows = results.of("ours", calls, rate)
        timed = [window["event_delays_ms"] for window in windows if window["event_delays_ms"]]
        sent = sum(window["events_sent"] for window in windows)
        arrived = sum(window["events_received"] for window in windows)
        p50, p99 = (
            statistics.median([one[index] for one in timed]) if len(timed) == len(windows) else inf
            for index in (0, 2)
        )
        rows.append(
            [
                str(calls),
                f"{statistics.median(costs):.3f}",
                f"{told_ms(p50, 1)} / {told_ms(p99, 1)}",
                _bold(f"{arrived} of {sent}", arrived < sent),
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


def _goal_table(found: Sequence[Goal]) -> str:
    """Missed ones first."""
    words = {False: "**MISSED**", None: NOT_MEASURED, True: "reached"}
    ranked = sorted(found, key=lambda goal: list(words).index(goal.reached))
    rows = [[words[goal.reached], goal.name, goal.limit, goal.measured] for goal in ranked]
    return _table(["", "", "goal", "measured"], rows)


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
        "server; what the generator's own sockets dropped counts as well, and is told.\n"
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
        f"The event loop may be held for {health.LAG_LIMIT_MS:g} ms at most, one packet's time: "
        "no\nreceiver plays with less in hand than the packet it waits for. Late packets may be\n"
        "one in a hundred, as p99 is what the goals are about. A window in which packets were\n"
        "sent and none could be timed counts as endlessly late.\n\n"
        "Limits: loopback, so no network; windows of seconds; one virtual machine whose host is\n"
        "shared. Read ratios within one run rather than absolute figures.\n"
    )


# -- small helpers ------------------------------------------------------------------------------


def _median_delays(windows: Sequence[Json], direction: int) -> str:
    if all(delays(window, direction) is None for window in windows):
        return "-"
    found = [median_delay(windows, direction, index) for index in (0, 1, 2)]
    return _bold(told_delays(found), found[2] > LATEST_MS)


def _bold(text: str, striking: bool) -> str:
    return f"**{text}**" if striking else text


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
