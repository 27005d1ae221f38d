"""Real processes: what keeps a server from starting, and when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from interview_peer.state.database import FILE
from tests.support.server import COMMAND, READY, clean_environment, running_server

START = [*COMMAND, "serve", "--simulation", "--port", "0"]


async def refused(folder: Path, *arguments: str, **settings: str) -> tuple[int | None, str]:
    """Exit code and stderr of a server that does not start."""
    process = await asyncio.create_subprocess_exec(
        *START,
        *arguments,
        cwd=folder,
        env=clean_environment(INTERVIEW_UDP_HOST="127.0.0.1", **settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(50):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        pytest.fail(f"it started: {out.decode()}{err.decode()}")
    assert out == b""
    return process.returncode, err.decode()


async def test_a_udp_port_in_use_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path / "first") as first:
        # The ready line stands on another stream than the log.
        async with asyncio.timeout(10):
            while not (found := re.search(r" udp=127\.0\.0\.1:(\d+) ", first.tail())):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        port = found.group(1)
        # Without the native forwarder a line says so before.
        code, said = await refused(tmp_path, INTERVIEW_UDP_PORT=port, LOG_LEVEL="warning")
        assert (code, said) == (
            2,
            f"UDP port {port} on 127.0.0.1 is already in use; stop what uses it, "
            "or set INTERVIEW_UDP_PORT to another.\n",
        )


async def test_a_web_port_in_use_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = await refused(
            tmp_path, "--port", str(port), INTERVIEW_UDP_PORT="0", LOG_LEVEL="error"
        )
    assert (code, said) == (
        2,
        f"PORT {port} on 127.0.0.1 is already in use; stop what uses it or choose another.\n",
    )


async def test_a_missing_secret_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path,
) -> None:
    code, said = await refused(tmp_path, "--no-simulation")
    assert code == 2
    assert re.fullmatch(r"OPENAI_API_KEY must be set [^\n]+\.\n", said), said


async def test_an_unreachable_relay_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path,
) -> None:
    code, said = await refused(
        tmp_path,
        "--no-simulation",
        OPENAI_API_KEY="sk-1",
        INTERVIEW_ALLOW_ANONYMOUS="true",
        INTERVIEW_UDP_PORT="0",
        INTERVIEW_ICE_SERVERS="turn:127.0.0.1:9?transport=tcp",
        INTERVIEW_TURN_SECRET="a-secret-of-the-relays",
        LOG_LEVEL="error",
    )
    assert code == 2, said
    assert re.fullmatch(
        r"INTERVIEW_ICE_SERVERS names turn:[^\n]+ leave the server out[^\n]+\.\n", said
    )


async def test_a_newer_database_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / FILE)) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
        database.commit()
    code, said = await refused(tmp_path, INTERVIEW_UDP_PORT="0", LOG_LEVEL="error")
    assert code == 2, said
    assert re.fullmatch(r"The database \([^\n]+ INTERVIEW_DATA_DIR\) [^\n]+\.\n", said), said


@pytest.mark.parametrize("place", ["/proc/foo", "file/data", "/dev/null/x"])
async def test_an_unusable_data_folder_is_one_sentence_with_the_setting_and_exit_code_2(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    code, said = await refused(tmp_path, "--data-dir", place, INTERVIEW_UDP_PORT="0")
    assert code == 2, said
    assert re.fullmatch(r"INTERVIEW_DATA_DIR [^\n]+\.\n", said), said


def children_of(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
async def test_a_reloading_server_ends_with_its_supervisor_however_that_ends(
    tmp_path: Path, number: signal.Signals
) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        *START,
        "--reload",
        cwd=tmp_path,
        env=clean_environment(INTERVIEW_UDP_HOST="127.0.0.1", INTERVIEW_UDP_PORT="0"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert supervisor.stdout is not None
    children: list[int] = []
    try:
        async with asyncio.timeout(30):
            ready = READY.match((await supervisor.stdout.readline()).decode())
            assert ready is not None
            children += children_of(supervisor.pid)
            async with aiohttp.ClientSession() as http:
                async with http.get(f"{ready.group(1)}/health") as reply:
                    assert reply.status == 200
            supervisor.send_signal(number)
            # The child holds the same stdout: it ends when both are gone.
            assert await supervisor.stdout.read() == b""
            # Not after a kill: that could take the exit code from whoever waits for it.
            code = await supervisor.wait()
    finally:
        if supervisor.returncode is None:
            supervisor.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
