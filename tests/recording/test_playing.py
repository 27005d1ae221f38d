"""A real Chromium plays the files: lengths and seeking are right."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from interview_peer.types import Speaker
from tests.support.chromium import browsing

from .folders import MARKS, SECONDS, finished

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

PLAY = """
async (url) => {
  const told = (target, kind) => new Promise((done, failed) => {
    target.addEventListener(kind, done, { once: true });
    target.addEventListener('error', () => failed(new Error(kind)), { once: true });
  });
  const player = new Audio();
  player.preload = 'auto';
  const ready = told(player, 'canplay');
  player.src = url;
  await ready;
  const duration = player.duration;
  const places = [];
  for (const place of [6.5, 1.25, 4.0]) {
    const sought = told(player, 'seeked');
    player.currentTime = place;
    await sought;
    places.push(player.currentTime);
  }
  await player.play();
  while (player.currentTime < 4.5) await told(player, 'timeupdate');
  player.currentTime = duration - 0.3;
  await told(player, 'ended');
  const buffer = await new AudioContext({ sampleRate: 48000 }).decodeAudioData(
    await (await fetch(url)).arrayBuffer());
  const loud = [];
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    const places = [];
    for (let at = 0; at < samples.length; at++)
      if (Math.abs(samples[at]) > 0.1 && at / 48000 - (places.at(-1) ?? -1) > 0.5)
        places.push(at / 48000);
    loud.push(places);
  }
  return { duration, places, end: player.currentTime, decoded: buffer.duration, loud };
}
"""


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """The folder's files over HTTP, with ranges."""
    app = web.Application()
    app.router.add_get("/", _page)
    app.router.add_static("/files", folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _page(request: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>files</title>", content_type="text/html")


@pytest.mark.parametrize(
    ("name", "speakers"),
    [
        ("candidate.ogg", [Speaker.CANDIDATE]),
        ("mixed.webm", [Speaker.CANDIDATE, Speaker.INTERVIEWER]),
    ],
)
async def test_chromium_plays_and_seeks(tmp_path: Path, name: str, speakers: list[Speaker]) -> None:
    folder = finished(tmp_path)
    async with served(folder.path) as url, browsing(None) as browser:
        await browser.page.goto(url)
        played: Any = await browser.page.evaluate(PLAY, f"{url}/files/{name}")
    assert played["duration"] == pytest.approx(SECONDS, abs=0.03)
    assert played["decoded"] == pytest.approx(SECONDS, abs=0.03)
    assert played["places"] == pytest.approx([6.5, 1.25, 4.0], abs=0.01)
    assert played["end"] == pytest.approx(SECONDS, abs=0.05)
    for loud, speaker in zip(played["loud"], speakers, strict=True):
        # A mark swells: it passes the threshold within its first 100 ms.
        marks = [frame / 50 + 0.05 for frame in MARKS[speaker]]
        assert loud == pytest.approx(marks, abs=0.05)
