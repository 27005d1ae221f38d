"""The native forwarder, where it could be built: loads it and gives its figures names.

``_native.c`` does for ordinary packets what ``Forwarder.packet`` and what it calls do, with a
third less CPU. Without it everything works the same. What it counts comes back here as a
``Settlement``. Not responsible for when a lane is armed: ``media.forwarder`` is.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from .meters import BOUNDS, LATE_SECONDS

if TYPE_CHECKING:
    from ._native import Lane, Reader
    from .udp import Address

missing: str | None = None
"""Why there is none."""

try:
    from . import _native as built
except ImportError as error:
    built = None  # type: ignore[assignment]
    missing = str(error)

BUILT: Final = built is not None
"""Whether this installation has it: it is compiled where there is a C compiler."""

__all__ = ["BUILT", "Lane", "Reader", "Settlement", "address_key", "built", "configure", "settle"]


class Settlement(NamedTuple):
    """Where a lane's two streams are, and what it counted since it was last asked."""

    floor: int
    last_sequence: int
    last_timestamp: int
    last_at: float
    highest: int
    jitter: float
    transit: float
    heard_at: float
    packets: int
    octets: int
    forwarded: int
    sent_octets: int
    unprotect: int
    protect: int
    send_full: int
    send_error: int
    delays: int
    late: int
    delay_total: float
    delay_largest: float
    buckets: tuple[int, ...]


def configure(unprotect: int, protect: int) -> None:
    """Tell the native code where libsrtp's two functions are (addresses), once."""
    if BUILT:
        built.configure(unprotect, protect, BOUNDS, LATE_SECONDS)


def settle(lane: Lane) -> Settlement:
    """Ask a lane, whose counts begin anew."""
    return Settlement(*lane.settle())


def address_key(addr: Address, *, is_ipv6: bool) -> bytes:
    """A far end's address as the kernel writes it on a socket of that family."""
    host, port = addr[0].partition("%")[0], addr[1]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    if is_ipv6 and len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    return packed + port.to_bytes(2, "big")
