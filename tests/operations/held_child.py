"""A server whose event loop SIGUSR1 holds for ever, as a defect would."""

from __future__ import annotations

import asyncio
import signal
import threading

from interview_peer import app, logs
from interview_peer.media.meters import MediaLoop
from interview_peer.settings import load_settings


def hold_the_loop() -> None:
    """Never return."""
    threading.Event().wait()


async def main() -> None:
    """Serve as the command does."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, hold_the_loop)
    await app.serve(load_settings())


if __name__ == "__main__":
    logs.configure("info")
    with asyncio.Runner(loop_factory=MediaLoop) as runner:
        runner.run(main())
