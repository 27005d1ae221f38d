"""A process whose loop is held while the watchdog looks on; nobody need read what it says."""

from __future__ import annotations

import asyncio
import os
import threading

from interview_peer import logs, watchdog


async def main() -> None:
    """Never return."""
    with watchdog.watching(0.3):
        # The watch has begun once the loop goes round.
        await asyncio.sleep(0)
        threading.Event().wait()


if __name__ == "__main__":
    logs.configure("info")
    if not os.environ["IN_MEMORY"] and hasattr(os, "memfd_create"):
        del os.memfd_create
    asyncio.run(main())
