"""Each row of the doctor's, driven to pass and to fail by what it looks at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from interview_peer.core.turn import read_servers
from interview_peer.doctor import kept, machine, network, relays, service
from interview_peer.doctor.examine import CHECKS, examine
from interview_peer.doctor.report import Check, Row, Status, run_all
from interview_peer.settings import Settings
from interview_peer.state import migrate
from interview_peer.state.database import FILE, Database
from interview_peer.state.look import Receiver as Endpoint
from tests.notices.receiver import Receiver, status
from tests.recording_api.s3 import network as bucket_network
from tests.recording_api.s3 import s3_server
from tests.support.coturn import relaying
from tests.support.inprocess import live, serving

SECRET = "a-secret-of-the-relays-0123"
WEBHOOK_SECRET = "whsec_" + "A" * 32
HOST = "127.0.0.1"


def settings(tmp_path: Path, **given: Any) -> Settings:
    chosen: dict[str, Any] = {"simulation": True, "data_dir": tmp_path, "udp_host": HOST}
    return Settings(**{**chosen, "udp_port": 0, "min_free_mb": 0, **given})


def statuses(rows: list[Row]) -> list[Status]:
    return [row.status for row in rows]


def free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


# -- the whole ----------------------------------------------------------------------------------


async def test_every_check_has_a_row_and_a_fresh_simulation_has_nothing_to_mend(
    tmp_path: Path,
) -> None:
    rows = await examine(settings(tmp_path))
    assert list(dict.fromkeys(row.check for row in rows)) == list(CHECKS)
    assert [row for row in rows if row.status is Status.FAIL] == []
    # What was written to try the disk is gone, and no database was made.
    assert os.listdir(tmp_path) == []


async def test_a_check_that_hangs_or_breaks_is_a_row_and_holds_up_no_other() -> None:
    async def hang() -> list[Row]:
        await asyncio.Event().wait()
        return []

    async def break_() -> list[Row]:
        raise RuntimeError("postgresql://user:secret@host")

    async def work() -> list[Row]:
        return [Row("c", Status.PASS, "Well.")]

    rows = await run_all([Check("a", hang, 0.05), Check("b", break_), Check("c", work)])
    assert [(row.check, row.status.value) for row in rows] == [
        ("a", "fail"),
        ("b", "fail"),
        ("c", "pass"),
    ]
    assert "secret" not in str(rows)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, Status.PASS),
        ({**live("http://127.0.0.1:9")}, Status.WARN),
    ],
)
async def test_settings_that_leave_a_door_open_are_warned_of(
    tmp_path: Path, given: dict[str, Any], status: Status
) -> None:
    rows = await examine(settings(tmp_path, **given))
    assert {row.status for row in rows if row.check == "settings"} == {status}


async def test_a_persona_that_cannot_be_used_fails_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    folder.mkdir()
    (folder / "bad.toml").write_text("title = 1")
    rows = await examine(settings(tmp_path, personas_dir=folder))
    assert rows[0].status is Status.FAIL
    assert "bad" in rows[0].finding


# -- key, model, clock --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def voice_service(code: int, body: str, date: str | None = None) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        headers = {} if date is None else {"Date": date}
        return web.Response(status=code, text=body, headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("code", "body", "status"),
    [
        (200, "{}", Status.PASS),
        (200, '{"shutdown_date": "2999-01-20"}', Status.WARN),
        (200, '{"shutdown_date": "2020-01-20"}', Status.FAIL),
        (404, "{}", Status.FAIL),
        (401, "{}", Status.FAIL),
        (500, "{}", Status.FAIL),
    ],
)
async def test_a_model_passes_unless_it_ends_or_the_key_does_not_open_it(
    tmp_path: Path, code: int, body: str, status: Status
) -> None:
    async with voice_service(code, body) as url:
        rows = await service.models(settings(tmp_path, **live(url, openai_model="some-model")))
    assert set(statuses(rows)) == {status}
    assert any("some-model" in row.finding for row in rows)
    if "shutdown" in body:
        assert "-01-20" in rows[0].finding


@pytest.mark.parametrize(
    ("date", "ahead", "expected"),
    [
        (None, None, [Status.PASS]),
        ("Fri, 20 Nov 2020 00:00:00 GMT", None, [Status.FAIL]),
        ("some day", 2.0, [Status.PASS]),
        ("some day", -20.0, [Status.WARN]),
        ("some day", 90.0, [Status.FAIL]),
        ("some day", None, [Status.WARN]),
    ],
)
async def test_the_clock_is_compared_with_the_service_and_the_database(
    tmp_path: Path, date: str | None, ahead: float | None, expected: list[Status]
) -> None:
    async def by_database() -> float | None:
        return ahead

    async with voice_service(401, "{}", date) as url:
        rows = await service.clock(settings(tmp_path, **live(url)), by_database)
    assert statuses(rows) == expected


# -- UDP and relays -----------------------------------------------------------------------------


async def test_a_free_port_that_is_reached_passes(tmp_path: Path) -> None:
    rows = await network.udp(settings(tmp_path, udp_port=free_port()))
    assert statuses(rows) == [Status.PASS]


async def test_a_port_of_a_running_server_passes_and_anothers_fails(tmp_path: Path) -> None:
    async with serving(tmp_path / "running") as server:
        port = server.browser_port.address[1]
        own = await network.udp(settings(tmp_path, udp_port=port, port=server.port))
        assert statuses(own) == [Status.PASS]
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((HOST, 0))
        port = other.getsockname()[1]
        taken = await network.udp(settings(tmp_path, udp_port=port, port=9))
    assert statuses(taken) == [Status.FAIL]
    assert str(port) in taken[0].finding


async def test_an_announced_address_that_does_not_lead_here_fails_or_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ARRIVE_SECONDS", 0.2)
    # Another address of this very machine, which the port does not bind.
    own = settings(tmp_path, udp_port=free_port(), public_ips=("127.0.0.2",))
    monkeypatch.setattr(network, "address_towards", lambda address: address)
    assert statuses(await network.udp(own)) == [Status.FAIL]
    monkeypatch.setattr(network, "address_towards", lambda address: HOST)
    assert statuses(await network.udp(own)) == [Status.WARN]
    gone = settings(tmp_path, udp_port=0, public_ips=("nowhere.invalid",))
    assert statuses(await network.udp(gone)) == [Status.FAIL]


async def test_relays_are_asked_for_a_relay_over_udp_and_tcp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no silent relay.
    monkeypatch.setattr(relays, "ANSWER_SECONDS", 15.0)
    monkeypatch.setattr(network, "ARRIVE_SECONDS", 5.0)
    async with relaying(tmp_path / "coturn", SECRET, HOST) as relay:
        port = free_port()
        servers = read_servers(f"{relay.udp},{relay.tcp},stun:{HOST}:{relay.port},{relay.tls}")
        good = settings(
            tmp_path, ice_servers=servers, turn_secret=SECRET, public_ips=(HOST,), udp_port=port
        )
        rows = await network.relays(good)
        # Nobody vouches for its certificate.
        assert statuses(rows) == [Status.PASS] * 3 + [Status.FAIL]
        assert "certificate" in rows[3].finding

        # The relay really sends to the port that is announced.
        (reached,) = await network.udp(good)
        assert reached.status is Status.PASS
        assert relay.udp in reached.finding

        wrong = good.model_copy(
            update={"turn_secret": settings(tmp_path, turn_secret="x" * 20).turn_secret}
        )
        refused = await network.relays(wrong)
        assert [("401" in row.finding, row.status) for row in refused[:2]] == [
            (True, Status.FAIL)
        ] * 2
        assert SECRET not in str(refused)

        elsewhere = good.model_copy(update={"public_ips": ("198.51.100.7",)})
        (denied, *_) = await network.relays(elsewhere)
        assert denied.status is Status.FAIL
        assert "allowed-peer-ip" in (denied.cure or "")


async def test_a_relay_that_is_not_there_fails(tmp_path: Path) -> None:
    servers = read_servers(
        f"turn:{HOST}:9?transport=tcp,turn:nowhere.invalid,turns:{HOST}?transport=udp"
    )
    rows = await network.relays(settings(tmp_path, ice_servers=servers, turn_secret=SECRET))
    assert statuses(rows) == [Status.FAIL, Status.FAIL, Status.WARN]


async def test_of_a_name_with_several_addresses_one_that_answers_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relaying(tmp_path / "coturn", SECRET, HOST) as relay:
        kind = socket.SOCK_DGRAM
        dead = (socket.AF_INET, kind, 17, "", (HOST, 9))
        well = (socket.AF_INET, kind, 17, "", (HOST, relay.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [dead, well])
        asked = relays.relays_of(read_servers("turn:two.example.org"), SECRET, time.time())
        tried = await relays.try_relay(asked[0])
    assert tried.verdict is relays.Verdict.WELL


# -- disk, database, store ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (machine.Disk(50_000_000_000, 400.0, 2.0), Status.PASS),
        (machine.Disk(50_000_000_000, 2.0, 2.0), Status.WARN),
        (machine.Disk(50_000_000_000, 400.0, 300.0), Status.WARN),
        (machine.Disk(1_500_000_000, 400.0, 2.0), Status.WARN),
        (machine.Disk(900_000_000, None, 2.0), Status.FAIL),
    ],
)
def test_a_disk_passes_with_room_and_speed(found: machine.Disk, status: Status) -> None:
    assert machine.judged(found, 1_000_000_000).status is status


async def test_a_data_folder_is_measured_and_an_unusable_one_fails(tmp_path: Path) -> None:
    found = machine.measured(tmp_path / "not" / "yet", 0)
    assert found.free > 0
    assert found.speed is not None
    assert found.speed > 0
    assert not (tmp_path / "not").exists()
    rows = await machine.disk(settings(Path("/proc/nothing")))
    assert statuses(rows) == [Status.FAIL]


async def test_a_sqlite_file_passes_and_a_newer_or_damaged_one_fails(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    assert (await kept.DatabaseLook(mine).row()).status is Status.PASS
    database = await Database.open(None, tmp_path)
    await migrate.upgrade(database)
    # While the server has it open.
    look = kept.DatabaseLook(mine)
    assert (await look.row()).status is Status.PASS
    assert look.found is not None
    assert look.found.is_current
    await database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    newer = await kept.DatabaseLook(mine).row()
    assert newer.status is Status.FAIL
    assert "newer" in newer.finding
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    assert (await kept.DatabaseLook(mine).row()).status is Status.FAIL


async def test_postgresql_passes_when_migrated_warns_before_and_fails_when_away(
    tmp_path: Path, postgres_url: str
) -> None:
    mine = settings(tmp_path, database_url=postgres_url)
    before = await kept.DatabaseLook(mine).row()
    assert (before.status, before.cure) == (Status.WARN, "Run interview-peer migrate.")
    database = await Database.open(postgres_url, tmp_path)
    await migrate.upgrade(database)
    await database.close()
    look = kept.DatabaseLook(mine)
    assert (await look.row()).status is Status.PASS
    assert look.found is not None
    assert look.found.ahead is not None
    assert abs(look.found.ahead) < 5
    refused = settings(tmp_path, database_url=postgres_url.rpartition("/")[0] + "/not_there")
    assert (await kept.DatabaseLook(refused).row()).status is Status.FAIL


async def test_a_database_that_does_not_answer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interview_peer.state.look.PATIENCE_SECONDS", 0.2)
    mine = settings(tmp_path, database_url=f"postgresql://user:hidden-word@{HOST}:9/name")
    row = await kept.DatabaseLook(mine).row()
    assert row.status is Status.FAIL
    assert "hidden-word" not in str(row)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


async def test_a_store_that_takes_gives_and_deletes_passes_and_is_left_as_it_was(
    tmp_path: Path, s3: str
) -> None:
    async with bucket_network(s3) as bucket:
        keys = {"s3_endpoint": bucket.url, "s3_access_key": "test", "s3_secret_key": "hidden-1"}
        good = settings(tmp_path, recordings_url=f"s3://{bucket.bucket}/kept", **keys)
        assert statuses(await kept.store(good)) == [Status.PASS]
        assert await bucket.store().under() == []
        gone = settings(tmp_path, recordings_url="s3://no-such-bucket/kept", **keys)
        (row,) = await kept.store(gone)
    assert row.status is Status.FAIL
    assert "hidden-1" not in str(row)


# -- receivers ----------------------------------------------------------------------------------


async def test_receivers_are_connected_to_and_sent_nothing_unless_asked(tmp_path: Path) -> None:
    receiver = await Receiver().start()
    mine = settings(
        tmp_path,
        webhook_allow=("127.0.0.0/8",),
        webhook_url=f"{receiver.url}?token=hidden-2",
        webhook_secret=WEBHOOK_SECRET,
    )
    kept_one = Endpoint("ep_1", receiver.url, ({"secret": WEBHOOK_SECRET},))
    try:
        rows = await network.webhooks(mine, (kept_one,), send_test=False)
        assert statuses(rows) == [Status.PASS, Status.PASS]
        assert receiver.got == []
        assert "hidden-2" not in str(rows)
        sent = await network.webhooks(mine, (kept_one,), send_test=True)
        assert statuses(sent) == [Status.PASS, Status.PASS]
        assert [got.notice["type"] for got in receiver.got] == ["webhook.test"] * 2
        receiver.answer = status(500)
        refused = await network.webhooks(mine, (), send_test=True)
        assert statuses(refused) == [Status.FAIL]
    finally:
        await receiver.close()
    assert statuses(await network.webhooks(mine, (), send_test=False)) == [Status.FAIL]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://nowhere.invalid/hook",
        "https://no..name/hook",
        "https://10.0.0.1:8443/",
    ],
)
async def test_a_receiver_that_may_not_or_cannot_be_reached_fails(tmp_path: Path, url: str) -> None:
    (row,) = await network.webhooks(
        settings(tmp_path), (Endpoint("ep_1", url, ()),), send_test=False
    )
    assert row.status is Status.FAIL
