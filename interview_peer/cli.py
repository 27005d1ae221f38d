"""The ``interview-peer`` command: flags in, one sentence out when something is wrong.

Exit codes: 0 ended as asked, 1 broke or was refused, 2 cannot start as it is set (a wrong setting
or flag, a port that is taken), 70 its event loop stood still, 129, 130 and 143 ended at once by a
second signal: SIGHUP, Ctrl-C, SIGTERM. What the server does once it runs is not decided here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from interview_peer import __version__, logs
from interview_peer.cli_audit import audit
from interview_peer.cli_doctor import doctor
from interview_peer.cli_drain import drain
from interview_peer.cli_folders import CommandFailed, export, finish, transcript, verify
from interview_peer.cli_interviews import interviews, keys
from interview_peer.cli_simulate import GroupedCommand, flags, settings_from
from interview_peer.cli_simulate import run as simulate_until_stopped
from interview_peer.cli_webhooks import webhooks
from interview_peer.errors import (
    ConfigurationError,
    StartFailed,
    StateUnavailable,
)
from interview_peer.media.meters import MediaLoop
from interview_peer.session.stop_request import StopRequest
from interview_peer.settings import Settings, load_settings
from interview_peer.signals import StopSignals

# What a start can fail of without being a defect: somebody else's port, a wrong address, no rights.
_START_PROBLEMS = (
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
)


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
        except (ConfigurationError, StartFailed) as error:
            _exit(error.message, 2)
        except StateUnavailable:
            _exit("The database does not answer; nothing was changed.", 1)
        except CommandFailed as error:
            _exit(str(error), 1)
        except (KeyboardInterrupt, EOFError):
            # Of what has no orderly stop: the person wants out.
            _exit("Stopped at once.", 130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="interview-peer")
def main() -> None:
    """Stand in the middle of spoken AI interviews, as a full WebRTC peer.

    Without a command it serves.

    Settings come from the environment and from the file .env; a flag wins over both.
    """


for _command in (
    *(doctor, interviews, keys, audit, drain, webhooks),
    *(transcript, verify, finish, export),
):
    main.add_command(_command)


@main.command()
@click.option("--host", help="Address to listen on.  [INTERVIEW_HOST; 127.0.0.1]")
@click.option("--port", help="TCP port, 0 for a free one.  [PORT; 8080]")
@click.option("--udp-port", help="UDP port of the browsers' audio.  [INTERVIEW_UDP_PORT; 8081]")
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
    udp_port: str | None,
    simulation: bool | None,
    prefer_simulation: bool,
    data_dir: str | None,
    reload: bool,
    end_with_stdin: bool,
) -> None:
    """Run the server until Ctrl-C, or until SIGTERM has emptied it.

    Ctrl-C ends the interviews at once. SIGTERM lets none begin and those that run finish, for
    INTERVIEW_DRAIN_SECONDS at most. A second one of either ends the process on the spot.
    """
    settings = load_settings(
        prefer_simulation=prefer_simulation,
        host=host,
        port=port,
        udp_port=udp_port,
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

    stop = StopRequest()

    async def run() -> None:
        # It takes a second or more, in which signals are heard already.
        from interview_peer import app

        await app.serve(settings, stop)

    try:
        _run(run, end_with_stdin=end_with_stdin, gently=stop.gently)
    except StateUnavailable:
        raise CommandFailed(_no_answer(settings)) from None
    except OSError as error:
        raise StartFailed(
            _bind_problem(error, settings.host, settings.port, "PORT", "INTERVIEW_HOST")
        ) from error


@main.command(cls=GroupedCommand, params=flags())
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="TCP port."
)
def simulate(host: str, port: int, **given: Any) -> None:
    """Run the simulated voice service alone.

    Point a server at it with OPENAI_BASE_URL. It takes any key, or only OPENAI_API_KEY where that
    is set. Settings can be changed while it runs, at /_simulator/settings.
    """
    settings = load_settings(simulation=True)
    _configure_logs(settings)
    key = settings.openai_api_key
    simulated = settings_from(given, None if key is None else key.get_secret_value())
    try:
        _run(lambda: simulate_until_stopped(simulated, host, port))
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
        from interview_peer.core.acts import COMMAND_LINE, Act, Entry, Outcome
        from interview_peer.notices.types import new_id
        from interview_peer.state import migrate as migrations
        from interview_peer.state.database import Database
        from interview_peer.state.schema import now_us

        database = await Database.open(settings.state_url, settings.data_dir)
        act = Act.DATABASE_MIGRATED
        noted = Entry(new_id("act"), now_us(), act, COMMAND_LINE, None, outcome=Outcome.DONE)
        try:
            changed = await migrations.upgrade(database, noted)
        finally:
            await database.close()
        done = "is now at" if changed else "is already at"
        click.echo(f"The database {done} version {migrations.NEWEST}.")

    try:
        _run(run)
    except StateUnavailable:
        raise CommandFailed(f"{_no_answer(settings)} Nothing was changed.") from None
    except OSError as error:
        raise CommandFailed(f"{error.filename or settings.data_dir}: {error.strerror}.") from error


def _configure_logs(settings: Settings) -> None:
    for secret in settings.secrets:
        logs.register_secret(secret)
    logs.configure(settings.log_level, form=settings.log_format)


def _run(
    main_coroutine: Callable[[], Coroutine[Any, Any, None]],
    *,
    end_with_stdin: bool = False,
    gently: Callable[[], bool] = lambda: False,
) -> None:
    """Run until it returns, or until SIGINT, SIGTERM, SIGHUP or stdin's end cancels it once.

    SIGTERM asks ``gently`` first: where that is true, the coroutine will return by itself. Whatever
    comes after the first of them ends the process on the spot.

    Errors of a start (OSError, StartFailed, ConfigurationError) come out as they are, also from
    within a task group; anything else is a defect, logged with its traceback, and ends with exit
    code 1.
    """
    signals = StopSignals()

    async def supervise() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(main_coroutine(), name="main")

        def stop(number: signal.Signals | None = None) -> None:
            if number is not signal.SIGTERM or not gently():
                task.cancel()

        def stdin_readable() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                signals.ask()
                stop()

        signals.listen(stop)
        if end_with_stdin:
            loop.add_reader(0, stdin_readable)
        await task

    try:
        try:
            with asyncio.Runner(loop_factory=MediaLoop) as runner:
                runner.run(supervise())
        finally:
            signals.keep()
    except asyncio.CancelledError:
        if not signals.heard:
            raise
    except Exception as raised:
        error = _only_cause(raised)
        if isinstance(error, ConfigurationError | StartFailed | CommandFailed | StateUnavailable):
            raise error from None
        if isinstance(error, OSError) and not signals.heard and _is_start_problem(error):
            raise error from None
        logs.get(__name__).critical("the command broke", exc_info=raised)
        raise CommandFailed("Stopped by an unexpected error; the log above says which.") from None


def _only_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_start_problem(error: OSError) -> bool:
    return isinstance(error, socket.gaierror) or error.errno in _START_PROBLEMS


def _bind_problem(
    error: OSError, host: str, port: int, port_name: str = "--port", host_name: str = "--host"
) -> str:
    if error.filename is not None:
        return f"{error.filename} cannot be written: {error.strerror}."
    if error.errno == errno.EADDRINUSE:
        return (
            f"{port_name} {port} on {host} is already in use; stop what uses it or choose another."
        )
    if error.errno == errno.EACCES:
        return f"{port_name} {port} may not be used by this user; choose one above 1023."
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host_name} {host} is not an address of this machine."
    return f"{error.strerror}."


def _no_answer(settings: Settings) -> str:
    """Never the address itself: it holds a password."""
    if settings.state_url is None:
        return (
            "The database, a file in INTERVIEW_DATA_DIR, does not answer: end the program that "
            "holds it."
        )
    return "The database of DATABASE_URL does not answer: start it, or correct the address."


def _exit(sentence: str, code: int) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(code)
