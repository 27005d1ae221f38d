"""``python -m bench``: runs the measurements, prints the table and writes it down.

Each repetition measures everything once, subjects one after the other, so that what is compared
ran within the same minutes; figures are medians over the repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from interview_peer.types import Json

from . import machine, report, subjects
from .subjects import BenchFailed, Generator, Place, Subject

KINDS = ("direct", "ours", "plain", "janus")
FULL_ROWS = (1, 10, 50, 100, 150, 200, 250, 300)
QUICK_ROWS = (1, 10, 50)
JANUS_ROWS = (10, 50, 100)
PLAIN_ROWS = (1, 4)
DIRECT_ROWS = (50,)
EVENTS_PER_SECOND = 5.0
SETTLE_SECONDS = 1.2
OVERLOADED_MS = 200.0
PAUSE_SECONDS = 2.0
"""Before a disturbed window is measured again."""


@dataclass
class Plan:
    """What to measure."""

    rows: tuple[int, ...]
    seconds: float
    repeat: int
    kinds: tuple[str, ...]
    patience: float = 300.0
    """Seconds that measuring disturbed windows again may take in all."""
    server: Place = Place(0)
    load: Place = Place(0)
    notes: list[str] = field(default_factory=list)


class Bench:
    """One run: all repetitions of all subjects."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.results = report.Results()
        self._began = time.monotonic()
        self._patience = plan.patience

    def run(self) -> report.Results:
        """Measure everything."""
        for repetition in range(self.plan.repeat):
            # Whatever changes on the machine in the meantime favours no subject.
            kinds = self.plan.kinds if repetition % 2 == 0 else self.plan.kinds[::-1]
            for kind in kinds:
                self._say(f"repetition {repetition + 1} of {self.plan.repeat}: {kind}")
                self._measure(kind, repetition)
        self.results.minutes = (time.monotonic() - self._began) / 60
        return self.results

    def _measure(self, kind: str, repetition: int) -> None:
        plan = self.plan
        with subjects.load_generator(_generator_kind(kind), plan.load) as generator:
            if kind == "direct":
                self._rows(kind, generator, repetition, DIRECT_ROWS, events=False)
                return
            start: dict[str, Callable[[], AbstractContextManager[Subject]]] = {
                "ours": lambda: subjects.our_server(generator.far_end or "", plan.server),
                "plain": lambda: subjects.plain_relay(generator.far_end or "", plan.server),
                "janus": lambda: subjects.janus(plan.server),
            }
            with start[kind]() as subject:
                generator.ask("subject", url=subject.url, pid=subject.pid)
                if kind == "ours":
                    # The first calls of a process load what the others find.
                    generator.ask("set_ups", count=2)
                    self.results.set_ups.append(generator.ask("set_ups", count=10))
                    self._rows(kind, generator, repetition, plan.rows, events=True)
                else:
                    rows: tuple[int, ...] = PLAIN_ROWS if kind == "plain" else JANUS_ROWS
                    rows = tuple(row for row in rows if row <= max(plan.rows))
                    self._rows(kind, generator, repetition, rows, events=False)

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
        rates = [0.0, EVENTS_PER_SECOND] if events else [0.0]
        for calls in rows:
            ramp = generator.ask("ramp", calls=calls)
            for rate in tuple(rates):
                window = self._window(generator, rate)
                window["rss_per_call"] = (window["rss"] - base) / calls
                window["ramp_seconds"] = ramp["seconds"]
                window["repetition"] = repetition
                self.results.add(kind, calls, rate, window)
                self._say("  " + report.brief(window))
                if calls > 100 and report.worst_p99(window) > OVERLOADED_MS:
                    self._say("  overloaded: no more of this")
                    rates.remove(rate)
            if not rates:
                return

    def _window(self, generator: Generator, rate: float) -> Json:
        """One measurement; again, while others disturb it, and the least disturbed counts."""
        best = self._once(generator, rate)
        while report.foreign(best) > report.DISTURBED and self._patience > 0:
            began = time.monotonic()
            time.sleep(PAUSE_SECONDS)
            window = self._once(generator, rate)
            if report.foreign(window) < report.foreign(best):
                best = window
            self._patience -= time.monotonic() - began
        return best

    def _once(self, generator: Generator, rate: float) -> Json:
        return generator.ask(
            "measure",
            seconds=self.plan.seconds,
            settle=SETTLE_SECONDS,
            events=rate,
            core=self.plan.server.core,
        )

    def _say(self, line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._began:5.0f} s] {line}\n")


def _generator_kind(kind: str) -> str:
    return {"direct": "direct", "janus": "janus", "plain": "transcoder"}.get(kind, "relay")


def parse(arguments: list[str]) -> tuple[Plan, argparse.Namespace]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes, one repetition")
    parser.add_argument("--seconds", type=float, help="length of one window  [4; quick: 2]")
    parser.add_argument("--repeat", type=int, help="repetitions  [5; quick: 1]")
    parser.add_argument("--rows", help="numbers of interviews, as in 1,10,50")
    parser.add_argument("--only", help=f"subjects, from {','.join(KINDS)}")
    parser.add_argument(
        "--patience",
        type=float,
        help="minutes spent in all on measuring again what others disturbed  [5; quick: 0]",
    )
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
        seconds=options.seconds or (2.0 if options.quick else 4.0),
        repeat=options.repeat or (1 if options.quick else 5),
        kinds=tuple(kind for kind in KINDS if kind in kinds),
        patience=60
        * (options.patience if options.patience is not None else 0.0 if options.quick else 5.0),
    )
    return plan, options


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
    text = report.document(results, plan.seconds, plan.repeat, plan.notes)
    sys.stdout.write(text)
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
