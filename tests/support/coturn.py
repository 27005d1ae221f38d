"""A real coturn on loopback, run with the very configuration that ``docs/turn.md`` recommends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from .certificates import self_signed
from .machine import program
from .ports import free_port
from .waiting import eventually

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "turn.md"
HOST = "127.0.0.1"
READY_WITHIN = 10.0
STOPS_WITHIN = 10.0


class Relay:
    """A running coturn: its ports, and every line it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, tls_port: int) -> None:
        self.process = process
        self.port = port
        self.tls_port = tls_port
        self.lines: deque[str] = deque(maxlen=5000)

    @property
    def udp(self) -> str:
        """Its address over UDP."""
        return f"turn:{HOST}:{self.port}"

    @property
    def tcp(self) -> str:
        """Its address over TCP."""
        return f"turn:{HOST}:{self.port}?transport=tcp"

    @property
    def tls(self) -> str:
        """Its address over TLS; nobody signed its certificate but itself."""
        return f"turns:{HOST}:{self.tls_port}?transport=tcp"

    def tail(self) -> str:
        """Its last lines, for the message of a failing test."""
        return "\n".join(list(self.lines)[-40:])


@contextlib.asynccontextmanager
async def relaying(folder: Path, secret: str, allowed_peer: str) -> AsyncIterator[Relay]:
    """Run coturn until it takes connections, with its files in `folder`; stop it afterwards.

    It relays to `allowed_peer` alone. Skips the test, or fails it in CI, where there is no coturn.
    """
    turnserver = program("turnserver")
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a folder of the test's own
    port, tls_port = free_port(), free_port()
    cert, key = self_signed(folder, "turn.test")
    config = _documented(
        {
            "listening-port": str(port),
            "tls-listening-port": str(tls_port),
            "cert": str(cert),
            "pkey": str(key),
            "static-auth-secret": secret,
            "allowed-peer-ip": allowed_peer,
        }
    )
    config += [
        f"listening-ip={HOST}",
        f"relay-ip={HOST}",
        "allow-loopback-peers",
        "verbose",
        "log-file=stdout",
        f"pidfile={folder / 'pid'}",
        f"userdb={folder / 'users'}",
    ]
    path = folder / "turnserver.conf"
    await asyncio.to_thread(path.write_text, "\n".join(config) + "\n")
    process = await asyncio.create_subprocess_exec(
        turnserver,
        "-c",
        str(path),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    relay = Relay(process, port, tls_port)
    reader = asyncio.create_task(_read(relay), name="read coturn's output")
    try:
        await eventually(lambda: _answers(relay), within=READY_WITHIN, what="coturn answers")
        yield relay
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOPS_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()
        await reader


def _documented(values: Mapping[str, str]) -> list[str]:
    """The documented lines with `values` put in; each of them must be there to be replaced."""
    blocks = re.findall(r"^```conf\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, "docs/turn.md must hold one configuration of coturn"
    lines: list[str] = []
    replaced: set[str] = set()
    for line in filter(None, blocks[0].splitlines()):
        name = line.partition("=")[0]
        if name in values:
            replaced.add(name)
            line = f"{name}={values[name]}"
        lines.append(line)
    assert replaced == set(values), f"docs/turn.md no longer sets {set(values) - replaced}"
    return lines


async def _read(relay: Relay) -> None:
    assert relay.process.stdout is not None
    async for raw in relay.process.stdout:
        relay.lines.append(raw.decode(errors="replace").rstrip())


async def _answers(relay: Relay) -> bool:
    assert relay.process.returncode is None, f"coturn ended:\n{relay.tail()}"
    for port in (relay.port, relay.tls_port):
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return True
