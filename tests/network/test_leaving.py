"""Pages and microphones that go away, and what the model hears meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

from . import calls

SENDER = "interviewPeer.peerConnection.getSenders()[0]"


async def test_a_reload_is_hardly_heard_by_the_model(tmp_path: Path) -> None:
    """Measured in five reloads: 70, 2, 0, 12 and 33 ms concealed, live again after 0.2 to 0.3 s."""
    async with calls.chirping_call(tmp_path) as call:
        session, concealed = call.session_id, []
        for _ in range(3):
            before = await call.model.figures(call.model_call)
            await call.browser.page.reload()
            await call.browser.until("window.interviewPeer?.state.stage === 'live'")
            await calls.listen(1.0)
            gap = await call.model.figures(call.model_call) - before
            concealed.append(gap.concealed_ms)
            if gap.concealed_ms <= 100:
                break
        assert min(concealed) <= 100, concealed
        assert await call.browser.ask("interviewPeer.state.sessionId") == session
        assert call.model.calls == [call.model_call], "the model's leg was made anew"

        # Events flow both ways on the new channel.
        await call.model.say(call.model_call, {"type": "planted.event", "event_id": "event_1"})
        await call.browser.until("captured.events.some((event) => event.type === 'planted.event')")
        await call.browser.page.get_by_role("button", name="Send Test Message").click()
        await call.model.event(call.model_call, "response.create")
        await call.goes_on()


async def test_a_muted_or_removed_microphone_is_silence_to_the_model(tmp_path: Path) -> None:
    """Measured: mute 0 concealed; 3 s without a track 281 ms (until silence begins), then none; a
    stopped track 312 ms in 6 s. Without silence of ours all of it is concealed.
    """
    async with calls.chirping_call(tmp_path) as call:
        page = call.browser.page
        await page.evaluate(f"() => {{ window.microphone = {SENDER}.track; }}")

        filled = (await call.statistics())["to_model"]["filled"]
        await page.evaluate("() => { microphone.enabled = false; }")
        muted = await call.best_figures(2.0, lambda both: both.up.concealed_samples == 0)
        assert muted.up.concealed_ms < 40, str(muted)
        after = (await call.statistics())["to_model"]["filled"]
        assert after - filled < 10, "a muted page still sends"
        await page.evaluate("() => { microphone.enabled = true; }")

        await page.evaluate(f"() => {SENDER}.replaceTrack(null)")
        removed = await call.measured(3.0)
        assert removed.up.concealed_ms < 1000, str(removed)
        filled = (await call.statistics())["to_model"]["filled"] - after
        assert 90 <= filled <= 160, filled
        await page.evaluate(f"() => {SENDER}.replaceTrack(microphone)")
        await call.goes_on()

        await page.evaluate("() => microphone.stop()")
        stopped = await call.measured(5.5)
        assert stopped.up.concealed_ms < 1500, str(stopped)
        # The interviewer goes on being heard, and nobody takes the page for dead.
        assert stopped.down.packets > 250, str(stopped)
        await call.is_live()


async def test_a_killed_browser_is_silence_to_the_model_until_it_is_noticed(
    tmp_path: Path,
) -> None:
    """Measured: noticed after 4.1 s; 281 ms concealed in the first second, 0 after it."""
    async with calls.chirping_call(tmp_path, may_die=True) as call:
        before = await call.model.figures(call.model_call)
        killed, since = time.monotonic(), calls.now()
        call.browser.kill()
        await calls.listen(1.0)
        settled = await call.model.figures(call.model_call)
        await call.until_phase("detached", 5.0 - (time.monotonic() - killed))
        noticed = time.monotonic() - killed
        await calls.listen(1.0)
        after = await call.model.figures(call.model_call)

        assert noticed > 3.0, "so soon that a bad network would have been taken for death"
        assert (settled - before).concealed_ms < 800, str(settled - before)
        # Silence of ours is heard as sound: nothing needs to be made up any more.
        assert (after - settled).concealed <= 0.2, str(after - settled)
        assert (after - settled).packets > 40 * (noticed - 1.0), str(after - settled)
        heard = await call.model.heard(call.model_call, since + 1.0)
        assert float(abs(heard.samples).max()) < 0.01, "something is still heard"
        assert call.model.hung_up == [], "the model is held for a browser that returns"
