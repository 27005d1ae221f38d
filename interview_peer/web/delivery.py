"""Whether the other end of a connection takes what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Final, Protocol, runtime_checkable

from aiohttp import web

UNSENT_BYTES: Final = 64 * 1024
"""What the kernel takes beyond what is under way; on its own it would take some MB, so that many
answers are made for somebody who reads none."""

READER_SECONDS: Final = 60.0
"""How long whoever showed a key may take nothing, at least: a player that is paused, a download
into a slow pipe. As long as proxies wait (nginx's ``send_timeout``)."""
BEHIND_SECONDS: Final = 600.0
"""The same through a trusted proxy, which takes some MB ahead and then nothing, though its client
goes on reading: at 20 kB/s Caddy 2.6 on Linux takes nothing for longer than a minute."""

_INFO_BYTES: Final = 148
_UNACKED: Final = struct.Struct("=24xI")
_ACKED: Final = struct.Struct("=120xQ")
_UNSENT: Final = struct.Struct("=144xI")
"""Places in Linux's ``struct tcp_info`` (include/uapi/linux/tcp.h): ``tcpi_unacked`` in segments,
``tcpi_bytes_acked`` and ``tcpi_notsent_bytes`` in bytes."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""To linger for no time: the other end gets a reset."""


class Delivery:
    """What one connection was given to send, and when the other end last took some of it."""

    def __init__(self, transport: asyncio.Transport, now: float, *, proxied: bool = False) -> None:
        """``now`` is in seconds, as of a clock that never goes back; ``proxied`` where the other
        end is a trusted proxy."""
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self.patient = False
        """Whether the other end has longer: it is known."""
        self._resting = BEHIND_SECONDS if proxied else READER_SECONDS
        if self._socket is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # No socket of another kind has it, nor, on some systems, one that was reset already.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._seen: tuple[int, int] = (0, 0)
        self._moved = now

    def stuck(self, now: float, *, kernel: bool) -> float:
        """For how many seconds something has waited of which nothing is taken; 0 if nothing waits.

        What the process holds counts always, what the kernel holds too where ``kernel`` says so:
        an answer of some hundred kB may be there as a whole. The kernel also tells of progress
        that the process does not see, as when it sends a file itself.
        """
        held = self._transport.get_write_buffer_size()
        waiting, acked = self._kernel()
        seen = (held, acked)
        # More may be written meanwhile: only less, or more that was acknowledged, is progress.
        if seen[0] < self._seen[0] or acked > self._seen[1] or not (held or (kernel and waiting)):
            self._moved = now
        self._seen = seen
        return now - self._moved

    def comes_by_proxy(self) -> None:
        """The other end has turned out to be one that reads ahead."""
        self._resting = BEHIND_SECONDS

    def patience(self, seconds: float) -> float:
        """How long it may be stuck, where strangers have so many ``seconds``."""
        return max(seconds, self._resting) if self.patient else seconds

    def give_up(self) -> None:
        """End the connection, and keep nothing of what waits: not in the kernel either."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()

    def _kernel(self) -> tuple[bool, int]:
        """Whether the kernel holds anything, and how many bytes were acknowledged so far."""
        # Other systems have another structure of that name.
        if self._socket is None or sys.platform != "linux":
            return False, 0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return False, 0
        if len(info) < _INFO_BYTES:
            return False, 0
        (unacked,), (unsent,) = _UNACKED.unpack_from(info), _UNSENT.unpack_from(info)
        return bool(unacked or unsent), _ACKED.unpack_from(info)[0]


@runtime_checkable
class Delivering(Protocol):
    """What holds the connection of a request."""

    delivery: Delivery | None


def comes_by_server(request: web.Request) -> None:
    """Note that another server of ours passes on what it is sent, to whoever is behind it."""
    protocol = request.protocol
    if isinstance(protocol, Delivering) and protocol.delivery is not None:
        protocol.delivery.comes_by_proxy()


def be_patient(request: web.Request) -> None:
    """Give whoever asked longer to read the answer, until the next request of the connection."""
    protocol = request.protocol
    if isinstance(protocol, Delivering) and protocol.delivery is not None:
        protocol.delivery.patient = True
