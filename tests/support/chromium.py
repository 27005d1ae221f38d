"""A real Chromium with a file for a microphone, and what its pages hear and say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.async_api import Page, async_playwright

from interview_peer.types import Json

from .audio import QUIET, RATE, at_rate, levels
from .machine import program
from .waiting import eventually

CAPTURE = Path(__file__).with_name("capture.js")

FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

Samples = npt.NDArray[np.float32]


def chromium_path() -> str:
    """Where Chromium is; skips the test, or fails it in CI, where there is none."""
    return program("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Heard:
    """One track as the page got it, at 16 kHz. ``started`` is the page's clock in seconds at the
    first sample; the tracks of one page share the clock."""

    samples: Samples
    started: float


class Browser:
    """One launched Chromium with one page."""

    def __init__(self, page: Page, mark: str) -> None:
        self.page = page
        self._mark = mark

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return await self.page.evaluate(expression)

    async def until(self, expression: str, within: float = 15.0) -> Any:
        """Wait until the expression is truthy; on failure tell the page's state and log."""

        async def look() -> Any:
            return await self.page.evaluate(expression)

        try:
            return await eventually(look, within=within, what=expression)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.story()}") from None

    async def story(self) -> str:
        """The page's state, log and media counters, for the message of a failing test."""
        return str(await self.page.evaluate("captured.story()"))

    async def heard(self, which: str) -> Heard:
        """What came by the "local" (microphone) or "remote" (interviewer) track so far."""
        raw = await self.page.evaluate("(which) => window.captured.track(which)", which)
        if raw is None:
            raise AssertionError(f"the page has no {which} track:\n{await self.story()}")
        pcm = np.frombuffer(base64.b64decode(raw["pcm"]), "<i2")
        assert raw["rate"] % RATE == 0 or RATE % raw["rate"] == 0, raw["rate"]
        scaled = np.asarray(pcm / 32768, np.float32)
        return Heard(at_rate(scaled, raw["rate"]), raw["started"] / 1000)

    async def until_played_out(self, replies: int = 1) -> None:
        """Wait until the interviewer has ended `replies` replies, and the page has played them."""
        await self.until(
            "captured.events.filter((event) => event.type === 'output_audio_buffer.stopped')"
            f".length >= {replies}",
            within=45,
        )

        # The service has sent its last packet; the page plays it a jitter buffer later.
        async def quiet() -> bool:
            last = levels((await self.heard("remote")).samples)[-25:]
            return len(last) == 25 and bool((last < QUIET).all())

        await eventually(quiet, within=10, what="the interviewer falls silent")

    async def events(self) -> list[Json]:
        """Every event the page got by `oai-events`, in order."""
        events: list[Json] = await self.page.evaluate("window.captured.events")
        return events

    def kill(self) -> None:
        """End every process of this Chromium at once, as a power cut would."""
        for pid in _processes(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def browsing(
    microphone: Path | None,
    *,
    grant: bool = True,
    viewport: tuple[int, int] = (1280, 900),
    wrapper: Path | None = None,
    may_die: bool = False,
    flags: Sequence[str] = (),
) -> AsyncIterator[Browser]:
    """A Chromium with `microphone` (a WAV, played once) and one empty page.

    Without `grant` the page is refused the microphone. `wrapper` is a program that runs Chromium
    somewhere else; `flags` are more of its flags. Errors that reach no handler of the page fail the
    test unless `may_die`.
    """
    mark = f"--interview-peer-test={uuid.uuid4().hex}"
    arguments = [*FLAGS, *flags, mark, "--use-fake-device-for-media-stream"]
    arguments.append("--use-fake-ui-for-media-stream" if grant else "--deny-permission-prompts")
    if microphone is not None:
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=str(wrapper) if wrapper else chromium_path(),
            args=arguments,
            # Playwright mutes by default; a muted output also stops pulling the remote track.
            ignore_default_args=["--mute-audio"],
        )
        try:
            context = await chromium.new_context(
                viewport={"width": viewport[0], "height": viewport[1]}
            )
            page = await context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda line: _policy_complaint(line.text, complaints))
            await page.add_init_script(path=CAPTURE)
            yield Browser(page, mark)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(chromium.close(), 10)
            for pid in _processes(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert may_die or not complaints, complaints


def _policy_complaint(text: str, complaints: list[str]) -> None:
    if "Content Security Policy" in text:
        complaints.append(text)


def _processes(mark: str) -> Sequence[int]:
    """The main process with `mark` on its command line and all its descendants."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            status = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(status.rpartition(")")[2].split()[1])
        if mark.encode() in command:
            found.append(pid)
    family = list(found)
    for pid in family:
        family += [
            child for child, parent in parents.items() if parent == pid and child not in family
        ]
    return family
