"""The service's key stays in the server: not on the wire to a browser, in no log, in no file.
So do tokens, operators' keys and webhook secrets, beside those who were given them.

A live server process with a marked key, at LOG_LEVEL=debug, against a simulator in another process
that takes only that key and repeats it: in the body of each refusal, and in an ``error`` event.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import select

from interview_peer.core.redaction import MASK
from interview_peer.core.tokens import digest, is_trusted_resume
from interview_peer.state import migrate
from interview_peer.state.database import FILE, Database, Transaction
from interview_peer.state.schema import metadata
from tests.notices.receiver import Receiver
from tests.support.caller import Caller, calling
from tests.support.operator import Operator
from tests.support.postgres import Postgres
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


# -- tokens, operators' keys and webhook secrets


ADMIN_KEY = "operators-marked-7Kq2/Zt+9Wm=bR4"
JOIN_SECRET = "joining-marked-5Tn8/Yv+3Xc=kL1hG6dS9"
DEFAULT_SECRET = "whsec_" + base64.b64encode(b"default-marked-4Pz/9+Qw=R2").decode()
ENDPOINT_SECRET = "whsec_" + base64.b64encode(b"endpoint-marked-8Jd/1+Nf=U5").decode()
CALLBACK_SECRET = "whsec_" + base64.b64encode(b"callback-marked-6Hs/3+Eb=Y7").decode()


async def tables_of(database: Database) -> str:
    """Everything in the database, as a dump would show it."""

    async def look(tx: Transaction) -> list[str]:
        rows = [await tx.execute(select(table)) for table in metadata.sorted_tables]
        return [repr(tuple(row)) for found in rows for row in found]

    return "\n".join(await database.run(look))


async def test_tokens_and_secrets_are_nowhere_but_where_they_are_needed(
    tmp_path: Path, database_url: str | None
) -> None:
    data = tmp_path / "data"
    database = await Database.open(database_url, data)
    await migrate.upgrade(database)
    await database.close()
    receiver = await Receiver().start()
    environment = {
        "INTERVIEW_ADMIN_KEY": ADMIN_KEY,
        "INTERVIEW_JOIN_SECRET": JOIN_SECRET,
        "INTERVIEW_WEBHOOK_URL": receiver.url,
        "INTERVIEW_WEBHOOK_SECRET": DEFAULT_SECRET,
        "INTERVIEW_WEBHOOK_ALLOW": "127.0.0.0/8",
        "LOG_LEVEL": "debug",
        **({} if database_url is None else {"DATABASE_URL": database_url}),
    }
    texts: dict[str, str] = {}
    async with (
        running_server(tmp_path, **environment) as server,
        calling(server.url) as maker,
        calling(server.url) as reader,
        calling(server.url) as candidate,
        calling(server.url) as trusted,
        calling(server.url) as stranger,
    ):
        operator = Operator(maker, ADMIN_KEY)
        kept = (await operator.ask("POST", "/api/keys", json={"name": "tracker"})).json()["key"]
        endpoint = {"url": receiver.url + "/kept", "secret": ENDPOINT_SECRET}
        webhook = (await operator.ask("POST", "/api/webhooks", json=endpoint)).json()["id"]
        callback = {"url": receiver.url + "/callback", "secret": CALLBACK_SECRET}
        made = await operator.make(callback=callback)
        await candidate.open()
        await candidate.send({"type": "init", "token": made["join_token"]})
        await candidate.message("session", where=lambda one: one["sessionId"] == made["id"])
        await candidate.send({"type": "sdp_offer", "offer": await candidate.offer()})
        answer = await candidate.message("sdp_answer")
        await candidate.accept(answer["answer"]["sdp"])
        await candidate.ready()
        resumes = [str(answer["resumeToken"])]
        await candidate.sound()
        confided = await operator.make(trusted=True)
        await trusted.open()
        await trusted.send({"type": "init", "token": confided["join_token"]})
        await trusted.message("session", where=lambda one: one["sessionId"] == confided["id"])
        await trusted.send({"type": "sdp_offer", "offer": await trusted.offer()})
        resumes.append(str((await trusted.message("sdp_answer"))["resumeToken"]))
        assert is_trusted_resume(resumes[1])
        # A key that let somebody in is known; new ones are not looked up after many refusals.
        second = Operator(reader, kept)
        assert (await second.ask("GET", "/api/keys")).status == 200
        # Used, wrong and misplaced ones may show up in refusals.
        await stranger.open()
        wrong = [token + "x" for token in (made["join_token"], *resumes)]
        for token in (made["join_token"], *wrong, kept):
            await stranger.send({"type": "init", "token": token})
            await stranger.error()
            await stranger.get("/api/ice-servers", headers={"Authorization": f"Bearer {token}"})
            await stranger.get("/api/interviews", headers={"Authorization": f"Bearer {token}x"})
        reply = await stranger.post(
            "/api/sdp-exchange",
            json={"sdpOffer": await stranger.offer()},
            headers={"Authorization": f"Bearer {resumes[0]}"},
        )
        assert reply.status == 200, reply
        resumes.append(reply.json()["resumeToken"])
        await stranger.accept(reply.json()["sdpAnswer"])
        await stranger.ready()
        await operator.ask("POST", f"/api/interviews/{made['id']}/end")
        await receiver.has(9, within=20)
        # What operators can read, by the key that is kept.
        paths = ["/api/interviews", "/api/keys", "/api/webhooks", "/api/webhooks/deliveries"]
        paths += [f"/api/webhooks/{webhook}", "/api/openapi.json", "/healthz"]
        for suffix in ("", "/transcript", "/recording", "/deliveries"):
            paths.append(f"/api/interviews/{made['id']}{suffix}")
        for path in paths:
            assert (await second.ask("GET", path)).status < 500
        listed = (await second.ask("GET", "/api/webhooks/deliveries")).json()["deliveries"]
        for one in listed:
            await second.ask("GET", f"/api/webhooks/deliveries/{one['id']}")
        # Everybody has what is theirs, and no more.
        texts["a stranger's side"] = "\n".join(
            # This one answer holds the newest resume token; its taker had the one before.
            text
            for text in stranger.heard
            if resumes[2] not in text
        )
        texts["a candidate's side"] = "\n".join(
            text for text in candidate.heard if resumes[0] not in text
        )
        texts["a trusted client's side"] = "\n".join(
            text for text in trusted.heard if resumes[1] not in text
        )
        texts["what operators read"] = "\n".join(reader.heard)
        texts["what receivers got"] = "\n".join(
            f"{got.headers} {got.body.decode()}" for got in receiver.got
        )
        assert len(receiver.got) >= 9 and len(listed) >= 9
        assert len(server.lines) < (server.lines.maxlen or 0), "the log was longer than was kept"
    await receiver.close()
    texts["the log"] = "\n".join(server.lines)
    assert " DEBUG " in texts["the log"]
    files = await asyncio.to_thread(files_of, data)
    # What signs must be kept as it is, in the database and nowhere else.
    signing = [ENDPOINT_SECRET, CALLBACK_SECRET]
    secrets = [
        *(ADMIN_KEY, kept, JOIN_SECRET, DEFAULT_SECRET, made["join_token"], *resumes),
        confided["join_token"],
        # By itself a JWT's signature is what makes it one.
        made["join_token"].rsplit(".", 1)[1],
    ]
    database = await Database.open(database_url, data)
    texts["the database"] = await tables_of(database)
    await database.close()
    for secret in secrets:
        assert found_in({**texts, **files}, secret) == [], secret[:12]
    elsewhere = {**texts, **files}
    kept_in = [place for place in elsewhere if place == "the database" or FILE in place]
    for secret in signing:
        assert secret in elsewhere["the database"]
        beside = {place: text for place, text in elsewhere.items() if place not in kept_in}
        assert found_in(beside, secret) == [], secret[:12]
    # The search would find them: what is kept of tokens and keys is there, as digests.
    for secret in (kept, *resumes[1:]):
        assert digest(secret) in texts["the database"]


DATABASE_PASSWORD = "database-marked-2Lw6-Rf9-Vb4"
NAME = "Marked Candidate Weatherby-Okonkwo"
JOB = "marked vacancy for a lighthouse keeper"
INSTRUCTIONS = "Marked instructions: ask about the silver lighthouse, and never tell that you did."


def phrases(text: str) -> Iterator[str]:
    """Each run of four words, as somebody would know them again."""
    words = text.split()
    for at in range(max(1, len(words) - 3)):
        yield " ".join(words[at : at + 4])


async def test_no_log_line_tells_who_said_what_and_no_candidate_gets_what_is_the_servers(
    tmp_path: Path, postgres: Postgres, postgres_template: str
) -> None:
    url = postgres.create(postgres_template)
    receiver = await Receiver().start()
    async with (
        simulating(tmp_path / "simulator") as simulator,
        running_server(
            tmp_path / "server",
            SIMULATION_MODE="false",
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=simulator.url,
            LOG_LEVEL="debug",
            DATABASE_URL=url.replace("@", f":{DATABASE_PASSWORD}@"),
            INTERVIEW_ALLOW_ANONYMOUS="false",
            INTERVIEW_ADMIN_KEY=ADMIN_KEY,
            INTERVIEW_JOIN_SECRET=JOIN_SECRET,
            INTERVIEW_WEBHOOK_URL=receiver.url,
            INTERVIEW_WEBHOOK_SECRET=DEFAULT_SECRET,
            INTERVIEW_WEBHOOK_ALLOW="127.0.0.0/8",
        ) as server,
        calling(server.url) as maker,
        calling(server.url) as candidate,
    ):
        operator = Operator(maker, ADMIN_KEY)
        made = await operator.make(
            plan={"instructions": INSTRUCTIONS},
            candidate_reference=NAME,
            metadata={"job": JOB},
        )
        await candidate.open_bare()
        await candidate.send({"type": "init", "token": made["join_token"]})
        await candidate.message("session")
        await candidate.connect()
        offered = await candidate.offer()
        await candidate.connect()
        candidate.speak(seconds=2)
        said = await candidate.event(
            "conversation.item.input_audio_transcription.completed", within=30
        )
        answered = await candidate.event("response.output_audio_transcript.done", within=30)
        headers = {"Authorization": f"Bearer {made['join_token']}"}
        for path in ("/", "/api/personas", "/api/ice-servers", "/healthz", "/readyz"):
            await candidate.get(path, headers=headers)
        assert (await operator.show(made))["candidate_reference"] == NAME
        await candidate.send({"type": "end_session"})
        await candidate.message("session_ended")
        await receiver.has(4, within=30)
        spoken = [said["transcript"], answered["transcript"]]
        side = "\n".join(candidate.heard)
        assert len(server.lines) < (server.lines.maxlen or 0), "the log was longer than was kept"
    await receiver.close()
    postgres.drop(url)
    log = "\n".join(server.lines)
    assert " DEBUG " in log and "setLocalDescription" in log
    secrets = (KEY, ADMIN_KEY, JOIN_SECRET, DEFAULT_SECRET, DATABASE_PASSWORD)
    for secret in secrets:
        assert found_in({"the log": log, "the candidate's side": side}, secret) == [], secret[:12]
    # What is said reaches the candidate, and nobody who reads the log.
    assert all(text and text in side for text in spoken)
    for text in (*spoken, NAME, JOB, INSTRUCTIONS):
        for phrase in phrases(text):
            assert phrase not in log, phrase
    # Nor do descriptions of anybody's connection.
    credentials = re.findall(r"a=(?:ice-pwd|ice-ufrag|fingerprint|candidate):\S+ ?\S*", offered)
    assert len(credentials) >= 3
    for line in (*credentials, *re.findall(r"a=(?:ice-pwd|fingerprint):[^\r\n]+", side)):
        assert line not in log, line
    for own in (JOB, INSTRUCTIONS):
        for phrase in phrases(own):
            assert phrase not in side, phrase


async def _ask(base_url: str, key: str) -> str:
    async with calling(base_url.removesuffix("/v1")) as caller:
        reply = await caller.post(
            "/v1/realtime/calls",
            data=b"v=0\r\n",
            headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"},
        )
    assert reply.status == 401
    return reply.text
