"""Speech over a network that loses packets, both ways."""

from __future__ import annotations

from pathlib import Path

from . import calls
from .calls import Both

CONDITIONS = (
    (0.01, 0.02, 0.0),
    (0.05, 0.03, 0.4),
    (0.15, 0.06, 0.4),
)
"""Share of packets lost; how much of the speech may have to be made up; how many packets must carry
redundancy. (At 1 % many reports tell of no loss at all, and encoders stop spending on it.)"""


async def test_lost_packets_of_speech_are_mended_by_redundancy(tmp_path: Path) -> None:
    """Measured concealment up / down in windows of 8 s, on a loaded machine:

    ===== =================================
    loss  concealed
    ===== =================================
    1 %   0.4 / 1.4 %
    5 %   0.3 / 0.4 %
    15 %  4.2 / 3.5, 4.7 / 3.7, 1.8 / 4.7 %
    ===== =================================

    Where an encoder does not hear of the whole path's loss, 11 to 16 % are concealed at 15 %.
    """
    async with calls.speaking_call(tmp_path) as call:
        assert (await call.figures()).up.fec_packets == 0, "redundancy before any loss"
        for loss, most, redundant in CONDITIONS:

            def good(both: Both, most: float = most) -> bool:
                return both.up.concealed <= most and both.down.concealed <= most

            call.network.spoil(loss=loss)
            # The encoders hear of the loss with the next report, a second or two later.
            await call.steady()
            lost_before = call.network.up.lost, call.network.down.lost
            before = await call.figures()
            both = await call.best_figures(8.0, good, windows=3)
            assert good(both), (loss, str(both))
            since = await call.figures() - before
            lost = call.network.up.lost - lost_before[0], call.network.down.lost - lost_before[1]

            for heard, dropped in ((since.up, lost[0]), (since.down, lost[1])):
                assert dropped > 0
                # A lost packet costs exactly that packet; the link loses reports and checks, too.
                assert dropped * 0.7 - 8 <= heard.lost <= dropped + 3, (loss, str(since), lost)
                assert heard.fec_packets >= redundant * heard.packets, (loss, str(since))
        await call.is_live()
