"""The command line: what starts, what is said when it cannot, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

import interview_peer
from interview_peer import reload
from interview_peer.cli import main
from interview_peer.errors import ConfigurationError, StartFailed, StateUnavailable
from interview_peer.settings import Settings
from interview_peer.signals import STOPS
from interview_peer.state.migrate import NEWEST
from interview_peer.web.pages import static_dir

Serve = Callable[[Settings], Awaitable[None]]


pytestmark = pytest.mark.usefixtures("clean_surroundings")


@pytest.fixture
def serve_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Serve], None]:
    """Puts a stand-in in the place of the server."""

    def put(serve: Serve) -> None:
        app = ModuleType("interview_peer.app")
        app.__dict__["serve"] = lambda settings, stop: serve(settings)
        monkeypatch.setitem(sys.modules, "interview_peer.app", app)
        monkeypatch.setattr(interview_peer, "app", app, raising=False)

    return put


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """A command that was asked to end keeps its handlers: its process ends then, ours goes on."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def test_version_is_the_packages() -> None:
    assert run("--version").output == f"interview-peer, version {interview_peer.__version__}\n"


@pytest.mark.parametrize("command", [["serve"], []], ids=["serve", "no command"])
def test_flags_reach_the_server(
    serve_is: Callable[[Serve], None], tmp_path: Path, command: list[str]
) -> None:
    seen: list[Settings] = []

    async def serve(settings: Settings) -> None:
        seen.append(settings)

    serve_is(serve)
    result = run(
        *command, "--host", "0.0.0.0", "--port", "0", "--simulation", "--data-dir", "there"
    )
    assert (result.exit_code, result.output) == (0, "")
    (settings,) = seen
    assert (settings.host, settings.port, settings.simulation) == ("0.0.0.0", 0, True)
    assert settings.data_dir == tmp_path / "there"


def test_no_command_and_no_flag_serves_from_the_environment(
    serve_is: Callable[[Serve], None],
) -> None:
    ports: list[int] = []

    async def serve(settings: Settings) -> None:
        ports.append(settings.port)

    serve_is(serve)
    assert run(env={"SIMULATION_MODE": "true", "PORT": "1234"}).exit_code == 0
    assert ports == [1234]


@pytest.mark.parametrize(
    ("flags", "said", "simulates"),
    [
        (["--prefer-simulation"], None, True),
        (["--prefer-simulation"], "false", False),
        (["--no-simulation"], "true", False),
        (["--simulation"], "false", True),
        ([], None, False),
    ],
)
def test_simulation_is_decided_by_flag_then_environment_then_preference(
    serve_is: Callable[[Serve], None], flags: list[str], said: str | None, simulates: bool
) -> None:
    seen: list[bool] = []

    async def serve(settings: Settings) -> None:
        seen.append(settings.simulation)

    serve_is(serve)
    env = {"OPENAI_API_KEY": "sk-1", "INTERVIEW_ALLOW_ANONYMOUS": "true"} | (
        {"SIMULATION_MODE": said} if said else {}
    )
    assert run("serve", *flags, env=env).exit_code == 0
    assert seen == [simulates]


def test_wrong_setting_is_one_sentence_on_stderr_and_exit_code_2() -> None:
    result = run("serve", "--simulation", env={"INTERVIEW_UDP_PORT": "many"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("INTERVIEW_UDP_PORT must be a whole number")
    assert result.stderr.count("\n") == 1


def test_live_without_a_key_exits_2() -> None:
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr.startswith("OPENAI_API_KEY must be set")


def test_unknown_flag_exits_2() -> None:
    result = run("--nonsense")
    assert result.exit_code == 2
    assert "--nonsense" in result.stderr


def start_problem(number: int, text: str = "", filename: str | None = None) -> OSError:
    return OSError(number, text or os.strerror(number), filename)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            start_problem(errno.EADDRINUSE, "error while attempting to bind on address"),
            2,
            "PORT 8080 on 127.0.0.1 is already in use; stop what uses it or choose another.",
        ),
        (
            start_problem(errno.EADDRNOTAVAIL, "error while attempting to bind on address"),
            2,
            "INTERVIEW_HOST 127.0.0.1 is not an address of this machine.",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "could not bind: Name or service not known"),
            2,
            "INTERVIEW_HOST 127.0.0.1 is not an address of this machine.",
        ),
        (
            start_problem(errno.EACCES, filename="/data/interviews"),
            2,
            "/data/interviews cannot be written: Permission denied.",
        ),
        (
            ExceptionGroup("start", [ConfigurationError("INTERVIEW_X must be y.")]),
            2,
            "INTERVIEW_X must be y.",
        ),
        (ExceptionGroup("start", [StartFailed("Port 1 is taken.")]), 2, "Port 1 is taken."),
    ],
)
def test_start_that_fails_of_its_surroundings_is_one_sentence(
    serve_is: Callable[[Serve], None], error: Exception, code: int, sentence: str
) -> None:
    async def serve(settings: Settings) -> None:
        raise error

    serve_is(serve)
    result = run("serve", "--simulation")
    assert (result.exit_code, result.stderr) == (code, f"{sentence}\n")


def test_defect_is_logged_without_secrets_and_exits_1(
    serve_is: Callable[[Serve], None], capfd: pytest.CaptureFixture[str]
) -> None:
    async def serve(settings: Settings) -> None:
        raise RuntimeError("refused operator-0123")

    serve_is(serve)
    keys = {"OPENAI_API_KEY": "k-1", "INTERVIEW_ADMIN_KEY": "operator-0123"}
    result = run("serve", env={**keys, "INTERVIEW_ALLOW_ANONYMOUS": "true"})
    assert result.exit_code == 1
    assert "RuntimeError: refused ***" in result.stderr
    assert "operator-0123" not in result.output
    assert result.stderr.endswith("Stopped by an unexpected error; the log above says which.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_the_server_once_and_lets_it_clean_up(
    serve_is: Callable[[Serve], None], number: signal.Signals
) -> None:
    steps: list[str] = []

    async def serve(settings: Settings) -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps.append("cancelled")
            await asyncio.sleep(0)
            steps.append("cleaned")
            raise

    serve_is(serve)
    result = run("serve", "--simulation")
    assert (result.exit_code, result.output, steps) == (0, "", ["cancelled", "cleaned"])


def test_migrate_brings_an_empty_folder_to_the_newest_version_once(tmp_path: Path) -> None:
    first = run("migrate", "--data-dir", str(tmp_path / "there"))
    again = run("migrate", "--data-dir", str(tmp_path / "there"))
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout == f"The database is now at version {NEWEST}.\n"
    assert again.stdout == f"The database is already at version {NEWEST}.\n"
    database = tmp_path / "there" / "interview_peer.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(database)) as opened:
        rows = [*opened.execute("SELECT act, key_id, outcome FROM acts")]
    assert rows == [("database.migrated", "command-line", "done")]


def test_migrate_brings_postgresql_to_the_newest_version(postgres_url: str) -> None:
    result = run("migrate", env={"DATABASE_URL": postgres_url})
    assert (result.exit_code, result.stdout) == (
        0,
        f"The database is now at version {NEWEST}.\n",
    )


@pytest.mark.parametrize("command", [("migrate",), ("serve", "--simulation", "--port", "0")])
def test_a_database_without_an_answer_is_named_by_its_setting_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr("interview_peer.state.database.PATIENCE_SECONDS", 0.2)
    environment = {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none",
        "INTERVIEW_DATA_DIR": str(tmp_path),
        "INTERVIEW_UDP_PORT": "0",
    }
    result = run(*command, env=environment)
    assert (result.exit_code, result.stdout) == (1, "")
    *_, told = result.stderr.splitlines()
    assert told.removesuffix(" Nothing was changed.") == (
        "The database of DATABASE_URL does not answer: start it, or correct the address."
    )
    assert told.endswith(" Nothing was changed.") == (command == ("migrate",))


def test_a_database_file_that_is_held_is_named_by_its_setting(
    serve_is: Callable[[Serve], None],
) -> None:
    async def serve(settings: Settings) -> None:
        raise StateUnavailable

    serve_is(serve)
    result = run("serve", "--simulation")
    assert result.exit_code == 1
    assert result.stderr.startswith("The database, a file in INTERVIEW_DATA_DIR, does not answer")


JOURNAL_START = {
    "t": 0.0,
    "at": "2026-11-20T10:00:00.000Z",
    "direction": None,
    "event": {"type": "interview.started", "session_id": "abc", "schema": 1},
}


def journal(folder: Path, *records: dict[str, Any], torn: bytes = b"") -> None:
    folder.mkdir()
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "events.jsonl").write_bytes(lines.encode() + torn)


def said(at: float, item: str, text: str) -> dict[str, Any]:
    event = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": item,
        "content_index": 0,
        "transcript": text,
    }
    return {"t": at, "at": "2026-11-20T10:00:01.000Z", "direction": "to_browser", "event": event}


def test_transcript_is_rebuilt_from_the_journal_up_to_a_torn_line(tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    journal(folder, JOURNAL_START, said(1.0, "item_1", "Grüße"), torn='{"t": 2, "ü'.encode()[:-1])
    result = run("transcript", str(folder))
    target = folder / "transcript.json"
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    assert "Grüße" in target.read_text(encoding="utf-8")
    assert "abc" in target.read_text(encoding="utf-8")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(file.name for file in folder.iterdir()) == ["events.jsonl", "transcript.json"]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("json", '"text": "Grüße"'),
        ("txt", "[00:00:01] Candidate: Grüße\n"),
        ("vtt", "<v Candidate>Grüße</v>\n"),
        ("srt", "Candidate: Grüße\n"),
    ],
)
def test_transcript_is_printed_in_a_form_and_nothing_is_written(
    tmp_path: Path, kind: str, part: str
) -> None:
    folder = tmp_path / "abc"
    journal(folder, JOURNAL_START, said(1.0, "item_1", "Grüße"))
    result = run("transcript", str(folder), "--format", kind)
    assert result.exit_code == 0 and part in result.stdout
    assert [file.name for file in folder.iterdir()] == ["events.jsonl"]
    assert run("transcript", str(folder)).exit_code == 0
    (folder / "events.jsonl").unlink()
    assert run("transcript", str(folder), "--format", kind).stdout == result.stdout
    (folder / "transcript.json").write_text("[]")
    assert run("transcript", str(folder), "--format", kind).exit_code == 1


def test_transcript_of_a_finished_folder_is_not_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    journal(folder, JOURNAL_START, said(1.0, "item_1", "Hello."))
    (folder / "manifest.json").write_text("{}")
    result = run("transcript", str(folder))
    assert result.exit_code == 1 and "--format" in result.stderr
    assert not (folder / "transcript.json").exists()


def test_transcript_of_a_folder_without_journal_exits_1(tmp_path: Path) -> None:
    result = run("transcript", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'events.jsonl'}: No such file or directory.\n"


@pytest.mark.parametrize("first", ["", "{", "[]", '{"at": "2026"}', '{"at": 1, "event": {}}'])
def test_transcript_of_something_else_exits_1_and_writes_nothing(
    tmp_path: Path, first: str
) -> None:
    (tmp_path / "events.jsonl").write_text(first)
    result = run("transcript", str(tmp_path))
    assert result.exit_code == 1
    assert "does not begin like an interview's journal" in result.stderr
    assert not (tmp_path / "transcript.json").exists()


def test_snapshot_sees_source_and_personas_alone(tmp_path: Path) -> None:
    for name in ("a.py", "b.toml", "c.txt", "d.pyc"):
        (tmp_path / name).write_text("")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "e.py").write_text("")
    single = tmp_path / "c.txt"
    names = sorted(file.name for file in reload.snapshot([tmp_path, tmp_path / "gone"]))
    assert names == ["a.py", "b.toml", "e.py"]
    assert [*reload.snapshot([single])] == [single]


def test_package_and_own_personas_are_watched(tmp_path: Path) -> None:
    settings = Settings(simulation=True, personas_dir=tmp_path)
    files = reload.snapshot(reload.watched(settings))
    assert Path(interview_peer.__file__) in files
    assert static_dir() / "page.js" in files
    (tmp_path / "mine.toml").write_text("")
    assert tmp_path / "mine.toml" in reload.snapshot(reload.watched(settings))


@asynccontextmanager
async def supervised(arguments: list[str], places: list[Path]) -> AsyncIterator[None]:
    task = asyncio.create_task(reload.supervise(arguments, places))
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (a child process sets no event)
            await asyncio.sleep(0.02)


async def test_changed_file_starts_the_child_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload, "_LOOK_EVERY_SECONDS", 0.02)
    source = tmp_path / "source.py"
    source.write_text("")
    printed = ""

    def versions(count: int) -> Callable[[], bool]:
        def holds() -> bool:
            nonlocal printed
            printed += capfd.readouterr().out
            return printed.count("interview-peer, version") == count

        return holds

    monkeypatch.setenv("PYTHONPATH", str(Path(interview_peer.__file__).parents[1]))
    async with supervised(["--version"], [tmp_path]):
        await eventually(versions(1))
        source.write_text("changed")
        await eventually(versions(2))


async def test_child_ends_with_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid.txt"
    program = tmp_path / "child"
    program.write_text(
        f"#!/bin/sh\necho $$ > {pid_file}.new\nmv {pid_file}.new {pid_file}\nexec sleep 60\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    async with supervised(["serve"], [tmp_path]):
        await eventually(pid_file.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
