"""The benchmark runs end to end: a real server, one interview, two seconds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from bench import subjects

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
        assert min(one["sent"]) >= 49
        assert one["unstamped"] == 0
    without, with_events = windows[1:]
    assert without["cpu"] > 0
    assert with_events["events_sent"] == with_events["events_received"] >= 4
    assert "| 1 | 5 |" in page.read_text()


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
