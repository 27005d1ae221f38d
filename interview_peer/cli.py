"""The ``interview-peer`` command: flags in, one sentence out when something is wrong.

Exit codes: 0 ended as asked, 1 could not start or broke, 2 a setting or a flag is wrong, 130 ended
at once by a second Ctrl-C. What the server does once it runs is not decided here.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from interview_peer import __version__, logs
from interview_peer.cli_interviews import interviews, keys
from interview_peer.cli_webhooks import webhooks
from interview_peer.errors import (
    ConfigurationError,
    InterviewPeerError,
    StartFailed,
    StateUnavailable,
)
from interview_peer.media.meters import MediaLoop
from interview_peer.settings import Settings, load_settings
from interview_peer.storage.finished import MANIFEST_NAME, read_finished, read_stored
from interview_peer.storage.folder import INTERVIEWS, InterviewFolder, hold
from interview_peer.types import Json, SessionId

# What a start can fail of without being a defect: somebody else's port, a wrong address, no rights.
_START_PROBLEMS = (
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
)

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A closed terminal is a wish to end, too."""


class CommandFailed(Exception):
    """Ends the command with this sentence and exit code 1."""


class _Group(click.Group):
    """Serves when no command is named; turns what a person can mend into one sentence."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            _exit(error.message, 2)
        except StateUnavailable:
            _exit("The database does not answer; nothing was changed.", 1)
        except (CommandFailed, StartFailed) as error:
            _exit(str(error), 1)
        except (KeyboardInterrupt, EOFError):
            # A second Ctrl-C, during an orderly stop: the person wants out.
            _exit("Stopped at once.", 130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="interview-peer")
def main() -> None:
    """Stand in the middle of spoken AI interviews, as a full WebRTC peer.

    Without a command it serves.

    Settings come from the environment and from the file .env; a flag wins over both.
    """


for _group in (interviews, keys, webhooks):
    main.add_command(_group)


@main.command()
@click.option("--host", help="Address to listen on.  [INTERVIEW_HOST; 127.0.0.1]")
@click.option("--port", help="TCP port, 0 for a free one.  [PORT; 8080]")
@click.option(
    "--simulation/--no-simulation",
    default=None,
    help="Talk to the built-in simulator, or to OpenAI.  [SIMULATION_MODE; false]",
)
@click.option(
    "--prefer-simulation",
    is_flag=True,
    help="Simulate unless SIMULATION_MODE says otherwise.",
)
@click.option("--data-dir", help="Folder for recordings.  [INTERVIEW_DATA_DIR; data]")
@click.option("--reload", is_flag=True, help="Start again when source or persona files change.")
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="Stop at the end of stdin.")
def serve(
    host: str | None,
    port: str | None,
    simulation: bool | None,
    prefer_simulation: bool,
    data_dir: str | None,
    reload: bool,
    end_with_stdin: bool,
) -> None:
    """Run the server until Ctrl-C or SIGTERM."""
    settings = load_settings(
        prefer_simulation=prefer_simulation,
        host=host,
        port=port,
        simulation=simulation,
        data_dir=data_dir,
    )
    _configure_logs(settings)
    if reload:
        from interview_peer import reload as reloading

        # The child's stdin is a pipe of the supervisor's, which closes however that one ends.
        changed = {"--reload": "--end-with-stdin"}
        arguments = [changed.get(argument, argument) for argument in sys.argv[1:]]
        _run(lambda: reloading.supervise(arguments, reloading.watched(settings)))
        return

    from interview_peer import app

    try:
        _run(lambda: app.serve(settings), end_with_stdin=end_with_stdin)
    except OSError as error:
        raise CommandFailed(_bind_problem(error, settings.host, settings.port)) from error


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535))
@click.option("--udp-host", default="127.0.0.1", show_default=True, help="Address for media.")
@click.option("--echo-key", is_flag=True, hidden=True, help="Repeat the key in refusals.")
def simulate(host: str, port: int, udp_host: str, echo_key: bool) -> None:
    """Run the simulated voice service alone.

    Point a server at it with OPENAI_BASE_URL. It takes any key, or only OPENAI_API_KEY where that
    is set.
    """
    settings = load_settings(simulation=True)
    _configure_logs(settings)
    key = settings.openai_api_key

    async def run() -> None:
        from interview_peer.simulator.server import SimulatorSettings, start_simulator

        simulator = await start_simulator(
            SimulatorSettings(
                api_key=None if key is None else key.get_secret_value(),
                udp_host=udp_host,
                echo_key=echo_key,
            ),
            host=host,
            port=port,
        )
        try:
            click.echo(f"interview_peer's simulator is ready: {simulator.base_url}")
            await asyncio.get_running_loop().create_future()
        finally:
            await simulator.close()

    try:
        _run(run)
    except OSError as error:
        raise CommandFailed(_bind_problem(error, host, port)) from error


@main.command()
@click.option("--data-dir", help="Folder of the SQLite file.  [INTERVIEW_DATA_DIR; data]")
def migrate(data_dir: str | None) -> None:
    """Bring the database to this program's version.

    Needed before serving from PostgreSQL (DATABASE_URL); SQLite is brought along by serving.
    """
    # Nobody is talked to, so neither a key nor a door is asked for.
    settings = load_settings(simulation=True, data_dir=data_dir)
    _configure_logs(settings)

    async def run() -> None:
        from interview_peer.state import migrate as migrations
        from interview_peer.state.database import Database

        database = await Database.open(settings.state_url, settings.data_dir)
        try:
            changed = await migrations.upgrade(database)
        finally:
            await database.close()
        done = "is now at" if changed else "is already at"
        click.echo(f"The database {done} version {migrations.NEWEST}.")

    try:
        _run(run)
    except OSError as error:
        raise CommandFailed(f"{error.filename or settings.data_dir}: {error.strerror}.") from error


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["json", "txt", "vtt", "srt"]),
    help="Print the transcript in this form instead; nothing is written.",
)
def transcript(folder: Path, kind: str | None) -> None:
    """Rebuild FOLDER/transcript.json from FOLDER/events.jsonl, or print it.

    The files of a finished interview do not change: its manifest holds their hashes, and two files
    cannot be replaced in one step. There, and while the interview runs, it can only be printed.
    """
    target = folder / "transcript.json"
    try:
        if kind is not None:
            click.echo(_transcript_text(folder, kind), nl=False)
            return
        with _own(folder):
            _replace(target, json.dumps(_rebuilt_transcript(folder), ensure_ascii=False))
    except OSError as error:
        raise CommandFailed(f"{error.filename or folder}: {error.strerror}.") from error
    click.echo(str(target))


def _transcript_text(folder: Path, kind: str) -> str:
    """A folder's transcript in one of its forms; from the journal where it was not written."""
    from interview_peer.core.transcript_text import FORMATS

    try:
        document = json.loads((folder / "transcript.json").read_bytes())
        if not isinstance(document, dict):
            raise ValueError
    except FileNotFoundError:
        document = _rebuilt_transcript(folder)
    except (ValueError, RecursionError):
        raise CommandFailed(f"{folder / 'transcript.json'} is not a transcript.") from None
    if kind == "json":
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    return FORMATS[kind].render(document)


def _rebuilt_transcript(folder: Path) -> Json:
    from interview_peer.core.transcript import rebuild

    # A crash may have torn the last line within a character.
    with (folder / "events.jsonl").open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
        session_id, started_at = _interview_started(first, folder)
        return rebuild([first, *lines]).document(session_id, started_at)


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold a folder whose transcript may be written anew, or say why it may not."""
    claim = hold(folder)
    if claim is None:
        raise CommandFailed(
            f"{folder} is in use: the interview runs, or is being finished. "
            "Its transcript can be had with --format."
        )
    try:
        if (folder / MANIFEST_NAME).exists():
            raise CommandFailed(f"{folder} is finished; its transcript can be had with --format.")
        yield
    finally:
        os.close(claim)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check a finished interview's FOLDER against its manifest; exit code 1 if anything is wrong.

    Reads lengths and hashes, every Ogg page, the lengths of the sound and whether the journal
    still gives the same transcript. Changes nothing.
    """
    from interview_peer.finishing.verify import verify as check

    if not folder.is_dir():
        raise CommandFailed(f"{folder} is not a folder.")
    where = folder.resolve()
    if where.parent.name == INTERVIEWS:
        interview = InterviewFolder(where.parents[1], SessionId(where.name))
        stored, finished = read_stored(interview), read_finished(interview)
        gone = finished and not any((where / file.name).exists() for file in finished.files)
        if stored is not None and stored.tags is not None and gone:
            raise CommandFailed(
                f"{folder}: its files were moved to {stored.place.url}/{interview.session_id}; "
                "only the manifest is here."
            )
    try:
        problems = check(folder)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    for problem in problems:
        click.echo(problem)
    if problems:
        raise CommandFailed(f"{folder}: {len(problems)} problem(s).")
    click.echo(f"{folder}: all is as the manifest says.")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def finish(folder: Path) -> None:
    """Mix and close an interview's FOLDER that has no manifest, after a crash or a full disk.

    The server does the same by itself after each interview and, for what a crash left, when it
    starts.
    """
    from interview_peer.finishing.job import finish as finish_folder

    try:
        where = folder.resolve()
        target = InterviewFolder(where.parents[1], SessionId(where.name))
        if where.parent.name != INTERVIEWS or not target.exists():
            raise CommandFailed(f"{folder} is not an interview's folder ({INTERVIEWS}/ID).")
        with _progress("Finishing") as progress:
            finish_folder(target, progress, patience=0)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    except InterviewPeerError as error:
        raise CommandFailed(error.message) from error
    click.echo(str(folder / "manifest.json"))


@main.command()
@click.argument("interview_id", metavar="ID")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["wav", "ogg", "webm"]),
    required=True,
    help="Stereo, candidate left: 16 bit PCM, or Opus in Ogg or WebM.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [ID.FORMAT]"
)
@click.option("--data-dir", help="Folder of recordings.  [INTERVIEW_DATA_DIR; data]")
def export(interview_id: str, kind: str, output: Path | None, data_dir: str | None) -> None:
    """Write the recording of the interview ID as one stereo file."""
    from interview_peer.finishing.export import export as export_folder

    # What only a server needs must not be asked for here.
    settings = load_settings(simulation=True, data_dir=data_dir)
    target = output or Path(f"{interview_id}.{kind}")
    try:
        folder = InterviewFolder(settings.data_dir, SessionId(interview_id))
        if not folder.exists():
            raise CommandFailed(f"There is no interview {interview_id} in {settings.data_dir}.")
        with _progress("Exporting") as progress:
            damaged = export_folder(folder, kind, target, progress)
    except OSError as error:
        raise _disk_problem(error, target) from error
    except InterviewPeerError as error:
        raise CommandFailed(error.message) from error
    for name in damaged:
        click.echo(
            f"{name} was damaged when it was finished: what is missing of it is silent.", err=True
        )
    click.echo(str(target))


@contextmanager
def _progress(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr that follows a share from 0 to 1, where a person watches."""
    steps, alone = 1_000, not sys.stderr.isatty()
    with click.progressbar(length=steps, label=label, file=sys.stderr, hidden=alone) as bar:
        yield lambda share: bar.update(max(0, int(share * steps) - bar.pos))


def _disk_problem(error: OSError, place: Path) -> CommandFailed:
    return CommandFailed(f"{error.filename or place}: {error.strerror or error}.")


def _configure_logs(settings: Settings) -> None:
    for secret in settings.secrets:
        logs.register_secret(secret)
    logs.configure(settings.log_level)


def _run(
    main_coroutine: Callable[[], Coroutine[Any, Any, None]], *, end_with_stdin: bool = False
) -> None:
    """Run until it returns, or until SIGINT, SIGTERM, SIGHUP or stdin's end cancels it once.

    Errors of a start (OSError, StartFailed, ConfigurationError) come out as they are, also from
    within a task group; anything else is a defect, logged with its traceback, and ends with exit
    code 1.
    """
    asked_to_stop = False

    async def supervise() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(main_coroutine(), name="main")

        def stop() -> None:
            nonlocal asked_to_stop
            asked_to_stop = True
            for number in _STOPS:
                # The next one ends the process at once, should the orderly way hang.
                loop.remove_signal_handler(number)
            task.cancel()

        def stdin_readable() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                stop()

        for number in _STOPS:
            loop.add_signal_handler(number, stop)
        if end_with_stdin:
            loop.add_reader(0, stdin_readable)
        await task

    try:
        with asyncio.Runner(loop_factory=MediaLoop) as runner:
            runner.run(supervise())
    except asyncio.CancelledError:
        if not asked_to_stop:
            raise
    except Exception as raised:
        error = _only_cause(raised)
        if isinstance(error, ConfigurationError | StartFailed | CommandFailed | StateUnavailable):
            raise error from None
        if isinstance(error, OSError) and not asked_to_stop and _is_start_problem(error):
            raise error from None
        logs.get(__name__).critical("the command broke", exc_info=raised)
        raise CommandFailed("Stopped by an unexpected error; the log above says which.") from None


def _only_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_start_problem(error: OSError) -> bool:
    return isinstance(error, socket.gaierror) or error.errno in _START_PROBLEMS


def _bind_problem(error: OSError, host: str, port: int) -> str:
    if error.filename is not None:
        return f"{error.filename} cannot be written: {error.strerror}."
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is already in use; stop what uses it or choose another."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} may not be used by this user; choose one above 1023."
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine."
    return f"{error.strerror}."


def _interview_started(line: str, folder: Path) -> tuple[SessionId, datetime]:
    try:
        record = json.loads(line)
        session_id = str(record["event"].get("session_id") or folder.resolve().name)
        return SessionId(session_id), datetime.fromisoformat(record["at"])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise CommandFailed(f"{folder / 'events.jsonl'} does not begin like an interview's journal.")


def _replace(target: Path, text: str) -> None:
    """Write ``target`` whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def _exit(sentence: str, code: int) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(code)
