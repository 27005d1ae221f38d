"""The benchmark runs end to end: a real server, one interview, two seconds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine, subjects
from bench.progress import Progress
from tests.support.server import clean_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the Linux kernel's figures")


async def test_one_interview_is_measured_and_nothing_is_lost(tmp_path: Path) -> None:
    raw, page = tmp_path / "raw.json", tmp_path / "page.md"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "--quick", "--only", "direct,ours", "--rows", "1"),
        *("--seconds", "1", "--raw", str(raw), "--output", str(page)),
        cwd=subjects.ROOT,
        env={**os.environ, "PYTHONPATH": str(subjects.ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    windows = json.loads(raw.read_text())["windows"]
    assert [(one["subject"], one["rate"]) for one in windows] == [
        ("direct", 0.0),
        ("ours", 0.0),
        ("ours", 5.0),
    ]
    for one in windows:
        assert one["received"] == one["sent"]
        # Fifty in a second, but for what a busy machine shifts over the window's edges.
        assert min(one["sent"]) >= 40
        assert one["unstamped"] == 0
    without, with_events = windows[1:]
    assert without["cpu"] > 0
    assert with_events["events_sent"] == with_events["events_received"] >= 4
    for one in (without, with_events):
        assert min(one["health"]["sampled"]) >= 1
        assert 0 <= one["health"]["lag_ms"] < float("inf")
        assert len(one["ramp_seconds"]) == len(one["ramp_cpu"]) == 1
    text = page.read_text()
    assert "| 1 | 5 |" in text
    told = "`make bench ARGS='--quick --only direct,ours --rows 1 --seconds 1'`"
    assert f"Repeat it: {told};" in text, "the arguments given, and not where output went"
    assert b" left] repetition 1 of 1: ours" in output


@pytest.mark.timeout(180)
async def test_backlog_is_worked_on_while_a_window_is_measured(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "--quick", "--only", "backlog", "--rows", "1"),
        *("--seconds", "1", "--raw", str(raw)),
        cwd=subjects.ROOT,
        env={**os.environ, "PYTHONPATH": str(subjects.ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    window = json.loads(raw.read_text())["windows"][-1]
    assert window["subject"] == "backlog"
    assert window["notices_per_second"] > 0
    assert 0 < window["notices_waiting"] < 100_000
    assert b"| 1 with backlog |" in output


@pytest.mark.parametrize(("given", "wanted"), [((), ""), (("ARGS=--quick --rows 1",), " --quick")])
def test_make_bench_measures_every_part_and_fails_where_one_misses_a_goal(
    tmp_path: Path, given: tuple[str, ...], wanted: str
) -> None:
    (tmp_path / "bin").mkdir()
    ran = tmp_path / "ran"
    python = tmp_path / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\necho "$*" >> {ran}\ncase "$2" in $MISSES) exit 1;; esac\n', encoding="utf-8"
    )
    python.chmod(0o755)
    for name in (".installed", ".installed-dev"):
        (tmp_path / name).touch()
    for misses, code in (("nothing", 0), ("bench.recording", 2)):
        ran.unlink(missing_ok=True)
        make = subprocess.run(
            ["make", "bench", f"VENV={tmp_path}", *given],
            cwd=subjects.ROOT,
            env={**clean_environment(), "MISSES": misses},
            capture_output=True,
            text=True,
            check=False,
        )
        assert make.returncode == code, make.stderr
        _, *parts = ran.read_text(encoding="utf-8").splitlines()
        assert parts == [f"-m bench.{part}{wanted}" for part in ("notices", "recording", "attack")]


def test_whole_run_fits_into_its_time() -> None:
    from bench import __main__ as bench

    plan, _ = bench.parse([])
    planned = plan.repeat * sum(plan.planned(kind) for kind in plan.kinds)
    assert planned + plan.patience <= plan.limit
    # Recording takes two minutes, notices a minute and a half.
    assert plan.limit <= (20 - 4) * 60


def test_run_that_takes_too_long_ends_after_fewer_repetitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench import __main__ as bench

    plan, _ = bench.parse(["--minutes", "0"])
    run = bench.Bench(plan)
    done: list[int] = []
    monkeypatch.setattr(run, "_measure", lambda kind, repetition: done.append(repetition))
    results = run.run()
    assert done == [0] * len(plan.kinds)
    assert results.repetitions == 1
    assert any("1 of 5 repetitions" in note for note in plan.notes)


def test_what_is_left_follows_the_pace_so_far() -> None:
    now = 0.0
    progress = Progress(100.0, lambda: now)
    assert progress.left == 100.0
    progress.done(20.0)
    now = 40.0
    assert progress.left == pytest.approx(160.0)
    assert progress.line("ours") == "[   40 s, about 3 min left] ours\n"
    progress.done(1000.0)
    assert progress.left == 0.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "make bench"),
        (["--output", "x.md", "--quick"], "make bench ARGS=--quick"),
        (["--rows", "1,5", "--raw=x"], "make bench ARGS='--rows 1,5'"),
    ],
)
def test_command_to_repeat_a_run_has_the_arguments_it_had(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import __main__ as bench

    monkeypatch.delenv("BENCH_JANUS", raising=False)
    assert bench.command(arguments) == told
    monkeypatch.setenv("BENCH_JANUS", "1")
    assert bench.command(arguments) == f"BENCH_JANUS=1 {told}"


async def test_insisting_on_a_missing_janus_fails_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench import __main__ as bench

    monkeypatch.setattr(subjects, "janus_missing", lambda: "Janus is not installed")
    monkeypatch.setenv("BENCH_JANUS", "1")
    plan, _ = bench.parse(["--quick"])
    with pytest.raises(subjects.BenchFailed, match="Janus is not installed"):
        bench.prepare(plan)


def test_without_janus_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import __main__ as bench

    monkeypatch.setattr(subjects, "janus_missing", lambda: "Janus is not installed")
    monkeypatch.delenv("BENCH_JANUS", raising=False)
    plan, _ = bench.parse(["--quick"])
    bench.prepare(plan)
    assert "janus" not in plan.kinds
    assert any("Janus is not installed" in note for note in plan.notes)


def test_what_is_measured_leaves_no_core_dump(tmp_path: Path) -> None:
    asked = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    place = subjects.Place(machine.cores()[0])
    with subjects._process([sys.executable, "-c", asked], place, tmp_path / "log") as process:
        assert process.communicate()[0] == "(0, 0)\n"
