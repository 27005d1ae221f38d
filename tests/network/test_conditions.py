"""A call over good and bad networks: what both ends hear, and how late."""

from __future__ import annotations

from pathlib import Path

from . import calls
from .calls import WAY_MS, Chirping, Stretch

CLEAR = 0.6
"""Least likeness of any chirp heard; 0.8 to 0.99 measured, less where time was stretched."""


def _whole(chirping: Chirping, least: int) -> bool:
    """Every chirp came, in its order and as it was."""
    return (
        len(chirping.heard) >= least
        and chirping.out_of_order == 0
        and chirping.lowest_score > CLEAR
    )


def _clean(stretch: Stretch) -> bool:
    return all(
        _whole(one, 10)
        and one.figures.concealed_samples == 0
        and one.figures.lost == 0
        and one.way_ms < WAY_MS
        for one in stretch.both
    )


async def test_a_clean_call_is_whole_in_order_and_prompt(tmp_path: Path) -> None:
    """Measured: 0 concealed, 0 lost, buffer 30 / 34 ms, delay 52 / 57 ms (up / down)."""
    async with calls.chirping_call(tmp_path) as call:
        for _ in range(4):
            before = await call.statistics()
            stretch = await call.stretch(5.0)
            after = await call.statistics()
            if _clean(stretch):
                break
        assert _clean(stretch), str(stretch)
        for way in ("to_model", "to_browser"):
            counts = calls.growth(before[way], after[way])
            assert counts.pop("forwarded") >= 240
            # Nothing was dropped, filled in or numbered anew.
            assert not any(counts.values()), counts
        for name, leg in after["legs"].items():
            # Of the clean stretch: a stretch before it may have been disturbed.
            assert leg["received"]["lost"] == before["legs"][name]["received"]["lost"]
            assert leg["dropped"] == {}


async def test_two_calls_on_the_one_port_hear_only_their_own(tmp_path: Path) -> None:
    """Four voices, each in a band of its own; measured as the clean call."""
    microphones = [calls.write_chirps(tmp_path, voice) for voice in (0, 2)]
    interviewers = [calls.write_chirps(tmp_path, voice) for voice in (1, 3)]
    async with (
        calls.serving(tmp_path, *interviewers) as (server, model),
        calls.calling(server, model, microphones[0]) as first,
        calls.calling(server, model, microphones[1]) as second,
    ):
        assert first.network.server == second.network.server
        assert first.model_call != second.model_call
        for call, up_voice, down_voice in ((first, 0, 1), (second, 2, 3)):
            for _ in range(4):
                stretch = await call.stretch(4.0, up_voice, down_voice)
                if all(_whole(one, 8) for one in stretch.both):
                    break
            assert all(_whole(one, 8) for one in stretch.both), str(stretch)
            up, down = await call.voices_heard(calls.now() - 4.0)
            assert [voice for voice, count in enumerate(up) if count] == [up_voice], up
            assert [voice for voice, count in enumerate(down) if count] == [down_voice], down


LATE = (
    ({"delay": 0.1}, 100.0),
    ({"delay": 0.06, "jitter": 0.03}, 60.0),
    ({"delay": 0.06, "jitter": 0.03, "reorder": True}, 60.0),
)
"""What is done to the packets, and by how many milliseconds that makes the way longer."""


async def test_late_packets_cost_no_sound(tmp_path: Path) -> None:
    """All of them are sent on, none is taken for silence, and no delay of ours is added.

    Measured up / down, without the jitter buffer: 130 / 137, 88 / 70 and 79 / 85 ms; 0 concealed,
    0 lost.
    """
    async with calls.chirping_call(tmp_path) as call:
        for spoilt, way_ms in LATE:

            def good(stretch: Stretch, longest: float = way_ms + WAY_MS) -> bool:
                return all(
                    _whole(one, 7) and one.figures.concealed <= 0.02 and one.way_ms < longest
                    for one in stretch.both
                )

            call.network.spoil(**spoilt)  # type: ignore[arg-type]
            await call.steady()
            for _ in range(4):
                before = await call.statistics()
                stretch = await call.stretch(4.0)
                after = await call.statistics()
                ways = [calls.growth(before[way], after[way]) for way in ("to_model", "to_browser")]
                kept = all(counts.pop("forwarded") > 190 for counts in ways)
                kept = kept and not any(any(counts.values()) for counts in ways)
                if good(stretch) and kept:
                    break
            assert good(stretch), (spoilt, str(stretch))
            assert kept, (spoilt, ways)
            for leg in after["legs"].values():
                assert leg["received"]["lost"] <= 3, "more than what is under way right now"
        await call.is_live()


async def test_after_an_outage_audio_is_back_with_the_first_packets(tmp_path: Path) -> None:
    """Measured for 3 s: first chirp after 0.1 / 0.3 s, way as before, 560 ms concealed up."""
    async with calls.chirping_call(tmp_path) as call:
        began = await call.figures()
        filled = (await call.statistics())["to_model"]["filled"]
        call.network.spoil(outage=True)
        await calls.listen(3.0)
        call.network.spoil()
        over = calls.now()
        stretch = await call.stretch(3.0)
        gap = (await call.figures()) - began

        for chirping in stretch.both:
            # A chirp begins every 0.4 s; one that was cut does not count.
            assert chirping.heard and chirping.heard[0].at - over < 1.2, str(stretch)
        # Silence of ours replaced all but the beginning of the outage for the model.
        assert gap.up.concealed_ms < 1200, str(gap)
        assert 2500 < gap.down.concealed_ms < 4500, str(gap)
        statistics = await call.statistics()
        assert 110 <= statistics["to_model"]["filled"] - filled <= 150
        await call.goes_on()
        log = await call.browser.ask("interviewPeer.log.map((line) => line.text).join()")
        assert "Trying to continue" not in log
