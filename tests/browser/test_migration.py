"""The page of docs/migration.md, run in a browser as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import speech
from tests.support.chromium import browsing
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import eventually

DOCUMENT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")


async def test_the_documented_page_holds_an_interview(
    server: ServerProcess, tmp_path: Path
) -> None:
    (example,) = re.findall(r"^```js after\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=20)
    async with browsing(silence) as browser:
        await browser.page.goto(server.url)
        call = await browser.page.evaluate(
            f"""async ({{ server, key }}) => {{
                window.shown = [];
                const show = (event) => window.shown.push(event.type);
                {example}
                window.kept = {{ peer, speaker }};
                return answer.headers.get("Location");
            }}""",
            {"server": server.url, "key": "ek_of_no_worth"},
        )
        await browser.until("shown.includes('session.created')")
        # The interviewer is heard, and what it says is told.
        await browser.until("shown.includes('response.output_audio_transcript.delta')")
        await browser.until("kept.speaker.currentTime > 0")
        session_id = call.rpartition("/rtc_")[2]
        assert await server.phase(session_id) == "live"
        await browser.page.evaluate("() => kept.peer.close()")
        await eventually(
            lambda: server.phase(session_id),
            within=5,
            what="detached",
            good=lambda phase: phase in ("detached", "ending", "ended"),
        )
