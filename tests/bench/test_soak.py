"""What the soak takes for left over, and how it tells."""

from __future__ import annotations

import dataclasses
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench import sections, soak
from bench.soak import Sample, Soak, faults_of, odd_visits, page

BEFORE = Sample(
    at=60.0,
    interviews=0,
    sessions=0,
    unfinished=0,
    untold=0,
    finished=300,
    tasks=14,
    threads=8,
    descriptors=13,
    memory=100_000_000,
    held=60_000_000,
    pages=1_500_000,
)


def after(**changes: Any) -> Sample:
    return dataclasses.replace(BEFORE, at=1860.0, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tasks": 13, "descriptors": 12},
        {"threads": 8 + soak.LENDING_THREADS},
        {"memory": 100_000_000 + soak.MEMORY_BYTES},
        {"held": 60_000_000 + soak.HELD_BYTES},
        {"held": 60_000_000 + soak.HELD_BYTES + 700 * soak.NAME_BYTES, "finished": 1000},
        {"pages": soak.PAGES_BYTES},
    ],
)
def test_what_is_back_where_it_was_is_no_fault(changes: Any) -> None:
    assert faults_of(BEFORE, after(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sessions": 1}, "1 sessions more than at the beginning"),
        ({"unfinished": 3}, "3 recordings that wait more"),
        ({"tasks": 16}, "2 tasks more than at the beginning"),
        ({"threads": 9 + soak.LENDING_THREADS}, "threads more"),
        ({"descriptors": 14}, "1 descriptors more than at the beginning"),
        ({"memory": 100_000_001 + soak.MEMORY_BYTES}, "bytes of memory more"),
        ({"held": 60_000_001 + soak.HELD_BYTES}, "bytes held by objects more"),
        (
            {"held": 60_000_001 + soak.HELD_BYTES + 700 * soak.NAME_BYTES, "finished": 1000},
            "bytes held by objects more",
        ),
        ({"untold": 2}, "2 happenings that wait more"),
        ({"pages": soak.PAGES_BYTES + 1}, "bytes of the database's pages in memory"),
    ],
)
def test_what_is_left_over_is_told(changes: Any, told: str) -> None:
    (fault,) = faults_of(BEFORE, after(**changes))
    assert told in fault


@pytest.mark.parametrize(
    ("good", "failed", "faults"),
    [
        (0, {}, 0),
        (4, {"return: TimeoutError": 1}, 0),
        (95, {"return: TimeoutError": 3, "return: SESSION_BUSY": 2}, 0),
        (94, {"return: TimeoutError": 3, "return: SESSION_BUSY": 3}, 1),
        (0, {"return: SESSION_BUSY": 12}, 1),
        (0, {"return: SESSION_BUSY": 2, "interview: TimeoutError": 500}, 1),
    ],
)
def test_a_sort_of_visit_that_goes_wrong_too_often_is_a_fault(
    good: int, failed: dict[str, int], faults: int
) -> None:
    found = odd_visits(Counter({"return": good, "interview": 9500}), Counter(failed))
    assert len(found) == faults
    assert all("visits of the sort return went wrong" in one for one in found)


async def test_the_page_tells_the_verdict_and_holds_no_more_than_a_screen_of_samples() -> None:
    async with aiohttp.ClientSession() as http:
        run = Soak("http://127.0.0.1:1", 1, random.Random(1), http, Path())
    run.samples = [dataclasses.replace(BEFORE, at=60.0 + n) for n in range(360)]
    run.done.update({"interview": 7, "close_page": 2})
    good = page(run, BEFORE, after(), 30)
    assert "everything is back where it was" in good and "9 visits" in good
    assert "| close page | 2 |" in good
    assert len(good.splitlines()) < 45
    both = sections.put(sections.put("", "Soak", good), "While under attack", "unharmed")
    again = sections.put(both, "Soak", "short")
    assert again.count("## Soak") == 1 and "| close page | 2 |" not in again
    assert again.startswith("# Reliability") and again.endswith(
        "## While under attack\n\nunharmed\n"
    )
    assert "2 tasks more" in page(run, BEFORE, after(tasks=16), 30)
    run.failed["close_page: TimeoutError"] = 2
    assert "**Result: 2 of 4 visits of the sort close page" in page(run, BEFORE, after(), 30)


async def test_a_look_does_not_count_its_own_connection() -> None:
    async def health(request: web.Request) -> web.Response:
        known = {"interviews": 0, "sessions": 0, "tasks": 1}
        finishing = {"waiting": 0, "running": 0, "finished": 0}
        return web.json_response(
            {**known, "recordings": {"finishing": finishing}, "chronicle": {"waiting": 0}}
        )

    application = web.Application()
    application.router.add_get("/healthz", health)
    async with TestServer(application) as server, aiohttp.ClientSession() as http:
        # A first one opens what stays open.
        url = str(server.make_url("")).rstrip("/")
        run = Soak(url, os.getpid(), random.Random(1), http, Path())
        await run.sample()
        await http.connector.close()  # type: ignore[union-attr]
        closing = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=closing) as run.http:
            for _ in range(3):
                before = len(os.listdir("/proc/self/fd"))
                assert (await run.sample()).descriptors == before


async def test_all_do_the_same_at_once_before_they_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[str, ...]] = []

    async def run(self: Soak, seconds: float, kinds: Any = None) -> None:
        met.append(tuple(one.__name__ for one in kinds or ()))

    monkeypatch.setattr(Soak, "run", run)
    async with aiohttp.ClientSession() as http:
        await Soak("http://127.0.0.1:1", 1, random.Random(1), http, Path()).warm_up(9.0)
    assert met == [
        *((name,) for name in dict.fromkeys(one.__name__ for one in soak.BEHAVIOURS)),
        (),
    ]


async def test_it_is_not_quiet_while_happenings_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([9, 9, 9, 9, 9, 0, 0, 0, 0])

    async def sample(self: Soak) -> Sample:
        return dataclasses.replace(BEFORE, untold=next(looks), held=0, pages=0)

    async def collected(self: Soak) -> Any:
        return {"tasks": {}, "held": 7, "pages": 2}

    monkeypatch.setattr(Soak, "sample", sample)
    monkeypatch.setattr(Soak, "_collected", collected)
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(soak, "STEADY_LOOKS", 3)
    async with aiohttp.ClientSession() as http:
        seen = await Soak("http://127.0.0.1:1", 1, random.Random(1), http, Path()).quiet()
    assert seen.untold == 0


async def test_a_task_of_a_moment_is_not_taken_for_one_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([16, 14, 14, 14, 14, 15, 14])

    async def sample(self: Soak) -> Sample:
        return dataclasses.replace(BEFORE, tasks=next(looks), held=0)

    async def collected(self: Soak) -> Any:
        return {"tasks": {}, "held": 7, "pages": 2}

    monkeypatch.setattr(Soak, "sample", sample)
    monkeypatch.setattr(Soak, "_collected", collected)
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(soak, "STEADY_LOOKS", 3)
    async with aiohttp.ClientSession() as http:
        seen = await Soak("http://127.0.0.1:1", 1, random.Random(1), http, Path()).quiet()
    assert (seen.tasks, seen.held, seen.pages) == (14, 5, 2)
    assert next(looks, None) is None
