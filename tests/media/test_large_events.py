"""Events larger than aiortc's own receive window: the model may send a retrieved item's sound."""

from __future__ import annotations

import time

import pytest

from tests.media.legs import connected, until

LARGE = 3 * 1024 * 1024
"""Characters; 50 s of speech as the service writes it into a retrieved item."""


@pytest.mark.timeout(60)
async def test_an_event_beyond_a_mebibyte_arrives_and_the_channel_goes_on() -> None:
    async with connected() as ends:
        sctp = ends.far.engine.pc.sctp
        assert sctp is not None
        # The service need not keep to the size we announce, so the far end here does not.
        sctp._remote_max_message_size = 2 * LARGE
        ends.far.send_text("x" * LARGE)
        ends.far.send_text("after")

        started = time.monotonic()
        await until(lambda: len(ends.near_heard.messages) == 2, "both messages", within=40)

        assert [len(message) for message in ends.near_heard.messages] == [LARGE, 5]
        assert ends.near.connected, time.monotonic() - started
