"""A network namespace with nothing but the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from .machine import lacking, program

# Brings the loopback interface up (SIOCGIFFLAGS, SIOCSIFFLAGS with IFF_UP) and holds the namespace
# until its input ends. Done in Python so that the machine needs no iproute2.
_HOLD = """
import fcntl, socket, struct, sys
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = struct.pack("16sH22x", b"lo", 0)
flags = struct.unpack_from("16sH", fcntl.ioctl(control, 0x8913, request))[1]
fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"lo", flags | 1))
sys.stdout.write("up " + ",".join(name for _, name in socket.if_nameindex()) + "\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Namespace:
    """``prefix`` put before a command runs it inside."""

    prefix: tuple[str, ...]

    def wrapper(self, folder: Path, command: str) -> Path:
        """A program in `folder` that runs `command` inside, with the arguments it is given."""
        script = folder / "inside"
        script.write_text(f'#!/bin/sh\nexec {" ".join(self.prefix)} {command} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return script


@contextlib.asynccontextmanager
async def loopback_only() -> AsyncIterator[Namespace]:
    """Make such a namespace; skips the test, or fails it in CI, where that is not permitted."""
    unshare, nsenter = program("unshare"), program("nsenter")
    root = os.geteuid() == 0
    make = [unshare, "--net"] if root else [unshare, "--user", "--map-root-user", "--net"]
    holder = await asyncio.create_subprocess_exec(
        *make,
        sys.executable,
        "-c",
        _HOLD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert holder.stdin and holder.stdout and holder.stderr
    try:
        line = (await asyncio.wait_for(holder.stdout.readline(), 10)).decode().strip()
        if not line.startswith("up "):
            why = (await holder.stderr.read()).decode().strip().splitlines()
            lacking(f"a network namespace cannot be made here: {why[-1] if why else 'no reason'}")
        assert line == "up lo", line
        join = [nsenter, "--target", str(holder.pid), "--net"]
        if not root:
            join += ["--user", "--preserve-credentials"]
        yield Namespace((*join, "--"))
    finally:
        if holder.returncode is None:
            holder.stdin.close()
            await asyncio.wait_for(holder.wait(), 10)
