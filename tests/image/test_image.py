"""The image does what the Dockerfile promises: built for real, run for real, without an engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.image.builder import Builder, Image
from tests.image.cell import Cell
from tests.operations.stopping import ended
from tests.support.caller import calling
from tests.support.server import ServerProcess, clean_environment, running
from tests.support.waiting import eventually

# Building takes two minutes the first time.
pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

ACCOUNT = 10001
STOPS_WITHIN = 5.0
OWN_MEGABYTES = 340
"""What we add to the base may weigh; most of it are FFmpeg's libraries, numpy and obstore."""


@pytest.fixture(scope="module")
def builder() -> Builder:
    return Builder()


@pytest.fixture(scope="module")
def image(builder: Builder) -> Iterator[Image]:
    with builder.unpacked(builder.build("server")) as unpacked:
        yield unpacked


@pytest.fixture(scope="module")
def fly_image(builder: Builder) -> Iterator[Image]:
    with builder.unpacked(builder.build("fly")) as unpacked:
        yield unpacked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as an engine makes it for a volume of the default image: the account's."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, ACCOUNT, ACCOUNT)
    return folder


def cell(image: Image, data: Path, command: list[str], **settings: str) -> list[str]:
    """The command line that runs a command in an image."""
    user, group = image.user
    specification: Cell = {
        "root": str(image.root),
        "data": str(data),
        "environment": {**image.environment, **settings},
        "directory": image.config["WorkingDir"],
        "user": user,
        "group": group,
        "command": command,
    }
    script = Path(__file__).with_name("cell.py")
    return [sys.executable, str(script), json.dumps(specification)]


def run(
    image: Image, data: Path, *command: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in an image until it ends."""
    line = cell(image, data, list(command), **settings)
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


SIMULATION = {
    "SIMULATION_MODE": "true",
    "INTERVIEW_UDP_HOST": "127.0.0.1",
    "INTERVIEW_UDP_PORT": "0",
}


@contextlib.asynccontextmanager
async def serving(image: Image, data: Path, port: str) -> AsyncIterator[ServerProcess]:
    """The image as it starts by itself; on leaving, SIGTERM must end it with exit code 0."""
    line = cell(image, data, image.command, **SIMULATION, PORT=port)
    async with running(line, data.parent / "empty", clean_environment(), data) as server:
        server.url = f"http://127.0.0.1:{port}"
        yield server


def inner(server: ServerProcess) -> dict[str, list[str]]:
    """What the kernel knows of the server's own process: the only child of its cell."""
    pid = server.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def owners(folder: Path) -> dict[str, int]:
    """Who owns what lies below a folder."""
    return {str(file.relative_to(folder)): file.stat().st_uid for file in folder.rglob("*")}


async def interview(server: ServerProcess) -> str:
    """Hold a short interview through the image; its session's id."""
    async with calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound()
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        return caller.session_id


async def test_an_unprivileged_server_holds_interviews_on_files_that_nobody_can_write(
    image: Image, data: Path
) -> None:
    port = free_port()
    async with serving(image, data, port) as server:
        status = inner(server)
        assert status["Uid"] == [str(ACCOUNT)] * 4
        assert status["NSpid"][-1] == "1"
        assert {status[name][0] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
        session_id = await interview(server)
        check = image.config["Healthcheck"]["Test"][1:]
        assert run(image, data, *check, PORT=port).returncode == 0

        async def manifest() -> bool:
            return (server.folder(session_id) / "manifest.json").exists()

        await eventually(manifest, within=20, what="the finished recording")
        asked_at = time.monotonic()
    assert time.monotonic() - asked_at < STOPS_WITHIN
    kept = owners(data)
    assert f"interviews/{session_id}/candidate.ogg" in kept
    assert set(kept.values()) == {ACCOUNT}


async def test_a_second_sigterm_ends_the_first_process_of_the_container_at_once(
    image: Image, data: Path
) -> None:
    async with serving(image, data, free_port()) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        server.process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await caller.get("/readyz")).status == 503

        await eventually(draining, within=10, what="a server that is being emptied")
        server.process.send_signal(signal.SIGTERM)
        # Its cell ends as it did.
        assert await ended(server, within=STOPS_WITHIN) == 128 + signal.SIGTERM
    assert "Stopped at once." in server.tail()


def test_the_health_check_tells_of_a_server_that_is_gone(image: Image, data: Path) -> None:
    check = image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    done = run(image, data, *check[1:], PORT=free_port())
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_a_data_folder_of_somebody_else_ends_the_start_with_one_sentence(
    image: Image, tmp_path: Path
) -> None:
    folder = tmp_path / "roots"
    folder.mkdir(mode=0o700)
    done = run(image, folder, *image.command, **SIMULATION, PORT="0")
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("INTERVIEW_DATA_DIR /data cannot be written to: ")


async def test_on_fly_a_volume_of_roots_is_handed_over_and_root_given_up(
    fly_image: Image, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    (volume / "interviews").mkdir()
    async with serving(fly_image, volume, free_port()) as server:
        status = inner(server)
        assert status["Uid"] == status["Gid"] == [str(ACCOUNT)] * 4
        assert status["Groups"] == []
        assert {status[name][0] for name in ("CapEff", "CapPrm", "CapInh")} == {"0" * 16}
        await interview(server)
    kept = owners(volume)
    assert kept.pop("lost+found") == 0
    assert {volume.stat().st_uid, *kept.values()} == {ACCOUNT}


def test_nothing_that_builds_is_left_inside(image: Image, data: Path) -> None:
    tools = ("cc", "gcc", "g++", "c++", "ld", "as", "make")
    places = image.environment["PATH"].split(":")
    found = [
        name for name in tools for place in places if (image.root / f".{place}/{name}").exists()
    ]
    assert found == []
    installed = image.root / "opt/interview-peer"
    assert not list(installed.glob("lib/python3*/site-packages/pip*"))
    assert not list(installed.glob("lib/python3*/site-packages/hatchling*"))
    assert list(installed.glob("lib/python3*/site-packages/interview_peer/static/index.html"))
    script = "from interview_peer.media import native; raise SystemExit(native.missing)"
    done = run(image, data, "python", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_but_root_could_change_the_program(image: Image) -> None:
    installed = image.root / "opt/interview-peer"
    assert {file.lstat().st_uid for file in installed.rglob("*")} == {0}
    assert not [
        file for file in installed.rglob("*") if file.is_file() and file.stat().st_mode & 0o6022
    ]


def test_both_images_say_how_they_are_run(image: Image, fly_image: Image) -> None:
    assert image.user == (ACCOUNT, ACCOUNT)
    assert fly_image.user == (0, 0)
    for one in (image, fly_image):
        assert one.config["StopSignal"] == "SIGTERM"
        assert set(one.config["ExposedPorts"]) == {"8080/tcp", "8081/udp"}
        # No shell in between, which would keep the signal to itself.
        assert "/bin/sh" not in one.command


def test_what_we_add_to_the_base_stays_within_its_weight(builder: Builder, image: Image) -> None:
    base = builder.base_size()
    assert image.size - base < OWN_MEGABYTES * 1e6, f"{(image.size - base) / 1e6:.0f} MB"
