"""A server whose event loop is held for ever, as a defect would.

``python held_child.py [PLACE]``: ``start`` holds it when the doors are open and the server is not
ready yet, ``end`` when all but the last is closed; with neither SIGUSR1 does. SIGUSR2 asks it to
end. With a place the data folder takes longer to prepare than a loop may stand still.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from pathlib import Path

from interview_peer import app, logs
from interview_peer.media.meters import MediaLoop
from interview_peer.settings import load_settings
from interview_peer.state.nodes import NodeName
from interview_peer.storage import folder

PREPARES_SECONDS = 2.5
prepare = folder.prepare


def hold_the_loop(*_: object) -> None:
    """Never return."""
    threading.Event().wait()


def prepare_slowly(root: Path) -> None:
    """As on a disk that is asleep."""
    time.sleep(PREPARES_SECONDS)
    prepare(root)


async def main(place: str) -> None:
    """Serve as the command does."""
    settings = load_settings()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, hold_the_loop)
    serving = asyncio.create_task(app.serve(settings))
    loop.add_signal_handler(signal.SIGUSR2, serving.cancel)
    if place:
        folder.prepare = prepare_slowly
    match place:
        case "start":
            gc.freeze = hold_the_loop
        case "end":
            NodeName.release = hold_the_loop  # type: ignore[assignment,method-assign]
    await serving


if __name__ == "__main__":
    logs.configure("info")
    with asyncio.Runner(loop_factory=MediaLoop) as runner:
        runner.run(main("".join(sys.argv[1:])))
