"""The command that `make run` ends in works on a machine with nothing but loopback."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tests.support import audio, speech
from tests.support.chromium import browsing, chromium_path
from tests.support.machine import program
from tests.support.namespace import loopback_only
from tests.support.server import ROOT, clean_environment, running

from . import dialogue


def _make_run_command() -> list[str]:
    """The last command of `make run`, as make itself tells it."""
    shown = subprocess.run(
        [program("make"), "--no-print-directory", "--dry-run", "run"],
        cwd=ROOT,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    name, *arguments = shlex.split(shown.strip().splitlines()[-1])
    assert Path(name).name == "interview-peer", shown
    installed = ROOT / name
    # Tests may run in another environment than the one that make keeps.
    command = [str(installed)] if installed.exists() else [sys.executable, "-m", "interview_peer"]
    return [*command, *arguments]


async def test_what_make_run_starts_needs_no_network(tmp_path: Path) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    command = _make_run_command()
    folder = tmp_path / "run"
    async with (
        loopback_only() as namespace,
        running(
            [*namespace.prefix, *command], folder, clean_environment(), folder / "data"
        ) as server,
        browsing(silence, wrapper=namespace.wrapper(tmp_path, chromium_path())) as browser,
    ):
        assert server.url == "http://localhost:8080"
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        await browser.until_played_out()
        heard = await browser.heard("remote")
        await browser.page.get_by_role("button", name="Disconnect").click()
        await browser.until("interviewPeer.state.phase === 'ended'")

        greeting = dialogue.spoken(dialogue.GREETING)
        assert audio.find(greeting, heard.samples).score > audio.SAME
        recorded = audio.decode(server.folder(session_id) / "interviewer.ogg")
        assert audio.find(greeting, recorded).score > audio.SAME
