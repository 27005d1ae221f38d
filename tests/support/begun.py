"""Counts what a server in the test's own process begins: legs, and calls of its voice service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from interview_peer.media.leg import Leg
from interview_peer.simulator.server import Simulator


@dataclass
class Begun:
    """What was begun so far."""

    legs: int = 0
    """Of the server: to browsers and to models. Those of test callers do not count."""
    calls: int = 0
    """Requests for a call that reached the simulated voice service, whatever it answered."""

    @property
    def nothing(self) -> bool:
        """Whether no sound can have gone anywhere, and no money was spent."""
        return self.legs == self.calls == 0


@contextlib.contextmanager
def counting() -> Iterator[Begun]:
    """Count from now on."""
    begun = Begun()
    make, create = Leg.__init__, Simulator._create

    def leg(self: Leg, name: str, *values: Any, **named: Any) -> None:
        begun.legs += name in ("browser", "model")
        make(self, name, *values, **named)

    async def call(self: Simulator, request: Any) -> Any:
        begun.calls += 1
        return await create(self, request)

    with mock.patch.object(Leg, "__init__", leg), mock.patch.object(Simulator, "_create", call):
        yield begun
