"""A running simulator as a test sees it: where to call, its calls, its settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from ..simulator.call import Call
from ..simulator.server import RunningSimulator, start_simulator
from ..simulator.settings import SimulatorSettings
from ..types import Json


class SimulatedCall:
    """One running call. What is done to it happens at once."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def id(self) -> str:
        """``rtc_…``, as the ``Location`` of the answer told it."""
        return self._call.call_id

    @property
    def status(self) -> Json:
        """``phase`` (``connecting``, ``connected``, ``open``, ``dropped``), ``seconds``,
        ``heard_ms``, ``lines_said``, and ``events`` counted: received, sent, unsent."""
        return self._call.status()

    @property
    def received(self) -> list[str | bytes]:
        """The client's last messages (200 at most) as they came, oldest first."""
        return list(self._call.received)

    @property
    def received_events(self) -> list[Json]:
        """Those of them that are JSON objects."""
        events: list[Json] = []
        for message in self._call.received:
            with contextlib.suppress(ValueError):
                event = json.loads(message)
                if isinstance(event, dict):
                    events.append(event)
        return events

    def expire(self, *, silently: bool = False) -> None:
        """End the session: with the error ``session_expired``, or without a word."""
        self._call.expire(silently=silently)

    def drop(self) -> None:
        """Lose the network: no media and no answer to STUN from now on."""
        self._call.drop()

    def hang_up(self) -> None:
        """End the call in order."""
        self._call.end("hung up by the test")

    def error(self, code: str, message: str = "The simulator was told to fail here.") -> None:
        """Tell an ``error`` event that nothing the client sent has caused."""
        self._call.error(code, message)

    def send(self, message: str | bytes | Json) -> None:
        """Send a message as it is: an event, any text, or bytes as a binary frame."""
        self._call.send(json.dumps(message) if isinstance(message, dict) else message)


class SimulatedService:
    """A simulator that runs until its ``async with`` ends."""

    def __init__(self, running: RunningSimulator) -> None:
        self._running = running

    @property
    def base_url(self) -> str:
        """What a client takes for ``https://api.openai.com/v1``; no final slash."""
        return self._running.base_url

    @property
    def calls_url(self) -> str:
        """Where offers are posted."""
        return f"{self.base_url}/realtime/calls"

    @property
    def client_secrets_url(self) -> str:
        """Where ephemeral keys are made."""
        return f"{self.base_url}/realtime/client_secrets"

    @property
    def admin_url(self) -> str:
        """The admin path, without a final slash: settings and calls over HTTP."""
        return f"{self.base_url.removesuffix('/v1')}/_simulator"

    @property
    def calls(self) -> list[SimulatedCall]:
        """The running calls, oldest first."""
        return [SimulatedCall(call) for call in self._running.running_calls.values()]

    @property
    def ended_calls(self) -> list[Json]:
        """The last calls that ended (100 at most), each with ``id`` and ``reason``."""
        return self._running.ended_calls

    @property
    def settings(self) -> SimulatorSettings:
        """How the next request is answered and the next call behaves."""
        return self._running.settings

    def change(self, **fields: Any) -> None:
        """Change some settings, for the next request and call.

        Raises pydantic's ``ValidationError``, and nothing is changed.
        """
        self._running.settings = self._running.settings.changed(**fields)


@contextlib.asynccontextmanager
async def simulator(
    settings: SimulatorSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    **fields: Any,
) -> AsyncIterator[SimulatedService]:
    """Run a simulated service: ``async with simulator(greet=False) as service``.

    Args:
        settings: how it behaves; the defaults if not given.
        host: address it listens on.
        port: its TCP port; 0 picks a free one.
        fields: settings by name, instead of or on top of ``settings``.

    Raises ``ValidationError`` for a wrong setting and OSError if the address cannot be bound. All
    calls are ended and nothing is left when the block is.
    """
    running = await start_simulator((settings or SimulatorSettings()).changed(**fields), host, port)
    try:
        yield SimulatedService(running)
    finally:
        await running.close()
