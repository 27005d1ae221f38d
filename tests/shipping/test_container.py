"""What runs beside the server in its image: the health check, and the way in as root."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from interview_peer.container import health
from tests.support.machine import lacking
from tests.support.server import ROOT, clean_environment

USER = 12345
GROUP = 23456


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers ``/health`` with the status that the server was given."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Of an HTTP server that answers as ``Answering.status`` says."""
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_a_server_that_answers_is_healthy(port: int, host: str) -> None:
    assert health.problem({"INTERVIEW_HOST": host, "PORT": str(port)}) is None


def test_a_server_that_answers_with_an_error_is_not(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", 500)
    assert health.problem({"PORT": str(port)}) == "The server answers with 500."


def test_without_a_server_the_check_ends_with_one_and_a_sentence() -> None:
    # Nothing of ours listens on the port for tcpmux.
    done = subprocess.run(
        [sys.executable, "-m", "interview_peer.container.health"],
        env=clean_environment(PORT="1", INTERVIEW_HOST="0.0.0.0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The server does not answer on port 1: ")


def test_a_port_chosen_at_the_start_cannot_be_asked() -> None:
    assert health.problem({"PORT": "0"}) == (
        "PORT is 0: without a fixed port there is nowhere to ask."
    )


def test_the_check_loads_no_library() -> None:
    script = (
        "import sys, interview_peer.container.health\n"
        "print(sorted({'pydantic', 'aiohttp', 'numpy', 'interview_peer.settings'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def enter(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "interview_peer.container.enter", *map(str, arguments)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume of root's, with a file, a folder, and a link that leads out of it."""
    if os.geteuid() != 0:
        lacking("only root can give files away")
    folder = tmp_path / "volume"
    (folder / "interviews" / "one").mkdir(parents=True)
    (folder / "interviews" / "one" / "events.jsonl").touch()
    (folder / "lost+found").mkdir()
    (tmp_path / "outside").touch()
    (folder / "link").symlink_to(tmp_path / "outside")
    return folder


def account(file: Path) -> tuple[int, int]:
    told = file.lstat()
    return told.st_uid, told.st_gid


def test_root_hands_the_volume_over_and_becomes_the_account(volume: Path) -> None:
    done = enter(f"{USER}:{GROUP}", volume, "/bin/sh", "-c", "id -u; id -G; cat /proc/self/status")
    assert done.returncode == 0, done.stderr
    user, groups, *status = done.stdout.splitlines()
    assert (user, groups) == (str(USER), str(GROUP))
    assert "CapEff:\t0000000000000000" in status
    given = [volume, *(file for file in volume.rglob("*") if file.name != "lost+found")]
    assert {account(file) for file in given} == {(USER, GROUP)}
    assert volume.stat().st_mode & 0o777 == 0o700


def test_what_a_link_leads_to_and_lost_and_found_stay_as_they_are(volume: Path) -> None:
    assert enter(f"{USER}:{GROUP}", volume, "/bin/true").returncode == 0
    assert account(volume.parent / "outside") == (0, 0)
    assert account(volume / "lost+found") == (0, 0)


def test_a_volume_that_is_the_accounts_is_not_searched_again(volume: Path) -> None:
    os.chown(volume, USER, GROUP)
    assert enter(f"{USER}:{GROUP}", volume, "/bin/true").returncode == 0
    assert account(volume / "interviews") == (0, 0)


def test_a_hand_over_that_was_cut_short_is_done_again(volume: Path) -> None:
    os.chown(volume / "interviews", USER, GROUP)
    assert enter(f"{USER}:{GROUP}", volume, "/bin/true").returncode == 0
    assert account(volume / "interviews" / "one" / "events.jsonl") == (USER, GROUP)


@pytest.mark.parametrize(
    "arguments", [(), ("1:1",), ("0:0", "/data", "true"), ("me:us", "/data", "true")]
)
def test_no_account_or_roots_is_refused(arguments: tuple[str, ...]) -> None:
    done = enter(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: enter UID:GID FOLDER COMMAND")


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = enter(f"{USER}:{GROUP}", tmp_path / "volume", "/no/such/command")
    assert done.returncode == 1
    assert done.stderr.startswith("/no/such/command: ")
