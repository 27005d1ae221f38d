"""The link that other tests trust must itself do what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.media.legs import until
from tests.media.strays import Stranger
from tests.support.lossy_link import LossyLink


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Stranger, LossyLink, Stranger]]:
    near, far = Stranger(), Stranger()
    link = await LossyLink.open(far.address, seed=7)
    yield near, link, far
    link.close()
    near.close()
    far.close()


Ends = tuple[Stranger, LossyLink, Stranger]


async def test_untouched_link_passes_everything_both_ways_in_order(ends: Ends) -> None:
    near, link, far = ends
    sent = [b"%d" % number for number in range(100)]
    for data in sent:
        near.send(data, link.address)
    await until(lambda: len(far.received) == 100, "all at the far end")
    for data in sent:
        far.send(data, link.far_side)
    await until(lambda: len(near.received) == 100, "all at the near end")
    assert far.received == near.received == sent
    assert (link.up.passed, link.up.lost, link.down.passed) == (100, 0, 100)


async def test_loss_takes_its_share_of_one_direction_only(ends: Ends) -> None:
    near, link, far = ends
    link.up.loss = 0.3
    for number in range(1, 11):
        for _ in range(100):
            near.send(b"up", link.address)
        await until(lambda: link.up.passed + link.up.lost >= number * 100, "all judged")  # noqa: B023
    assert 240 < link.up.lost < 360
    far.send(b"down", link.far_side)
    await until(lambda: near.received == [b"down"], "the way back")


async def test_jitter_keeps_the_order_unless_told_otherwise(ends: Ends) -> None:
    near, link, far = ends
    link.up.delay = link.up.jitter = 0.02
    sent = [b"%d" % number for number in range(100)]
    for data in sent:
        near.send(data, link.address)
    await until(lambda: len(far.received) == 100, "all at the far end")
    assert far.received == sent
    link.up.reorder = True
    for data in sent:
        near.send(data, link.address)
    await until(lambda: len(far.received) == 200, "all again")
    assert far.received[100:] != sent
    assert sorted(far.received[100:]) == sorted(sent)


async def test_outage_and_chosen_datagrams_are_lost(ends: Ends) -> None:
    near, link, far = ends
    link.up.outage = True
    near.send(b"lost", link.address)
    await until(lambda: link.up.lost == 1, "the loss")
    link.up.outage = False
    link.up.drop = lambda data: data.startswith(b"bad")
    for data in (b"bad one", b"good one"):
        near.send(data, link.address)
    await until(lambda: far.received, "the good one")
    assert far.received == [b"good one"]


async def test_rebound_link_speaks_from_a_new_port_and_answers_still_arrive(ends: Ends) -> None:
    near, link, far = ends
    near.send(b"before", link.address)
    await until(lambda: far.received, "the first")
    before = link.far_side
    after = await link.rebind()
    assert after != before
    near.send(b"after", link.address)
    await until(lambda: len(far.received) == 2, "the second")
    far.send(b"back", after)
    await until(lambda: near.received == [b"back"], "the answer")


async def test_description_leads_through_the_link(ends: Ends) -> None:
    _, link, _ = ends
    text = (
        "a=candidate:1 1 udp 2130706431 192.0.2.9 3478 typ host ufrag x\r\n"
        "a=candidate:2 1 tcp 1 192.0.2.9 443 typ host\r\n"
    )
    host, port = link.address
    assert link.through(text).splitlines() == [
        f"a=candidate:1 1 udp 2130706431 {host} {port} typ host ufrag x",
        "a=candidate:2 1 tcp 1 192.0.2.9 443 typ host",
    ]
