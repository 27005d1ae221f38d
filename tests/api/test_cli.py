"""``interview-peer interviews`` and ``keys`` against a running server."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from click.testing import CliRunner, Result

from interview_peer.app import Server
from interview_peer.cli import main
from tests.support.caller import Caller
from tests.support.operator import KEY, PATH, Operator


@pytest.fixture
async def plain_url(plain: Operator) -> str:
    return plain._caller.url


async def command(url: str, *arguments: str, key: str = KEY, typed: str = "") -> Result:
    runner = CliRunner(env={"INTERVIEW_ADMIN_KEY": key})
    whole = [*arguments, "--server", url]
    return await asyncio.to_thread(lambda: runner.invoke(main, whole, input=typed))


async def test_interviews_are_listed_over_several_pages(plain: Operator, plain_url: str) -> None:
    made = [(await plain.make(candidate_reference="r"))["id"] for _ in range(3)]
    listed = await command(plain_url, "interviews", "list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == made[::-1]
    lines = (await command(plain_url, "interviews", "list", "--json", "--limit", "2")).stdout
    assert [json.loads(line)["id"] for line in lines.splitlines()] == made[:0:-1]
    none = await command(plain_url, "interviews", "list", "--reference", "nobody")
    assert (none.exit_code, none.stdout) == (0, "")


async def test_an_interview_is_shown(plain: Operator, plain_url: str) -> None:
    made = await plain.make(persona="engineer", metadata={"job": "wéb"})
    shown = await command(plain_url, "interviews", "show", made["id"])
    assert 'metadata             {"job": "wéb"}' in shown.stdout
    told = await command(plain_url, "interviews", "show", made["id"], "--json")
    assert json.loads(told.stdout) == await plain.show(made)


async def test_ending_several_tells_each_and_which_could_not_be(
    plain: Operator, plain_url: str
) -> None:
    made = [(await plain.make())["id"] for _ in range(2)]
    ended = await command(plain_url, "interviews", "end", made[0], "nobody", made[1])
    assert ended.exit_code == 1
    assert ended.stdout.splitlines() == [f"{name}: ended" for name in made]
    assert "nobody: There is no such session." in ended.stderr


async def test_deleting_asks_first(plain: Operator, plain_url: str) -> None:
    made = await plain.make()
    kept = await command(plain_url, "interviews", "delete", made["id"], typed="n\n")
    assert kept.exit_code == 1
    assert await plain.ids() == [made["id"]]
    gone = await command(plain_url, "interviews", "delete", made["id"], "--yes")
    assert (gone.exit_code, gone.stdout) == (0, f"{made['id']}: 0 files and 0 turns erased\n")
    assert await plain.ids() == []


async def test_a_running_interview_is_ended_from_the_terminal(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    await candidate.open()
    await candidate.connect()
    ended = await command(served.url, "interviews", "end", candidate.session_id)
    assert ended.stdout == f"{candidate.session_id}: ended\n"


async def test_an_interview_is_steered_from_the_terminal(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    await candidate.open()
    await candidate.connect()
    await candidate.event("output_audio_buffer.started")
    name = candidate.session_id
    told = await command(served.url, "interviews", "instruct", name, "-", typed="Be brief.\n")
    assert re.fullmatch(rf"{name}: told \(item_\w+\)\n", told.stdout), told
    said = await command(served.url, "interviews", "say", name, "Take your time.", "--interrupt")
    assert re.fullmatch(rf"{name}: says \(resp_\w+\)\n", said.stdout), said
    ended = await command(served.url, "interviews", "end", name, "--politely", "--seconds", "1")
    assert ended.stdout == f"{name}: ended\n"
    counters = served.interviews.find(name).control.counters
    assert (counters["instructed"], counters["said"], counters["goodbyes_cut"]) == (2, 1, 1)
    over = await command(served.url, "interviews", "say", name, "Hello?")
    assert (over.exit_code, over.stdout) == (1, "")
    assert "has ended" in over.stderr


@pytest.mark.parametrize(
    "arguments", [("instruct", "i", "x", "--interrupt"), ("end", "i", "--seconds", "5")]
)
async def test_options_that_need_another_are_refused(
    plain_url: str, arguments: tuple[str, ...]
) -> None:
    assert (await command(plain_url, "interviews", *arguments)).exit_code == 2


async def test_a_key_is_made_with_scopes_and_listed_with_them(
    plain: Operator, plain_url: str
) -> None:
    arguments = ("--scope", "recordings", "--scope", "erase", "archive")
    key = (await command(plain_url, "keys", "create", *arguments)).stdout.strip()
    listed = (await command(plain_url, "keys", "list")).stdout
    assert listed.endswith("  recordings,erase  archive\n")
    assert (await command(plain_url, "interviews", "list", key=key)).exit_code == 0
    refused = await command(plain_url, "keys", "list", key=key)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "needs the scope operate" in refused.stderr
    unknown = await command(plain_url, "keys", "create", "--scope", "everything", "more")
    assert unknown.exit_code == 2


async def test_a_key_is_made_used_listed_and_revoked(plain: Operator, plain_url: str) -> None:
    key = (await command(plain_url, "keys", "create", "tracker")).stdout.strip()
    assert (await command(plain_url, "interviews", "list", key=key)).exit_code == 0
    line = (await command(plain_url, "keys", "list", "--json")).stdout
    assert json.loads(line)["name"] == "tracker"
    name = json.loads(line)["id"]
    assert (await command(plain_url, "keys", "revoke", name)).stdout == f"{name}: revoked\n"
    refused = await command(plain_url, "interviews", "list", key=key)
    assert refused.exit_code == 1
    assert "operator's key" in refused.stderr
    assert (await plain.ask("GET", PATH)).status == 200
