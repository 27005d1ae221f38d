"""From a speaker's schedule to the decoded files, through the real server, on a bad network.

Marks are said in both directions at once while packets are lost, delayed and cut off, clocks run
wrong and silence comes in all its shapes. Where they are in the files is compared with when they
were said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from interview_peer.core.lifecycle import Reason
from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from interview_peer.types import Speaker
from tests.media.legs import until
from tests.storage.sound import Ear, Samples, decode, encode, marked_signal
from tests.support.inprocess import live, serving
from tests.support.waiting import eventually

from .peers import Browser, Voice, VoiceService, voice_service
from .test_mix import stereo

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(240)

BOUND = 0.020
SPACING = 35
FRAMES = 2_000
SEEDS = {Speaker.CANDIDATE: 3_000, Speaker.INTERVIEWER: 4_000}
ENOUGH = 16
"""Marks that are left when those are taken away of which the network lost a part."""

LIKE = 0.4
"""A mark is told by this; one that a drift correction cuts in two is as like as its larger part."""


def marks(speaker: Speaker) -> dict[int, int]:
    return {10 + SPACING * n: SEEDS[speaker] + n for n in range(FRAMES // SPACING)}


async def candidate(voice: Voice, browser: Browser) -> None:
    """What the candidate does: 37 seconds."""
    link = browser.link
    assert link is not None
    await voice.talk(5)
    # The track is removed: the RTP clock stands still.
    await voice.stop(2.6, clock_stands=True)
    await voice.talk(3)
    await voice.hush(2)
    browser.ledger.loss, link.up.delay, link.up.jitter = 0.03, 0.03, 0.03
    await voice.talk(7)
    # Nothing passes for five seconds; the browser gives up and makes a new connection.
    link.up.outage = link.down.outage = True
    await voice.talk(5)
    back = asyncio.create_task(browser.connect())
    await voice.talk(2)
    voice.restart(await back, browser.ledger)
    await voice.talk(7)


async def interviewer(voice: Voice, service: VoiceService) -> None:
    """What the model does meanwhile: all three silences, loss, jitter, and an outage."""
    link = service.link
    assert link is not None
    await voice.talk(4)
    await voice.hush(2.5)
    await voice.talk(4)
    await voice.stop(2.5, clock_stands=False)
    await voice.talk(3)
    await voice.stop(2.5, clock_stands=True)
    service.ledger.loss, link.down.delay, link.down.jitter = 0.03, 0.03, 0.03
    await voice.talk(8)
    link.up.outage = link.down.outage = True
    await voice.talk(3)
    link.up.outage = link.down.outage = False
    await voice.talk(5)


def errors(
    samples: Samples, voice: Voice, speaker: Speaker, started: float
) -> tuple[list[float], list[tuple[int, float]]]:
    """How far each mark that came through is from where it was said, in seconds; and those that
    are not in the file: their first packet, and what is most like them."""
    ear = Ear(samples)
    found: list[float] = []
    missing: list[tuple[int, float]] = []
    for frame, seed in marks(speaker).items():
        if voice.whole(frame) and voice.arrived(frame):
            place, likeness = ear.find(seed)
            if likeness > LIKE:
                found.append(place - (voice.said_at[frame] - started))
            else:
                missing.append((frame, round(likeness, 2)))
    return found, missing


async def test_every_mark_is_within_20_ms_of_when_it_was_said(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    speech = {speaker: encode(marked_signal(FRAMES, marks(speaker))) for speaker in Speaker}
    voices = {
        Speaker.CANDIDATE: Voice(speech[Speaker.CANDIDATE], ppm=200),
        Speaker.INTERVIEWER: Voice(speech[Speaker.INTERVIEWER], ppm=-200),
    }
    async with voice_service() as service:
        settings = live(service.base_url)
        async with serving(tmp_path, **settings) as server:
            wall_offset = time.time() - time.monotonic()
            browser = Browser(server.url, server.browser_port.address)
            try:
                leg = await browser.connect()
                assert browser.session_id is not None
                interview = server.interviews.find(browser.session_id)
                await until(lambda: interview.phase.value == "live", "a live interview")
                voices[Speaker.CANDIDATE].leg = leg
                voices[Speaker.CANDIDATE].ledger = browser.ledger
                voices[Speaker.INTERVIEWER].leg = service.leg
                voices[Speaker.INTERVIEWER].ledger = service.ledger
                for voice in voices.values():
                    voice.begin()
                await asyncio.gather(
                    candidate(voices[Speaker.CANDIDATE], browser),
                    interviewer(voices[Speaker.INTERVIEWER], service),
                )
                assert interview.phase.value == "live"
                await interview.end(Reason.CLIENT_REQUEST)
            finally:
                await browser.close()

            async def finished() -> bool:
                return not server.finishing.busy

            await eventually(finished, within=90, what="a finished folder")
    folder = tmp_path / "interviews" / browser.session_id
    assert await asyncio.to_thread(verify, folder) == []
    document = await asyncio.to_thread(manifest.read, folder)
    started = datetime.fromisoformat(document["started_at"]).timestamp() - wall_offset
    mixed = await asyncio.to_thread(stereo, folder / "mixed.webm")
    worst = 0.0
    for side, (speaker, voice) in zip(mixed, voices.items(), strict=True):
        own = await asyncio.to_thread(decode, folder / f"{speaker.value}.ogg")
        for name, samples in ((f"{speaker.value}.ogg", own), (f"mixed {speaker.value}", side)):
            found, missing = await asyncio.to_thread(errors, samples, voice, speaker, started)
            rounded = [round(error * 1_000, 1) for error in found]
            logger.info("%s: %s", name, rounded)
            # Every mark that came through is heard, and enough did.
            assert missing == [], (name, rounded)
            assert len(found) >= ENOUGH, (name, rounded)
            worst = max(worst, *map(abs, found))
            record_property(f"worst error ms, {name}", max(map(abs, rounded)))
            assert max(map(abs, found)) < BOUND, (name, rounded)
    logger.info("worst error: %.1f ms", worst * 1_000)
    # What was planted did happen.
    for speaker in Speaker:
        counters = document["speakers"][speaker.value]
        assert counters["lost"] > 5 and counters["concealed"] > 3, (speaker, counters)
        assert counters["reanchors"] >= 1, (speaker, counters)
