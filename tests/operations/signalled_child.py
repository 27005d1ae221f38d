"""A command that ends badly when it is asked to, run as the commands are.

``python signalled_child.py WAY FORM``: says ``ready`` when it listens for signals, ``asked`` when
the first one came to it.

Ways: ``hangs`` waits for ever when it is cancelled, ``holds`` holds its event loop from the start,
``late`` ends and waits for ever afterwards, as a thread that is joined would have it do.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from interview_peer import cli, logs


def say(word: str) -> None:
    """At once, however stdout is buffered."""
    os.write(1, f"{word}\n".encode())


async def main(way: str) -> None:
    """Never return where it ``hangs`` or ``holds``."""
    say("ready")
    if way == "holds":
        threading.Event().wait()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        say("asked")
        if way == "hangs":
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    _, way, form = sys.argv
    logs.configure("info", form=form)
    cli._run(lambda: main(way), end_with_stdin=True)
    say("after")
    threading.Event().wait()
