"""With redaction on, no file, row, notice or follower gets what was taken out; the two ends do."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select

from interview_peer.simulator.library import scripts
from interview_peer.state.database import Transaction
from interview_peer.state.schema import notices, turns
from tests.support.caller import calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

GREETING = scripts()[0].lines[0].text
SPOKEN = "yourself"
"""A word that the interviewer says, and that a function of ours takes out."""
TYPED = "ann@mail.example"


def without_the_word(text: str) -> str:
    return text.replace(SPOKEN, "...")


async def test_what_is_taken_out_is_nowhere_but_at_the_two_ends(tmp_path: Path) -> None:
    setting = f"all,{__name__}:without_the_word"
    async with (
        serving(tmp_path, redact_speech=setting) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        interview = server.interviews.find(caller.session_id)
        follower = interview.feed.follow(None)
        text = {"type": "input_text", "text": f"Write to {TYPED}."}
        item = {"id": "typed", "type": "message", "role": "user", "content": [text]}
        caller.say({"type": "conversation.item.create", "item": item})
        echo = await caller.event(
            "conversation.item.done", where=lambda e: e["item"]["id"] == "typed"
        )
        assert TYPED in json.dumps(echo), "the browser is an end of the conversation"
        done = await caller.event("response.output_audio_transcript.done", within=20)
        assert done["transcript"] == GREETING
        assert any(SPOKEN in line for line in caller.heard if "delta" not in line)
        await caller.event("response.done")
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        followed = []
        while (event := await follower.take(0)) is not None:
            followed.append(event)
        folder = tmp_path / "interviews" / caller.session_id

        async def finished() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(finished, within=40, what="a finished folder", good=bool)
        await server.state.chronicle.drained()

        async def rows(tx: Transaction) -> list[str]:
            return [
                *map(str, (await tx.execute(select(turns))).all()),
                *map(str, (await tx.execute(select(notices))).all()),
            ]

        written = await server.state.database.run(rows)
        statistics = interview.statistics()["events"]

    kept = {
        path.name: path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.suffix in (".json", ".jsonl", ".txt", ".vtt", ".srt")
    }
    kept["database"] = "\n".join(written)
    kept["followers"] = json.dumps([event.data for event in followed])
    for name in ("transcript.json", "transcript.txt", "events.jsonl", "database", "followers"):
        assert "Write to [email]." in kept[name], name
        # The text form has of a reply cut short what was heard alone.
        assert GREETING.replace(SPOKEN, "...") in kept[name] or name.endswith("txt"), name
    for name, content in kept.items():
        assert SPOKEN not in content and TYPED not in content, name
    assert "text" not in {event.kind for event in followed}
    lines = [json.loads(line)["event"] for line in kept["events.jsonl"].splitlines()]
    deltas = [event["delta"] for event in lines if event["type"].endswith(".delta")]
    assert deltas and not any(deltas)
    assert statistics["redacted_email"] >= 2 and statistics["redacted_hook"] >= 1
    assert statistics["redacted_withheld"] == len(deltas)
