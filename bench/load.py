"""The load generator's process: takes one JSON command a line, answers with one.

``python -m bench.load KIND ADDRESS`` with KIND as in ``calls.Router``, ADDRESS the callers'.
The first line out says where the far end's HTTP is. Commands: ``subject`` (url, pid, and health:
whether it has ``/healthz``),
``set_ups`` (count), ``state``, ``ramp`` (calls), ``measure`` (seconds, settle, events, core)
and ``quit``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from array import array
from typing import Any, Final

import aiohttp
import numpy as np

from interview_peer.types import Json

from . import health, machine
from .calls import Router
from .pump import FineSelector, Pump, Window

DRAIN_SECONDS: Final = 1.5
"""After so long a packet of the window that has not arrived is lost."""

QUIET_SECONDS: Final = 0.25


class Generator:
    """Carries the commands out."""

    def __init__(self, kind: str, caller_host: str) -> None:
        self.pump = Pump()
        self.router = Router(kind, self.pump, caller_host)
        self._pid: int | None = None
        self._health_url: str | None = None
        self._http: aiohttp.ClientSession | None = None

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Serve until ``quit`` or the end of the input."""
        await self.router.start()
        far_end = self.router.far_end
        _say({"far_end": far_end.url if far_end is not None else None})
        try:
            while line := await commands.readline():
                command = json.loads(line)
                if command["do"] == "quit":
                    break
                try:
                    _say(await self._do(command))
                except Exception as error:
                    _say({"error": f"{type(error).__name__}: {error}"})
        finally:
            if self._http is not None:
                await self._http.close()
            await self.router.close()

    async def _do(self, command: Json) -> Json:
        match command["do"]:
            case "subject":
                self.router.url = command["url"]
                self._pid = command["pid"]
                self._health_url = f"{command['url']}/healthz" if command.get("health") else None
                return {}
            case "state":
                return self._state()
            case "set_ups":
                return await self._set_ups(command["count"])
            case "ramp":
                return await self._ramp(command["calls"])
            case "measure":
                return await self._measure(
                    command["seconds"], command["settle"], command["events"], command["core"]
                )
            case other:
                raise ValueError(f"unknown command {other}")

    async def _set_ups(self, count: int) -> Json:
        """Calls that come up and end again, each alone: what one set-up takes."""
        seconds, cpu = [], []
        for _ in range(count):
            before = self._cpu()
            call = await self.router.set_up(keep=False)
            after = self._cpu()
            seconds.append(call.seconds)
            cpu.append(after.ran - before.ran)
            await call.hang_up()
            await call.caller.leg.close()
            if call.far is not None:
                await call.far.leg.close()
            await asyncio.sleep(QUIET_SECONDS)
        return {"seconds": seconds, "cpu": cpu}

    async def _ramp(self, calls: int) -> Json:
        seconds, cpu = [], []
        while len(self.router.calls) < calls:
            before = self._cpu()
            seconds.append((await self.router.set_up()).seconds)
            cpu.append((self._cpu() - before).ran)
        lost = sum(
            end.ear.lost is not None
            for call in self.router.calls
            for end in (call.caller, call.far)
            if end is not None
        )
        return {"seconds": seconds, "cpu": cpu, "lost_legs": lost}

    async def _measure(self, seconds: float, settle: float, events: float, core: int) -> Json:
        pump = self.pump
        gc.collect()
        pump.start(events)
        try:
            await asyncio.sleep(settle)
            said = await self._health()
            drops, own_drops = self._drops(), machine.socket_drops(os.getpid())
            now = time.time_ns()
            window = Window(now, now + int(seconds * 1e9))
            pump.window = window
            cpu, own, busy = self._cpu(), time.process_time(), machine.core_busy(core)
            began = time.monotonic()
            await asyncio.sleep(began + seconds - time.monotonic())
            used, took = self._cpu() - cpu, time.monotonic() - began
            own, busy = time.process_time() - own, machine.core_busy(core) - busy
            says, elapsed = await self._health(), time.monotonic() - began
            deadline = time.monotonic() + DRAIN_SECONDS
            # Looked at now and then, so that the hot path need not tell.
            while not window.complete and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            pump.window = None
        finally:
            pump.stop()
        result: Json = {
            "calls": len(self.router.calls),
            "events_per_second": events,
            "cpu": used.ran / took,
            "waited": used.waited / took,
            "core_busy": busy / took,
            "generator_cpu": own / took,
            "sent": window.sent,
            "received": [len(delays) for delays in window.delays],
            "delays_ms": [_quantiles(delays) for delays in window.delays],
            "over_5_ms": [_over(delays, 5_000_000) for delays in window.delays],
            "late_ms": _quantiles(window.late),
            "unstamped": window.unstamped,
            "events_sent": window.events_sent,
            "events_received": len(window.event_delays),
            "event_delays_ms": _quantiles(window.event_delays),
            "kernel_drops": self._drops() - drops,
            "generator_drops": machine.socket_drops(os.getpid()) - own_drops,
        }
        if said is not None and says is not None:
            result["health"] = health.between(said, says, elapsed)
        return result | self._state()

    async def _health(self) -> Json | None:
        """What the server says of itself, if it does."""
        if self._health_url is None:
            return None
        self._http = self._http or aiohttp.ClientSession()
        async with self._http.get(self._health_url) as response:
            response.raise_for_status()
            media: Json = (await response.json())["media"]
            return media

    def _state(self) -> Json:
        if self._pid is None:
            return {"rss": 0, "threads": 0}
        return {"rss": machine.rss_bytes(self._pid), "threads": machine.thread_count(self._pid)}

    def _cpu(self) -> machine.CpuTime:
        return machine.cpu_time(self._pid) if self._pid else machine.CpuTime(0, 0)

    def _drops(self) -> int:
        return machine.socket_drops(self._pid) if self._pid else 0


def _quantiles(nanoseconds: array[int]) -> list[float] | None:
    """p50, p95, p99 and the largest, in milliseconds."""
    if not len(nanoseconds):
        return None
    values: Any = np.frombuffer(nanoseconds, dtype=np.int64)
    return [float(value) / 1e6 for value in np.percentile(values, [50, 95, 99, 100])]


def _over(nanoseconds: array[int], bound: int) -> int:
    """How many took longer."""
    return sum(one > bound for one in nanoseconds)


def _say(answer: Json) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _main(kind: str, caller_host: str) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    # Collections would show up as lateness; a run is short and its garbage small.
    gc.disable()
    await Generator(kind, caller_host).run(commands)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FineSelector())) as runner:
        runner.run(_main(sys.argv[1], sys.argv[2]))
