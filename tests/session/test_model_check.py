"""The models are looked for at the start: what is wrong is warned of, and nothing waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from interview_peer.model import openai_realtime
from interview_peer.model.check import Finding, Verdict, check_model, check_models
from interview_peer.model.openai_realtime import RealtimeConnector
from tests.support.inprocess import live, serving
from tests.support.waiting import eventually

KEY = "sk-marked-KEY-4712"
TODAY = date(2026, 11, 20)
CHECK = "interview_peer.model.check"

ANSWERS: dict[str, tuple[int, str]] = {
    "good": (200, '{"id": "good", "shutdown_date": null}'),
    "older": (200, '{"id": "older"}'),
    "closing": (200, '{"shutdown_date": "2027-01-20"}'),
    "closing-time": (200, '{"shutdown_date": "2027-01-20T00:00:00Z"}'),
    "closing-seconds": (200, '{"shutdown_date": 1800403200}'),
    "shut": (200, '{"shutdown_date": "2026-05-07"}'),
    "shut-today": (200, '{"shutdown_date": "2026-11-20"}'),
    "odd-date": (200, '{"shutdown_date": "some day"}'),
    "missing": (404, '{"error": {"code": "model_not_found"}}'),
    "refused": (401, "{}"),
    "broken": (500, "{}"),
    "busy": (429, "{}"),
    "elsewhere": (307, "{}"),
    "garbage": (200, "<html>"),
    "a list": (200, "[]"),
    "deep": (200, "[" * 100_000),
    "huge": (200, " " * 300_000),
}

EXPECTED = {
    "good": (Verdict.WELL, None),
    "older": (Verdict.WELL, None),
    "closing": (Verdict.CLOSING, date(2027, 1, 20)),
    "closing-time": (Verdict.CLOSING, date(2027, 1, 20)),
    "closing-seconds": (Verdict.CLOSING, date(2027, 1, 20)),
    "shut": (Verdict.SHUT_DOWN, date(2026, 5, 7)),
    "shut-today": (Verdict.SHUT_DOWN, date(2026, 11, 20)),
    "odd-date": (Verdict.WELL, None),
    "missing": (Verdict.MISSING, None),
    "../realtime/calls": (Verdict.MISSING, None),
    "refused": (Verdict.REFUSED, None),
    "broken": (Verdict.NOT_KNOWN, None),
    "busy": (Verdict.NOT_KNOWN, None),
    "elsewhere": (Verdict.NOT_KNOWN, None),
    "garbage": (Verdict.NOT_KNOWN, None),
    "a list": (Verdict.NOT_KNOWN, None),
    "deep": (Verdict.NOT_KNOWN, None),
    "huge": (Verdict.NOT_KNOWN, None),
    "silent": (Verdict.NOT_KNOWN, None),
}


async def answer(request: web.Request) -> web.StreamResponse:
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    name = request.match_info["model"]
    if name == "silent":
        await asyncio.Event().wait()
    status, text = ANSWERS.get(name, ANSWERS["missing"])
    return web.Response(status=status, text=text, headers={"Location": "http://127.0.0.1:9/"})


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    """A service that knows models and nothing else."""
    app = web.Application()
    app.router.add_get("/v1/models/{model}", answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


@pytest.fixture
async def connector(base_url: str) -> AsyncIterator[RealtimeConnector]:
    async with aiohttp.ClientSession() as http:
        yield RealtimeConnector(base_url, KEY, http)


async def test_each_answer_is_a_finding(
    connector: RealtimeConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_realtime, "MODEL_SECONDS", 0.3)
    found = await check_models(connector, [*EXPECTED, "good"], TODAY)
    assert {one.model: (one.verdict, one.shutdown) for one in found} == EXPECTED
    assert [one.model for one in found] == sorted(EXPECTED)
    for one in found:
        assert one.is_well is (one.verdict is Verdict.WELL)
        assert one.model in one.sentence and "None" not in one.sentence


async def test_a_service_that_is_not_there_is_a_finding() -> None:
    async with aiohttp.ClientSession() as http:
        found = await check_model(RealtimeConnector("http://127.0.0.1:9/v1", KEY, http), "m", TODAY)
    assert found == Finding("m", Verdict.NOT_KNOWN)


async def test_a_live_start_warns_of_what_is_wrong_and_names_no_key(
    base_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = live(base_url, KEY, openai_model="closing")
    async with serving(tmp_path, **settings):

        async def told() -> dict[str, str]:
            return {
                str(record.__dict__["model"]): record.levelname
                for record in caplog.records
                if record.name == CHECK
            }

        # What speech is transcribed by is looked for as well; this service has no such model.
        found = await eventually(told, within=5, what="all findings", good=lambda all: len(all) > 1)
        assert found == {"closing": "WARNING", "gpt-transcribe": "WARNING"}
    assert "will be shut down on 2027-01-20" in caplog.text
    written = json.dumps([{**record.__dict__} for record in caplog.records], default=str)
    assert KEY not in written


async def test_a_start_neither_waits_for_the_answer_nor_does_the_end(
    base_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    async with serving(tmp_path, **live(base_url, KEY, openai_model="silent")):
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "check models" in names
    assert time.monotonic() - began < openai_realtime.MODEL_SECONDS / 2
    assert [record for record in caplog.records if record.name == CHECK] == []


async def test_a_simulation_asks_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert "check models" not in {task.get_name() for task in asyncio.all_tasks()}
