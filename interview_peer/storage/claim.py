"""Holds an interview's folder while something is done to its files, without blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

from ..errors import RecordingNotReady
from .folder import InterviewFolder

HELD_SECONDS: Final = 5.0
"""How long to wait for whoever else works on the folder."""

_AGAIN_SECONDS: Final = 0.05


@contextlib.asynccontextmanager
async def claimed(folder: InterviewFolder, seconds: float = HELD_SECONDS) -> AsyncIterator[None]:
    """Hold the folder, if there is one; nobody else records into it, finishes or moves it then.

    Raises:
        RecordingNotReady: somebody else holds it, for ``seconds`` and longer.
    """
    claim = await _claim(folder, seconds)
    try:
        yield
    finally:
        if claim is not None:
            os.close(claim)


async def _claim(folder: InterviewFolder, seconds: float) -> int | None:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        asked = asyncio.ensure_future(asyncio.to_thread(folder.hold))
        try:
            claim = await asyncio.shield(asked)
        except FileNotFoundError:
            return None
        except asyncio.CancelledError:
            # The thread goes on; what it gets must not stay held.
            asked.add_done_callback(_let_go)
            raise
        if claim is not None:
            return claim
        if asyncio.get_running_loop().time() >= deadline:
            raise RecordingNotReady
        await asyncio.sleep(_AGAIN_SECONDS)


def _let_go(asked: asyncio.Future[int | None]) -> None:
    if not asked.cancelled() and asked.exception() is None and (claim := asked.result()):
        os.close(claim)
