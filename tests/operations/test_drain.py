"""A server that is asked to end while interviews run: who may go on, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from interview_peer.app import Server
from interview_peer.cli import main
from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from interview_peer.session import drain
from interview_peer.session.control import Control
from interview_peer.session.drain import GOODBYE, State
from interview_peer.session.stop_request import StopRequest
from interview_peer.types import Json
from tests.notices.receiver import Receiver
from tests.operations.stopping import ended
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator
from tests.support.server import running_server
from tests.support.waiting import eventually

PATH = "/api/drain"


async def unready(url: str, *codes: str) -> None:
    """Wait until readiness tells just these."""
    async with calling(url) as asker:

        async def ask() -> list[str]:
            reply = await asker.get("/readyz")
            assert (reply.status == 503) is bool(reply.json()["reasons"])
            return list(reply.json()["reasons"])

        await eventually(
            ask, within=10, what=f"reasons {codes}", good=lambda found: found == [*codes]
        )


async def refused_everywhere(url: str) -> None:
    """Nobody new gets in, and every way in says so in its own form."""
    async with calling(url) as late:
        offer = await late.offer()
        reply = await late.post("/api/sdp-exchange", json={"sdpOffer": offer})
        assert (reply.status, reply.json()["code"]) == (503, "DRAINING")
        assert int(reply.headers["retry-after"]) > 0
        reply = await late.post(
            "/v1/realtime/calls", data=offer, headers={"Content-Type": "application/sdp"}
        )
        told = reply.json()["error"]
        assert (reply.status, told["code"]) == (503, "rate_limit_exceeded")
        assert told["type"] == "server_error" and int(reply.headers["retry-after"]) > 0


@pytest.mark.timeout(150)
async def test_sigterm_lets_interviews_finish_then_ends_the_rest_with_files_and_notices(
    tmp_path: Path,
) -> None:
    receiver = await Receiver().start()
    secret = "whsec_" + "QUJD" * 8
    try:
        async with (
            running_server(
                tmp_path,
                INTERVIEW_DRAIN_SECONDS="600",
                INTERVIEW_WEBHOOK_URL=receiver.url,
                INTERVIEW_WEBHOOK_SECRET=secret,
                INTERVIEW_WEBHOOK_ALLOW="127.0.0.0/8",
                INTERVIEW_ADMIN_KEY=KEY,
            ) as server,
            calling(server.url) as finishing,
            calling(server.url) as staying,
            calling(server.url) as waiting,
        ):
            await unready(server.url)
            for caller in (finishing, staying):
                await caller.open()
                await caller.connect()
                await caller.sound()
            await waiting.open()
            server.process.send_signal(signal.SIGTERM)
            await unready(server.url, "DRAINING")
            await refused_everywhere(server.url)
            # Greeted before, but without an interview yet: that would be a new one.
            assert await waiting.error() == "DRAINING"
            await waiting.socket_closed()
            # A browser of a running interview may come back.
            await staying.drop()
            await staying.phase("detached")
            await staying.connect()
            await staying.audio.take(bool, "audio after the return")
            await finishing.send({"type": "end_session"})
            assert (await finishing.message("session_ended"))["reason"] == "client_request"
            operator = Operator(staying)
            told = (await operator.ask("GET", PATH)).json()
            assert (told["state"], told["exit"]) == ("draining", True)
            assert server.process.returncode is None
            # The rest of its time, cut short; what was asked for by the signal stays.
            assert (await operator.ask("POST", PATH, json={"seconds": 1})).status == 202
            over = await staying.message("session_ended", within=30)
            assert over["reason"] == "server_shutdown"
            assert await ended(server) == 0, server.tail()
        # Who was ended was told so by the interviewer; who ended by himself was not.
        asked = [
            GOODBYE in (server.folder(caller.session_id) / "events.jsonl").read_text()
            for caller in (finishing, staying)
        ]
        assert asked == [False, True]
        for caller in (finishing, staying):
            folder = server.folder(caller.session_id)
            assert manifest.read(folder)["complete"] is True
            assert verify(folder) == []
            kinds = [
                one.notice["type"] for one in receiver.got if one.interview == caller.session_id
            ]
            assert "interview.ended" in kinds and "recording.ready" in kinds, kinds
    finally:
        await receiver.close()


async def test_a_server_without_interviews_ends_by_the_first_sigterm(tmp_path: Path) -> None:
    async with running_server(tmp_path, INTERVIEW_DRAIN_SECONDS="600") as server:
        server.process.send_signal(signal.SIGTERM)
        assert await ended(server, within=10) == 0, server.tail()


# -- over HTTP and from the terminal


async def command(url: str, *arguments: str) -> Result:
    runner = CliRunner(env={"INTERVIEW_ADMIN_KEY": KEY})
    whole = ["drain", *arguments, "--server", url]
    return await asyncio.to_thread(lambda: runner.invoke(main, whole))


async def test_draining_over_http_leaves_the_process_unless_it_is_asked_to_end(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        operator = Operator(caller)
        told = (await operator.ask("GET", PATH)).json()
        assert told == {
            "state": "serving", "interviews": 0, "since": None, "until": None, "exit": False
        }  # fmt: skip
        stranger = Operator(caller, key=None)
        for method in ("GET", "POST"):
            assert (await stranger.ask(method, PATH)).status == 401
        assert server.drain.state is State.SERVING
        assert (await operator.ask("POST", PATH)).status == 202
        await drained(operator)
        assert not server.drain.over.is_set()
        await unready(server.url, "DRAINING")
        # Later on it may still be told to end.
        assert (await operator.ask("POST", PATH, json={"exit": True})).json()["exit"] is True
        assert server.drain.over.is_set()


async def test_a_signal_in_the_middle_of_an_end_that_was_asked_for_begins_no_other(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        server.drain.begin(exit_after=True)
        await server.drain.over.wait()
        await server.drain.close()
        server.drain.signalled()
        assert server.drain.state is State.DRAINED


async def test_a_signal_keeps_to_the_settings_time_whatever_was_asked_for_before(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, drain_seconds=60) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        operator = Operator(caller)
        stop = StopRequest()
        stop.serves(server.drain)

        async def left(seconds: float) -> float:
            await operator.ask("POST", PATH, json={"seconds": seconds})
            assert stop.gently()
            told = (await operator.ask("GET", PATH)).json()
            assert (told["interviews"], told["exit"]) == (1, True)
            return (datetime.fromisoformat(told["until"]) - datetime.now(UTC)).total_seconds()

        assert 30 < await left(7200) <= 61
        # Less than that stays less.
        assert await left(30) <= 31
        stop.gently()
        await operator.ask("POST", PATH, json={"seconds": 0})
        assert (await caller.message("session_ended", within=30))["reason"] == "server_shutdown"


async def test_goodbyes_are_cut_short_once_no_time_is_left_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parting = asyncio.Event()

    async def long_goodbye(self: Control, seconds: float, **words: str) -> None:
        parting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Control, "part", long_goodbye)
    monkeypatch.setattr(drain, "POLITE_SECONDS", 600.0)
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        operator = Operator(caller)
        await operator.ask("POST", PATH, json={"seconds": 0.01})
        async with asyncio.timeout(10):
            await parting.wait()
        # More time makes no goodbye shorter.
        await operator.ask("POST", PATH, json={"seconds": 60})
        assert (await operator.ask("GET", PATH)).json()["interviews"] == 1
        await operator.ask("POST", PATH, json={"seconds": 0})
        assert (await caller.message("session_ended", within=20))["reason"] == "server_shutdown"
        await drained(operator)


async def test_no_session_is_made_while_the_server_is_emptied(
    shared: tuple[Server, Caller],
) -> None:
    server, caller = shared
    await Operator(caller).ask("POST", PATH)
    # Not even one that would be refused once it offers.
    await caller.open_bare()
    assert (await caller.message("error"))["code"] == "DRAINING"
    assert len(server.interviews) == 0


async def drained(operator: Operator) -> None:
    async def state() -> str:
        return str((await operator.ask("GET", PATH)).json()["state"])

    await eventually(state, within=20, what="an empty server", good=lambda s: s == "drained")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"seconds": -1}, "seconds"),
        ({"seconds": "5"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": 86_401}, "seconds"),
        ({"exit": 1}, "exit"),
        ({"now": True}, "body"),
    ],
)
async def test_a_wrong_request_drains_nothing(
    shared: tuple[Server, Caller], body: Json, field: str
) -> None:
    server, caller = shared
    reply = await Operator(caller).ask("POST", PATH, json=body)
    assert (reply.status, reply.json()["error"]["field"]) == (422, field)
    assert server.drain.state is State.SERVING


@pytest.fixture
async def shared(tmp_path: Path) -> Any:
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        yield server, caller


async def test_the_command_waits_until_no_interview_runs(
    shared: tuple[Server, Caller],
) -> None:
    server, caller = shared
    await caller.open()
    await caller.connect()
    asked = asyncio.create_task(command(server.url, "--wait", "--seconds", "600", "--json"))
    await unready(server.url, "DRAINING")
    assert not asked.done()
    await caller.send({"type": "end_session"})
    done = await asked
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["state"] for line in (lines[0], lines[-1])] == ["draining", "drained"]
    assert [line["interviews"] for line in (lines[0], lines[-1])] == [1, 0]


async def test_the_command_without_waiting_says_how_many_still_run(
    shared: tuple[Server, Caller],
) -> None:
    server, caller = shared
    await caller.open()
    await caller.connect()
    done = await command(server.url)
    assert (done.exit_code, done.stdout) == (0, "draining: 1 still running\n")
