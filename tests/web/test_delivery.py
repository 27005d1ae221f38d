"""Whether the other end of a connection takes what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from interview_peer.web.delivery import UNSENT_BYTES, Delivery
from tests.support.waiting import eventually

LITTLE = b"x" * 40_000
"""More than the other end has room for here, and less than the kernel of this one."""
MUCH = b"x" * 16_000_000
"""More than any kernel keeps."""


@contextlib.asynccontextmanager
async def line() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """One end with a transport, the other a socket that reads when it is asked to."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        loop = asyncio.get_running_loop()
        place = listener.getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *place)
        other, _ = listener.accept()
        with other:
            other.setblocking(False)
            yield transport, other
            transport.abort()


async def test_nothing_is_stuck_while_nothing_waits() -> None:
    async with line() as (transport, _):
        delivery = Delivery(transport, 0.0)
        assert delivery.stuck(50.0, kernel=True) == 0


async def test_an_answer_that_the_kernel_holds_is_stuck_where_that_counts() -> None:
    async with line() as (transport, _):
        delivery, other = Delivery(transport, 0.0), Delivery(transport, 0.0)
        transport.write(LITTLE)
        assert transport.get_write_buffer_size() == 0

        async def quiet() -> float:
            # What the other end's kernel had room for has been acknowledged.
            return delivery.stuck(0.0, kernel=True) or delivery.stuck(1.0, kernel=True)

        await eventually(quiet, within=5, what="nothing more taken", good=lambda late: late == 1.0)
        assert delivery.stuck(9.0, kernel=True) >= 8.0
        assert other.stuck(9.0, kernel=False) == 0


@pytest.mark.parametrize("kernel", [False, True])
async def test_what_the_process_holds_is_stuck_until_some_is_taken(kernel: bool) -> None:
    async with line() as (transport, other):
        delivery = Delivery(transport, 0.0)
        transport.write(MUCH)
        assert transport.get_write_buffer_size() > 0

        now = 0.0

        async def quiet() -> float:
            nonlocal now
            now += 1.0
            return delivery.stuck(now, kernel=kernel)

        await eventually(quiet, within=5, what="nothing more taken", good=lambda late: late >= 3)
        # More that is written is no progress, and neither is it a fresh start.
        transport.write(LITTLE)
        late = delivery.stuck(now + 1.0, kernel=kernel)
        assert late >= 4
        loop = asyncio.get_running_loop()
        for _ in range(20):
            await loop.sock_recv(other, 4096)

        async def moved() -> float:
            return delivery.stuck(now + 2.0, kernel=kernel)

        await eventually(moved, within=5, what="some taken", good=lambda late: late == 0)


async def test_a_line_that_is_no_tcp_counts_by_what_the_process_holds() -> None:
    here, other = socket.socketpair()
    loop = asyncio.get_running_loop()
    with other:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
        delivery = Delivery(transport, 0.0)
        transport.write(LITTLE)
        assert delivery.stuck(9.0, kernel=True) == 0
        transport.write(MUCH)
        assert [delivery.stuck(now, kernel=True) for now in (10.0, 19.0)] == [1.0, 10.0]
        delivery.give_up()
        assert transport.is_closing()


async def test_the_kernel_takes_little_of_what_is_not_under_way() -> None:
    async with line() as (transport, _):
        Delivery(transport, 0.0)
        transport.write(MUCH)
        # The other end has room for a few kB; in pages, which the kernel counts as they come.
        assert transport.get_write_buffer_size() > len(MUCH) - 4 * UNSENT_BYTES
