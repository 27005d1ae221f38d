"""Which forwarder a server uses, by its setting and by what is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.media import native
from tests.media.legs import until
from tests.support.caller import calling
from tests.support.inprocess import serving


@pytest.mark.parametrize(
    ("wanted", "built", "used"),
    [
        ("auto", True, "native"),
        ("python", True, "python"),
        ("auto", False, "python"),
    ],
)
async def test_interview_is_heard_both_ways_by_what_was_chosen_and_the_log_tells(
    wanted: str,
    built: bool,
    used: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if built and not native.BUILT:
        pytest.skip("the native forwarder was not built: there is no C compiler")
    monkeypatch.setattr(native, "BUILT", built)
    caplog.set_level("INFO", "interview_peer.app")
    async with serving(tmp_path, forwarder=wanted) as server, calling(server.url) as caller:
        (line,) = [record for record in caplog.records if record.message == "listening"]
        assert vars(line)["forwarder"] == used
        await caller.open()
        await caller.connect()
        caller.speak()
        await caller.sound()
        interview = server.interviews.find(caller.session_id)
        lanes = [leg.engine.lane for leg in interview.legs]
        if used == "native":
            # A machine that stands still for a moment makes room for silence of ours.
            await until(lambda: all(lane and lane.armed for lane in lanes), "native forwarding")
        else:
            assert lanes == [None, None]
        assert len(lanes) == 2
        assert interview.statistics()["to_model"]["forwarded"] >= 1


async def test_health_counts_every_packet_up_to_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        caller.speak()
        await caller.sound()
        interview = server.interviews.find(caller.session_id)
        await until(lambda: interview._bridge.up._lent or not native.BUILT, "native forwarding")
        leg = interview.legs[0]
        # Nobody but the request may bring the counts up to date.
        leg._stop_pulse()
        before = leg._reception.packets
        lane = leg.engine.lane
        sent = lane.last_at if lane is not None else 0.0
        await until(lambda: lane is None or lane.last_at > sent, "another packet")
        reply = await caller.get("/healthz")
        assert lane is None or leg._reception.packets > before
        assert reply.json()["media"]["to_model"]["sampled"] > 0


async def test_native_code_that_is_wanted_and_lacks_ends_the_start_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "BUILT", False)
    with pytest.raises(ConfigurationError, match="install a C compiler and Python's headers"):
        async with serving(tmp_path, forwarder="native"):
            pass
