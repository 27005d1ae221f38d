"""A bad network in user space: a UDP relay that loses, delays, reorders and changes its address.

It stands between a *near* end, which sends to ``address``, and a *far* end, to which it sends from
a socket of its own. Whoever wants a connection impaired gives the near end the link's address
instead of the far end's, for instance with ``through`` on the far end's session description.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]


@dataclass
class Impairment:
    """What happens to the datagrams of one direction; may be changed while they flow."""

    loss: float = 0.0
    """Share of datagrams lost, 0 to 1."""
    delay: float = 0.0
    """Seconds each datagram takes."""
    jitter: float = 0.0
    """Seconds by which the delay varies in both directions, evenly; below zero is zero."""
    reorder: bool = False
    """Whether jitter may let a datagram overtake another."""
    outage: bool = False
    """Whether nothing passes at all."""
    drop: Callable[[bytes], bool] | None = None
    """Loses the datagrams for which it is true, before chance decides about the others."""
    passed: int = 0
    lost: int = 0
    due: float = field(default=0.0, repr=False)
    """Loop time at which the datagram before arrives, so that order is kept."""


class LossyLink:
    """A relay between one near end and one far end.

    ``up`` is what the near end sends to the far end, ``down`` the way back. All chance comes from
    one generator with a seed, so a run can be repeated as far as the timing of its ends allows.
    """

    def __init__(self, target: Address, seed: int) -> None:
        self.up = Impairment()
        self.down = Impairment()
        self.near: Address | None = None
        """Where the near end was last heard from."""
        self.target = target
        self._random = random.Random(seed)
        self._front: asyncio.DatagramTransport | None = None
        self._back: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    @classmethod
    async def open(cls, target: Address, *, host: str = "127.0.0.1", seed: int = 1) -> LossyLink:
        """Open both sockets on ``host`` and relay to the far end at ``target``."""
        link = cls(target, seed)
        link._front = await _socket(host, link._from_near)
        link._back = await _socket(host, link._from_far)
        return link

    @property
    def address(self) -> Address:
        """Where the near end must send."""
        return _address(self._front)

    @property
    def far_side(self) -> Address:
        """What the far end takes for the near end's address."""
        return _address(self._back)

    def through(self, text: str) -> str:
        """The far end's session description with the link's address in every UDP candidate."""
        host, port = self.address
        return re.sub(r"(?mi)^(a=candidate:\S+ \d+ udp \d+ )\S+ \d+", rf"\g<1>{host} {port}", text)

    async def rebind(self, port: int = 0) -> Address:
        """Show the far end a new source port from now on, as a NAT that lost its mapping does.

        ``port`` is one that it had before; 0 is one it never had.
        """
        old, host = self._back, self.far_side[0]
        self._back = await _socket(host, self._from_far, port)
        if old is not None:
            old.close()
        return self.far_side

    def close(self) -> None:
        """Close both sockets; what is still under way is lost."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()

    def _from_near(self, data: bytes, addr: Address) -> None:
        self.near = addr
        self._relay(self.up, data, lambda: (self._back, self.target))

    def _from_far(self, data: bytes, addr: Address) -> None:
        self._relay(self.down, data, lambda: (self._front, self.near))

    def _relay(
        self,
        way: Impairment,
        data: bytes,
        route: Callable[[], tuple[asyncio.DatagramTransport | None, Address | None]],
    ) -> None:
        if (
            way.outage
            or (way.drop is not None and way.drop(data))
            or self._random.random() < way.loss
        ):
            way.lost += 1
            return

        def send() -> None:
            transport, addr = route()
            if transport is not None and addr is not None and not transport.is_closing():
                way.passed += 1
                transport.sendto(data, addr)

        delay = max(0.0, way.delay + way.jitter * self._random.uniform(-1, 1))
        if not delay and not way.due:
            send()
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if not way.reorder:
            # Timers that are due at once are not run in any promised order.
            due = way.due = max(due, way.due + 1e-6)

        def arrive() -> None:
            self._timers.discard(timer)
            send()

        timer = loop.call_at(due, arrive)
        self._timers.add(timer)


class _Reader(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr[:2])


async def _socket(
    host: str, received: Callable[[bytes, Address], None], port: int = 0
) -> asyncio.DatagramTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Reader(received), local_addr=(host, port)
    )
    return transport


def _address(transport: asyncio.DatagramTransport | None) -> Address:
    assert transport is not None, "the link is not open"
    host, port = transport.get_extra_info("sockname")[:2]
    return host, port
