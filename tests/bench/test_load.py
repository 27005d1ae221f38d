"""Under load the server's own meters run, agree with what callers measure, and say: in time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from bench import figures, health, machine, subjects
from bench.subjects import Generator, Place, Subject
from interview_peer.types import Json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the Linux kernel's figures")

INTERVIEWS = 3
SECONDS = 1.5
WINDOWS = 6
"""A machine that does other things may disturb one window or another, not all of them."""

STOP_SECONDS = 0.08
STOPS = 4


def media(subject: Subject) -> Json:
    with urllib.request.urlopen(f"{subject.url}/healthz", timeout=10) as response:
        found: Json = json.loads(response.read())["media"]
        return found


@contextlib.contextmanager
def loaded() -> Iterator[tuple[Generator, Subject]]:
    """Our server with some interviews up, through which audio can be sent."""
    cores, first = machine.cores(), subjects.may_run_realtime()
    with (
        subjects.load_generator("relay", Place(cores[-1], first)) as generator,
        subjects.our_server(generator.far_end or "", Place(cores[0], first)) as subject,
    ):
        generator.ask("subject", url=subject.url, pid=subject.pid, health=True)
        before = media(subject)["loop"]["held_over_ms"]["1"]
        generator.ask("ramp", calls=INTERVIEWS)
        # Agreeing on keys holds the loop for milliseconds, each time.
        assert media(subject)["loop"]["held_over_ms"]["1"] >= before + INTERVIEWS
        yield generator, subject


def measured(generator: Generator) -> Json:
    core = machine.cores()[0]
    return generator.ask("measure", seconds=SECONDS, settle=0.3, events=5.0, core=core)


def test_packets_are_in_time_and_the_loop_is_free_by_the_servers_own_word() -> None:
    with loaded() as (generator, _):
        for _ in range(WINDOWS):
            window = measured(generator)
            assert min(window["health"]["sampled"]) >= 1
            lag, late = figures.lag(window), figures.late(window)
            if lag <= health.LAG_LIMIT_MS and late <= health.LATE_LIMIT:
                break
        assert lag <= health.LAG_LIMIT_MS
        assert late <= health.LATE_LIMIT
        assert figures.lost(window) == 0


def test_packets_that_a_stopped_server_held_are_late_both_ways() -> None:
    with loaded() as (generator, subject):
        over = threading.Event()

        def stop_now_and_then() -> None:
            while not over.wait(SECONDS / STOPS - STOP_SECONDS):
                os.kill(subject.pid, signal.SIGSTOP)
                over.wait(STOP_SECONDS)
                os.kill(subject.pid, signal.SIGCONT)

        stopping = threading.Thread(target=stop_now_and_then)
        stopping.start()
        try:
            window = measured(generator)
        finally:
            over.set()
            stopping.join()
        # One of the stops may lie across the window's edge.
        held = (STOPS - 1) * INTERVIEWS * (STOP_SECONDS - 0.005) * 50
        # Those late at the two readings, just outside the window, are not the callers'.
        edge = INTERVIEWS * STOP_SECONDS * 50 * 2
        for late, callers in zip(window["health"]["late"], window["over_5_ms"], strict=True):
            assert late >= 0.8 * held
            assert late <= callers + edge
