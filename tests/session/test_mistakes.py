"""A mistake of ours in what surrounds an interview's end does not keep it from ending."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.core.transcript import Transcript
from interview_peer.session.control import Control
from interview_peer.session.hold import Hold
from interview_peer.session.recording import Recording
from interview_peer.session.reporter import Reporter
from interview_peer.session.tally import Tally
from tests.support.caller import calling
from tests.support.inprocess import serving


@pytest.mark.parametrize(
    ("part", "method"),
    [
        (Reporter, "phase"),
        (Reporter, "finished"),
        (Transcript, "note_phase"),
        (Control, "close"),
        (Hold, "stop"),
        (Hold, "missed"),
        (Recording, "end"),
        (Tally, "over"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_it_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake of ours")

    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        interview = server.interviews.find(caller.session_id)
        with monkeypatch.context() as patch:
            patch.setattr(part, method, breaks)
            with contextlib.suppress(RuntimeError):
                interview.end_soon(Reason.OPERATOR_REQUEST)
            async with asyncio.timeout(10):
                await interview.finished.wait()
        assert interview.phase is Phase.ENDED
        assert interview.legs == []
        assert server.interviews.running == 0
