"""The service's key stays in the server: not on the wire to a browser, in no log, in no file.

A live server process with a marked key, at LOG_LEVEL=debug, against a simulator in another process
that takes only that key and repeats it: in the body of each refusal, and in an ``error`` event.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from interview_peer.core.redaction import MASK
from tests.support.caller import Caller, calling
from tests.support.server import COMMAND, ServerProcess, clean_environment, running, running_server
from tests.support.waiting import eventually

KEY = "sk-marked-9fQ2/Zt+7Wk=xL0pB3vN8cR5"
"""Of characters that JSON, URLs and base64 each spell in a way of their own."""


def spellings(secret: str) -> Iterator[str]:
    """How the secret could be written somewhere, whole or as a telling part of it."""
    yield secret
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield "".join(f"\\u{ord(one):04x}" for one in secret)
    yield quote(secret, safe="")
    yield quote(secret)
    for start in range(3):
        # Within a longer text, base64 shows one of three shapes; the ends mix with neighbours.
        encoded = base64.b64encode(b"x" * start + secret.encode()).decode()
        yield encoded[4 if start else 0 : -4]
    yield secret.encode().hex()
    # Longer than the few characters that a masked key may keep for telling keys apart.
    for at in range(0, len(secret) - 12, 4):
        yield secret[at : at + 12]


def found_in(texts: dict[str, str], secret: str = KEY) -> list[str]:
    """Where the secret is, as ``place: spelling``."""
    return [
        f"{place}: {spelling}"
        for place, text in texts.items()
        for spelling in spellings(secret)
        if spelling.lower() in text.lower()
    ]


def files_of(folder: Path) -> dict[str, str]:
    """Everything under a folder, names included, byte for byte."""
    return {
        str(path): f"{path}\n{path.read_bytes().decode('latin-1')}"
        for path in folder.rglob("*")
        if path.is_file()
    }


def started(
    folder: Path, base_url: str, key: str
) -> contextlib.AbstractAsyncContextManager[ServerProcess]:
    """A live server on loopback that logs all it can."""
    return running_server(
        folder,
        SIMULATION_MODE="false",
        OPENAI_API_KEY=key,
        OPENAI_BASE_URL=base_url,
        LOG_LEVEL="debug",
    )


def simulating(folder: Path) -> contextlib.AbstractAsyncContextManager[ServerProcess]:
    """A simulator process that takes the marked key alone and repeats it."""
    command = [*COMMAND, "simulate", "--port", "0", "--echo-key"]
    return running(command, folder, clean_environment(OPENAI_API_KEY=KEY), folder)


async def everything(server: ServerProcess, caller: Caller) -> dict[str, str]:
    """All that left the server, or stays of it."""
    return {
        "the browser's side": "\n".join(caller.heard),
        "the log": "\n".join(server.lines),
        **await asyncio.to_thread(files_of, server.data_dir),
    }


@pytest.mark.parametrize("spelling", list(spellings(KEY)))
def test_the_search_finds_each_spelling(spelling: str) -> None:
    assert found_in({"somewhere": f"before{spelling}after"})
    assert not found_in({"somewhere": "sk-another"})


async def test_a_whole_interview_shows_nothing_of_the_key(tmp_path: Path) -> None:
    async with (
        simulating(tmp_path / "simulator") as simulator,
        started(tmp_path / "server", simulator.url, KEY) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.post(
            "/api/generate-ephemeral-key", json={"sessionId": caller.session_id, "voice": "alloy"}
        )
        await caller.connect()
        # The simulator repeated the key: the mask stands where it was.
        planted = await caller.event("error")
        assert MASK in planted["error"]["message"]
        caller.say({"type": "nonsense"})
        caller.say({"type": "response.cancel", "response_id": "none"})
        caller.speak(seconds=1)
        await caller.event("conversation.item.input_audio_transcription.completed", within=20)
        for path in ("/health", "/healthz", "/api/personas", f"/api/sessions/{caller.session_id}"):
            await caller.get(path)
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        await caller.get(f"/api/interviews/{caller.session_id}")

        left = await everything(server, caller)
        journal = next(text for place, text in left.items() if place.endswith("events.jsonl"))
        assert MASK in journal
        assert " DEBUG " in left["the log"]
        assert len(left) >= 6
        assert len(server.lines) < (server.lines.maxlen or 0), "the log was longer than was kept"
        assert found_in(left) == []
    # What was logged while it stopped.
    assert found_in({"the log": "\n".join(server.lines)}) == []


async def test_refusals_show_nothing_of_either_key(tmp_path: Path) -> None:
    wrong = KEY.replace("marked", "wrong1")
    async with (
        simulating(tmp_path / "simulator") as simulator,
        started(tmp_path / "server", simulator.url, wrong) as server,
        calling(server.url) as caller,
    ):
        # The refusal repeats the key it got and the key it wanted.
        direct = await _ask(simulator.url, wrong)
        assert KEY in direct and wrong in direct

        await caller.open()
        sdp = await caller.offer()
        await caller.send({"type": "sdp_offer", "offer": sdp})
        assert await caller.refusal() == "UPSTREAM_AUTH_FAILED"
        reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": sdp})
        assert (reply.status, reply.json()["code"]) == (502, "UPSTREAM_AUTH_FAILED")
        reply = await caller.post(
            "/v1/realtime/calls",
            data=sdp.encode(),
            headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {wrong}"},
        )
        assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_auth_failed")

        async def refusals() -> int:
            return sum("voice service refused the call" in line for line in server.lines)

        await eventually(refusals, within=5, what="three refusals logged", good=lambda n: n == 3)
        left = await everything(server, caller)
    left["the log"] = "\n".join(server.lines)
    assert found_in(left, KEY) == []
    assert found_in(left, wrong) == []


async def _ask(base_url: str, key: str) -> str:
    async with calling(base_url.removesuffix("/v1")) as caller:
        reply = await caller.post(
            "/v1/realtime/calls",
            data=b"v=0\r\n",
            headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"},
        )
    assert reply.status == 401
    return reply.text
