"""``serve --reload``: the server as a child process that starts again when a file changes.

For development. Compares modification times twice a second: a few hundred small files cost about
a millisecond, which does not warrant a dependency with native code. Which arguments the child
gets is decided by the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from interview_peer.settings import ENV_FILE, Settings
from interview_peer.web.pages import static_dir

_LOOK_EVERY_SECONDS = 0.5
_STOP_WITHIN_SECONDS = 10.0
_SUFFIXES = (".py", ".toml", ".html", ".js", ".css", ".svg")

Times = dict[Path, int]


def watched(settings: Settings) -> list[Path]:
    """Folders and files whose change starts the server again."""
    further = [settings.personas_dir] if settings.personas_dir else []
    return [Path(__file__).resolve().parent, static_dir(), ENV_FILE.absolute(), *further]


def snapshot(places: Sequence[Path]) -> Times:
    """Modification time in nanoseconds of every source, persona and page in ``places``."""
    times: Times = {}
    for file in _files(places):
        # It may have gone since the folder was listed.
        with contextlib.suppress(OSError):
            times[file] = file.stat().st_mtime_ns
    return times


async def supervise(arguments: Sequence[str], places: Sequence[Path]) -> None:
    """Run ``interview-peer <arguments>`` in a child until cancelled; restart it on a change.

    A child that ends on its own (a syntax error, a wrong setting) is started again by the next
    change, not before.
    """
    while True:
        before = snapshot(places)
        # In a process group of its own: Ctrl-C reaches us alone, and we stop the child once. Its
        # stdin ends with us, even if we are killed.
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "interview_peer",
            *arguments,
            start_new_session=True,
            stdin=asyncio.subprocess.PIPE,
        )
        try:
            changed = await _changed(before, places)
        finally:
            await _stop(child)
        click.echo(f"{changed.name} changed; starting again.", err=True)


async def _changed(before: Times, places: Sequence[Path]) -> Path:
    while True:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        now = snapshot(places)
        if now != before:
            return sorted(file for file, _ in before.items() ^ now.items())[0]


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(_STOP_WITHIN_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from (file for file in place.rglob("*") if file.suffix in _SUFFIXES)
        elif place.is_file():
            yield place
