"""A simulated OpenAI Realtime service for the tests of whoever writes a WebRTC client of it.

Everything named here is public and documented in ``docs/simulator.md``::

    async with simulator(greet=False) as service:
        await my_client.connect(service.calls_url, key="sk-anything")

It is the real thing as far as a client can see: HTTP, ICE, DTLS, Opus and events over UDP on this
machine. It needs no key, no network and no account, and fails on demand.
"""

from __future__ import annotations

from ..simulator.settings import IdleAudio, SimulatorSettings
from .microphone import Microphone
from .service import SimulatedCall, SimulatedService, simulator
from .speech import Speech, lines, silence_packet

__all__ = [
    "IdleAudio",
    "Microphone",
    "SimulatedCall",
    "SimulatedService",
    "SimulatorSettings",
    "Speech",
    "lines",
    "silence_packet",
    "simulator",
]
