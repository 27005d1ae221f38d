"""``python -m bench.recording``: what recording costs, and how fast an interview is mixed.

The writer alone is measured in this process: packets in order and out of order into recorders,
flushed twice a second of simulated time. What it adds to the relay is the difference between two
servers, with and without a folder to record into, measured in turns within the same minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from interview_peer.core.opus import SILENCE_20_MS
from interview_peer.finishing.job import mix
from interview_peer.simulator.library import scripts
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder
from interview_peer.types import SessionId, Speaker

from . import machine, subjects
from .progress import Progress
from .subjects import BenchFailed, Generator, Place

FRAME_SECONDS: Final = 0.02
WRITER_GOAL: Final = 0.1
RELAY_GOAL: Final = 0.5
MIX_GOAL: Final = 50.0
SETTLE_SECONDS: Final = 1.2
START_PLANNED: Final = 4.0
SET_UP_PLANNED: Final = 0.06


@dataclass(frozen=True)
class Writer:
    """Processor time of the recorders alone."""

    microseconds_per_packet: float
    milliseconds_per_second: float
    """For one stream and one second of it."""


def speech() -> list[bytes]:
    """Every sentence of the simulator, one after the other."""
    return [packet for script in scripts() for line in script.lines for packet in line.packets]


def writer(root: Path, interviews: int, seconds: int) -> Writer:
    """Record so many interviews side by side: one speaker all the time, the other in turns."""
    packets = speech()
    recorders: list[Recorder] = []
    for number in range(interviews):
        folder = InterviewFolder(root, SessionId(f"writer-{number}"))
        folder.create()
        recorders.append(Recorder(folder, 0.0, datetime.now(UTC)))
    idle = _drive([_Idle() for _ in recorders], packets, seconds)[0]
    used, count = _drive(recorders, packets, seconds)
    streams = 2 * interviews * seconds
    return Writer((used - idle) / count * 1e6, (used - idle) / streams * 1e3)


class _Hole:
    """A queue that keeps nothing."""

    def put(self, at: float, source: int, sequence: int, timestamp: int, payload: bytes) -> None:
        pass


class _Idle:
    """A recorder that does nothing: what calling one costs is not the recorder's."""

    def queue(self, speaker: Speaker) -> _Hole:
        return _Hole()

    def flush(self, now: float) -> None:
        pass

    def close(self, now: float) -> None:
        pass


def _drive(
    recorders: Sequence[Recorder | _Idle], packets: list[bytes], seconds: int
) -> tuple[float, int]:
    """Processor seconds used, and packets recorded."""
    count = 0
    began = time.process_time()
    for tick in range(1, seconds * 2 + 1):
        for recorder in recorders:
            candidate = recorder.queue(Speaker.CANDIDATE).put
            interviewer = recorder.queue(Speaker.INTERVIEWER).put
            for slot, frame in _arrivals((tick - 1) * 25, tick * 25):
                at, payload = slot * FRAME_SECONDS, packets[frame % len(packets)]
                timestamp = frame * 960 & 0xFFFFFFFF
                candidate(at, 1, frame & 0xFFFF, timestamp, payload)
                count += 1
                if frame // 500 % 2:
                    interviewer(at, 2, frame & 0xFFFF, timestamp, payload)
                    count += 1
            recorder.flush(tick / 2)
    for recorder in recorders:
        recorder.close(float(seconds))
    return time.process_time() - began, count


def _arrivals(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Frames as a network delivers them, and when: every tenth comes after the two behind it."""
    for start in range(first, end, 10):
        order = [*range(start, min(start + 10, end))]
        if len(order) > 2:
            order[:3] = [start + 1, start + 2, start]
        latest = start
        for frame in order:
            latest = max(latest, frame)
            yield latest, frame


def mixing(root: Path, seconds: int) -> float:
    """How many times faster than it lasts an interview of real speech is mixed, on one core."""
    packets = speech()
    folder = InterviewFolder(root, SessionId("mix"))
    folder.create()
    recorder = Recorder(folder, 0.0, datetime.now(UTC))
    turns = (Speaker.CANDIDATE, Speaker.INTERVIEWER)
    for frame in range(seconds * 50):
        speaking = turns[frame // 400 % 2]
        for speaker in Speaker:
            payload = packets[frame % len(packets)] if speaker is speaking else SILENCE_20_MS
            at = frame * FRAME_SECONDS
            recorder.audio(speaker, at, frame & 0xFFFF, frame * 960 & 0xFFFFFFFF, payload)
        if frame % 25 == 0:
            recorder.flush(frame * FRAME_SECONDS)
    recorder.close(float(seconds))
    began = time.process_time()
    mixed = mix(folder, lambda share: None)
    return mixed / (time.process_time() - began)


def relay(calls: int, seconds: float, repeat: int) -> list[float]:
    """Milliseconds that recording adds to a second of one stream, for each repetition."""
    cores = machine.cores()
    server, load = Place(cores[0]), Place(cores[-1])
    added: list[float] = []
    each = START_PLANNED + calls * SET_UP_PLANNED + SETTLE_SECONDS + seconds
    progress = Progress(2 * repeat * each)
    for repetition in range(repeat):
        used: dict[bool, float] = {}
        # What changes on the machine meanwhile favours neither.
        for recording in (True, False) if repetition % 2 == 0 else (False, True):
            with (
                subjects.load_generator("relay", load) as generator,
                subjects.our_server(
                    generator.far_end or "", server, recording=recording
                ) as subject,
            ):
                generator.ask("subject", url=subject.url, pid=subject.pid)
                used[recording] = _per_stream(generator, calls, seconds, server.core)
            progress.done(each)
            words = f"{'with' if recording else 'without'} recording: {used[recording]:.2f} ms/s"
            sys.stderr.write(progress.line(f"repetition {repetition + 1} of {repeat}, {words}"))
        added.append(used[True] - used[False])
    return added


def _per_stream(generator: Generator, calls: int, seconds: float, core: int) -> float:
    generator.ask("ramp", calls=calls)
    window = generator.ask("measure", seconds=seconds, settle=SETTLE_SECONDS, events=0.0, core=core)
    return 1_000 * float(window["cpu"]) / calls / 2


class Report:
    """A table of what was found beside what is wanted, line by line as it is known."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self.missed: list[str] = []
        """What did not reach its goal."""
        write(f"{'':<58} {'goal':>8} {'measured':>10}\n")

    def at_most(self, what: str, goal: float, found: float) -> None:
        """A figure that has to be small."""
        self._row(what, f"{goal:g}", f"{found:.3f}", found <= goal)

    def at_least(self, what: str, goal: float, found: float) -> None:
        """A figure that has to be large."""
        self._row(what, f"{goal:g}", f"{found:.0f}", found >= goal)

    def only(self, what: str, found: float) -> None:
        """A figure without a goal."""
        self._write(f"{what:<58} {'-':>8} {found:>10.2f}\n")

    def _row(self, what: str, goal: str, found: str, good: bool) -> None:
        if not good:
            self.missed.append(what)
        self._write(f"{what:<58} {goal:>8} {found:>10}   {'met' if good else 'MISSED'}\n")


def main() -> int:
    """Measure and print; the exit code is 1 when a goal is missed or nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.recording", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, without the relay")
    parser.add_argument("--calls", type=int, default=50, help="interviews in the relay  [50]")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of the relay  [5]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        alone = writer(root, interviews=5 if options.quick else 20, seconds=60)
        speed = mixing(root, seconds=120 if options.quick else 600)
    report = Report(sys.stdout.write)
    report.only("writer, us per packet", alone.microseconds_per_packet)
    report.at_most("writer, ms per s per stream", WRITER_GOAL, alone.milliseconds_per_second)
    report.at_least("mixing, times real time per core", MIX_GOAL, speed)
    if not options.quick:
        try:
            added = relay(options.calls, 4.0, options.repeat)
        except BenchFailed as error:
            sys.stderr.write(f"{error}\n")
            return 1
        what = f"in the relay, with minus without, {options.calls} interviews, ms/s"
        report.at_most(what, RELAY_GOAL, statistics.median(added))
    if report.missed:
        sys.stderr.write(f"missed: {'; '.join(report.missed)}\n")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
