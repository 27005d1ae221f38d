"""What a server that is killed in mid-interview has on disk, by the clock on the wall."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.storage.sound import decode
from tests.support.caller import Caller, calling
from tests.support.server import running_server

INTERVIEWS = 10
"""Their writing is staggered, one in each slot: some were written just before the kill, others are
just about to be."""

MISSING = 1.0
"""Seconds at the end that may be lost, as README and docs/recording-format.md say."""

MARGIN = 0.5
"""For a machine that is busy: the writing thread and the kill wait for their turns."""


async def talk(caller: Caller, until: float) -> None:
    """Send an event every 50 ms; sound goes by itself, 20 ms a packet."""
    number = 0
    while time.time() < until:
        number += 1
        caller.say(
            {"type": "session.update", "session": {"type": "realtime", "instructions": str(number)}}
        )
        await asyncio.sleep(0.05)


async def test_a_killed_server_has_all_but_the_last_second_of_journal_and_sound(
    tmp_path: Path,
) -> None:
    killed_at = 0.0
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(AssertionError, match="exit code -9"):
            async with running_server(tmp_path) as server:
                callers = [
                    await stack.enter_async_context(calling(server.url)) for _ in range(INTERVIEWS)
                ]
                for caller in callers:
                    await caller.open()
                    await caller.connect()
                until = time.time() + 4.0
                await asyncio.gather(*(talk(caller, until) for caller in callers))
                killed_at = time.time()
                server.process.kill()
                await server.process.wait()
        folders = [server.folder(caller.session_id) for caller in callers]

    lost: dict[str, float] = {}
    for number, folder in enumerate(folders):
        text = (folder / "events.jsonl").read_text(encoding="utf-8")
        # What follows the last line break is torn.
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        began, last = (datetime.fromisoformat(lines[n]["at"]).timestamp() for n in (0, -1))
        lost[f"journal {number}"] = killed_at - last
        for speaker in ("candidate", "interviewer"):
            seconds = len(decode(folder / f"{speaker}.ogg")) / 48_000
            lost[f"{speaker} {number}"] = killed_at - began - seconds
        sent = [line["event"] for line in lines if line["direction"] == "to_model"]
        instructions = [event["session"]["instructions"] for event in sent]
        assert instructions == [str(n) for n in range(1, len(sent) + 1)]
        assert not (folder / "transcript.json").exists()
    assert max(lost.values()) < MISSING + MARGIN, lost
