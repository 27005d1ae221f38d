"""``python -m bench``: runs the measurements, prints the table and writes it down.

Each repetition measures everything once, subjects one after the other, so that what is compared
ran within the same minutes; figures are medians over the repetitions. A run that would take longer
than it may ends after fewer of them, and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from interview_peer.types import Json

from . import backlog, figures, goals, machine, report, subjects
from .progress import Progress
from .subjects import BenchFailed, Generator, Place, Subject

KINDS = ("direct", "ours", "backlog", "plain", "janus")
FULL_ROWS = (1, 10, 50, 100, 150, 200)
QUICK_ROWS = (1, 10, 50)
JANUS_ROWS = (10, 50, 100)
PLAIN_ROWS = (1, 4)
DIRECT_ROWS = (50,)
BACKLOG_ROW = 50
EVENTS_PER_SECOND = 5.0
SETTLE_SECONDS = 1.2
OVERLOADED_MS = 200.0
PAUSE_SECONDS = 2.0
"""Before a disturbed window is measured again."""

SET_UPS = 10
START_PLANNED = {"direct": 2.0, "ours": 10.0, "backlog": 9.5, "plain": 4.0, "janus": 3.0}
"""Seconds until a subject is ready and, if it is ours, set-ups were timed."""
SET_UP_PLANNED = 0.06
DRAIN_PLANNED = 0.6


@dataclass
class Plan:
    """What to measure."""

    rows: tuple[int, ...]
    seconds: float
    repeat: int
    kinds: tuple[str, ...]
    patience: float = 180.0
    """Seconds that measuring disturbed windows again may take in all."""
    limit: float = 900.0
    """Seconds that the run may take."""
    server: Place = Place(0)
    load: Place = Place(0)
    notes: list[str] = field(default_factory=list)

    def rows_of(self, kind: str) -> tuple[int, ...]:
        """The numbers of calls that one subject is measured with."""
        if kind == "direct":
            return DIRECT_ROWS
        if kind == "ours":
            return self.rows
        if kind == "backlog":
            # Beside it stands the same number without.
            small = [row for row in self.rows if row <= BACKLOG_ROW]
            return (max(small) if small else min(self.rows),)
        rows = PLAIN_ROWS if kind == "plain" else JANUS_ROWS
        return tuple(row for row in rows if row <= max(self.rows))

    @property
    def window_planned(self) -> float:
        """Seconds that one window takes with all that belongs to it."""
        return self.seconds + SETTLE_SECONDS + DRAIN_PLANNED

    def planned(self, kind: str) -> float:
        """Seconds that one repetition of a subject takes on a quiet machine."""
        rows = self.rows_of(kind)
        windows = len(rows) * (2 if kind == "ours" else 1)
        ramp = max(rows, default=0) * SET_UP_PLANNED
        return START_PLANNED[kind] + ramp + windows * self.window_planned


class Bench:
    """One run: all repetitions of all subjects."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.results = figures.Results()
        self._progress = Progress(plan.repeat * sum(plan.planned(kind) for kind in plan.kinds))
        self._patience = plan.patience
        self._receiver: str | None = None
        """Where a backlog of notices goes, while there is one."""

    def run(self) -> figures.Results:
        """Measure everything."""
        for repetition in range(self.plan.repeat):
            # Whatever changes on the machine in the meantime favours no subject.
            kinds = self.plan.kinds if repetition % 2 == 0 else self.plan.kinds[::-1]
            each = self._progress.elapsed / repetition if repetition else 0.0
            if repetition and self._progress.elapsed + each > self.plan.limit:
                self.plan.notes.append(
                    f"Ended after {repetition} of {self.plan.repeat} repetitions: one more would "
                    f"have taken it beyond {self.plan.limit / 60:g} minutes."
                )
                break
            for kind in kinds:
                self._say(f"repetition {repetition + 1} of {self.plan.repeat}: {kind}")
                self._measure(kind, repetition)
            self.results.repetitions += 1
        self.results.minutes = self._progress.elapsed / 60
        return self.results

    def _measure(self, kind: str, repetition: int) -> None:
        plan, rows = self.plan, self.plan.rows_of(kind)
        with subjects.load_generator(_generator_kind(kind), plan.load) as generator:
            if kind == "direct":
                self._begun(kind, rows)
                self._rows(kind, generator, repetition, rows, events=False)
                return
            start: dict[str, Callable[[], AbstractContextManager[Subject]]] = {
                "ours": lambda: subjects.our_server(generator.far_end or "", plan.server),
                "backlog": lambda: self._server_with_backlog(generator.far_end or ""),
                "plain": lambda: subjects.plain_relay(generator.far_end or "", plan.server),
                "janus": lambda: subjects.janus(plan.server),
            }
            with start[kind]() as subject:
                ours = kind in ("ours", "backlog")
                generator.ask("subject", url=subject.url, pid=subject.pid, health=ours)
                if ours:
                    # The first calls of a process load what the others find.
                    generator.ask("set_ups", count=2)
                if kind == "ours":
                    self.results.set_ups.append(generator.ask("set_ups", count=SET_UPS))
                self._begun(kind, rows)
                self._rows(kind, generator, repetition, rows, events=kind == "ours")

    @contextlib.contextmanager
    def _server_with_backlog(self, far_end: str) -> Iterator[Subject]:
        """Our server with many notices due to a receiver that takes its time."""
        with (
            subjects.slow_receiver(backlog.ANSWER_SECONDS, self.plan.load) as url,
            subjects.our_server(
                far_end, self.plan.server, webhook=url, prepare=backlog.fill
            ) as subject,
        ):
            self._receiver = url
            try:
                yield subject
            finally:
                self._receiver = None

    def _begun(self, kind: str, rows: tuple[int, ...]) -> None:
        self._progress.done(START_PLANNED[kind] + max(rows, default=0) * SET_UP_PLANNED)

    def _rows(
        self,
        kind: str,
        generator: Generator,
        repetition: int,
        rows: tuple[int, ...],
        *,
        events: bool,
    ) -> None:
        base = generator.ask("state")["rss"]
        wanted = (0.0, EVENTS_PER_SECOND) if events else (0.0,)
        rates = list(wanted)
        for calls in rows:
            self._progress.done(len(wanted) * self.plan.window_planned)
            if not rates:
                continue
            ramp = generator.ask("ramp", calls=calls)
            for rate in tuple(rates):
                window = self._window(generator, rate)
                window["rss_per_call"] = (window["rss"] - base) / calls
                window["ramp_seconds"], window["ramp_cpu"] = ramp["seconds"], ramp["cpu"]
                window["repetition"] = repetition
                self.results.add(kind, calls, rate, window)
                self._say("  " + figures.brief(window))
                if calls > 100 and figures.worst_p99(window) > OVERLOADED_MS:
                    self._say("  overloaded: no more of this")
                    rates.remove(rate)

    def _window(self, generator: Generator, rate: float) -> Json:
        """One measurement; again, while others disturb it, and the least disturbed counts."""
        best = self._once(generator, rate)
        while _bad(best) > 0 and self._patience > 0:
            if self._progress.elapsed + self._progress.left > self.plan.limit:
                break
            began = time.monotonic()
            time.sleep(PAUSE_SECONDS)
            window = self._once(generator, rate)
            if _bad(window) < _bad(best):
                best = window
            self._patience -= time.monotonic() - began
        return best

    def _once(self, generator: Generator, rate: float) -> Json:
        receiver, began = self._receiver, time.monotonic()
        before = backlog.received(receiver) if receiver is not None else 0
        window = generator.ask(
            "measure",
            seconds=self.plan.seconds,
            settle=SETTLE_SECONDS,
            events=rate,
            core=self.plan.server.core,
        )
        if receiver is not None:
            after = backlog.received(receiver)
            window["notices_per_second"] = (after - before) / (time.monotonic() - began)
            window["notices_waiting"] = backlog.NOTICES - after
            if after == before or after >= backlog.NOTICES:
                raise BenchFailed(
                    f"{after - before} notices were sent during a window and "
                    f"{backlog.NOTICES - after} waited afterwards: that is no backlog."
                )
        return window

    def _say(self, line: str) -> None:
        sys.stderr.write(self._progress.line(line))
        sys.stderr.flush()


def _bad(window: Json) -> float:
    """How little a window is worth: above 0, it is measured again if there is time."""
    # The generator's own losses look like the server's.
    disturbed = max(0.0, figures.foreign(window) - figures.DISTURBED)
    return disturbed + int(window["generator_drops"])


def _generator_kind(kind: str) -> str:
    return {"direct": "direct", "janus": "janus", "plain": "transcoder"}.get(kind, "relay")


def parse(arguments: list[str]) -> tuple[Plan, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes, one repetition")
    parser.add_argument("--seconds", type=float, help="length of one window  [3; quick: 2]")
    parser.add_argument("--repeat", type=int, help="repetitions  [5; quick: 1]")
    parser.add_argument("--rows", help="numbers of interviews, as in 1,10,50")
    parser.add_argument("--only", help=f"subjects, from {','.join(KINDS)}")
    parser.add_argument(
        "--patience",
        type=float,
        help="minutes spent in all on measuring again what others disturbed  [3; quick: 0]",
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="at most so long  [15]")
    parser.add_argument(
        "--realtime", action="store_true", help="go before other processes, on a busy machine"
    )
    parser.add_argument("--output", type=Path, help="where the table goes  [docs/performance.md]")
    parser.add_argument("--raw", type=Path, help="where every window goes, as JSON")
    options = parser.parse_args(arguments)
    rows: tuple[int, ...] = QUICK_ROWS if options.quick else FULL_ROWS
    if options.rows:
        rows = tuple(sorted({int(row) for row in options.rows.split(",")}))
    kinds = tuple(options.only.split(",")) if options.only else KINDS
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--only: unknown subject {', '.join(sorted(unknown))}")
    if not rows or rows[0] < 1:
        parser.error("--rows: numbers from 1")
    plan = Plan(
        rows=rows,
        seconds=options.seconds or (2.0 if options.quick else 3.0),
        repeat=options.repeat or (1 if options.quick else 5),
        kinds=tuple(kind for kind in KINDS if kind in kinds),
        patience=60
        * (options.patience if options.patience is not None else 0.0 if options.quick else 3.0),
        limit=60 * options.minutes,
    )
    return plan, options


def command(arguments: list[str]) -> str:
    """How to measure the same again: the arguments that were given, but for where output goes."""
    kept, skip = [], False
    for argument in arguments:
        name = argument.partition("=")[0]
        if not skip and name not in ("--output", "--raw"):
            kept.append(argument)
        skip = argument in ("--output", "--raw")
    given = f"make bench ARGS={shlex.quote(shlex.join(kept))}" if kept else "make bench"
    return f"BENCH_JANUS=1 {given}" if os.environ.get("BENCH_JANUS") == "1" else given


def prepare(plan: Plan, *, realtime: bool = False) -> None:
    """Choose cores and leave out what this machine cannot measure.

    Raises:
        BenchFailed: Janus was insisted on and cannot be measured, or there is no real time.
    """
    cores = machine.cores()
    if realtime and not subjects.may_run_realtime():
        raise BenchFailed("--realtime needs the right to set it (root, or CAP_SYS_NICE).")
    plan.server, plan.load = Place(cores[0], realtime), Place(cores[-1], realtime)
    if realtime:
        plan.notes.append(
            "Servers and generator ran with real-time priority (`--realtime`), because the "
            "machine did other work meanwhile. That keeps delays clean, but makes all CPU figures "
            "larger than on a quiet machine: the other work takes the caches between packets."
        )
    if len(cores) < 2:
        plan.notes.append("Only one core: server and load share it, and delays mean little.")
    if "janus" in plan.kinds and (missing := subjects.janus_missing()):
        if os.environ.get("BENCH_JANUS") == "1":
            raise BenchFailed(f"BENCH_JANUS=1, but {missing}.")
        plan.notes.append(f"Not compared with Janus: {missing}.")
        plan.kinds = tuple(kind for kind in plan.kinds if kind != "janus")


def main() -> int:
    """Measure, print, write; the exit code says whether it could be measured."""
    plan, options = parse(sys.argv[1:])
    try:
        prepare(plan, realtime=options.realtime)
        results = Bench(plan).run()
    except BenchFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    text = report.document(results, plan.seconds, plan.notes, command(sys.argv[1:]))
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.stderr.write(f"\n{goals.summary(goals.goals(results))}\n")
    if options.raw is not None:
        options.raw.write_text(json.dumps(results.raw()), encoding="utf-8")
    # A part of the table, or a hasty one, does not take the place of the whole.
    partial = options.quick or options.only or options.rows
    output = options.output or (None if partial else subjects.ROOT / "docs" / "performance.md")
    if output is not None:
        output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
