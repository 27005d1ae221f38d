"""Ports that nobody uses, for programs that cannot pick their own."""

from __future__ import annotations

import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"


def free_port() -> int:
    """A port that neither TCP nor UDP uses, below those that the system hands out by itself."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((HOST, port))
                udp.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
