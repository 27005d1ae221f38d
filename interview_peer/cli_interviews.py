"""``interview-peer interviews`` and ``keys``: what operators ask a running server for."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

import click

from interview_peer.cli_client import (
    Ask,
    json_option,
    limit_option,
    print_row,
    rows,
    run,
    server_option,
)
from interview_peer.core.scopes import Scope
from interview_peer.types import Json

_PATH: Final = "/api/interviews"
_KEYS: Final = "/api/keys"
_END_SECONDS: Final = 90.0
"""Ending closes connections and files before it answers."""

_MAX_GOODBYE_SECONDS: Final = 60

_COLUMNS: Final = (
    "id",
    "phase",
    "reason",
    "created_at",
    "seconds",
    "persona",
    "candidate_reference",
)

_KEY_COLUMNS: Final = ("id", "created_at", "last_used_at", "revoked_at", "scopes", "name")


@click.group()
def interviews() -> None:
    """List, show, steer, end and delete interviews.

    Asks a running server, with INTERVIEW_ADMIN_KEY where that is set.
    """


@interviews.command("list")
@server_option
@json_option
@click.option("--phase", help="Only those in this phase.")
@click.option("--reference", help="Only those of this candidate reference.")
@click.option("--since", help="Only those made from then on: 2026-11-20T00:00:00Z.")
@click.option("--until", help="Only those made before.")
@limit_option
def list_(
    server: str | None,
    as_json: bool,
    phase: str | None,
    reference: str | None,
    since: str | None,
    until: str | None,
    limit: int,
) -> None:
    """List interviews, newest first."""
    filters = {
        "phase": phase,
        "candidate_reference": reference,
        "created_after": since,
        "created_before": until,
    }

    async def work(ask: Ask) -> None:
        async for one in rows(ask, _PATH, "interviews", filters, limit):
            print_row(one, as_json, _COLUMNS)

    run(server, work)


@interviews.command()
@server_option
@json_option
@click.argument("interview")
def show(server: str | None, as_json: bool, interview: str) -> None:
    """Show INTERVIEW with its files."""

    async def work(ask: Ask) -> None:
        found = await ask("GET", _path(interview))
        if as_json:
            click.echo(json.dumps(found))
            return
        width = max(map(len, found))
        for name, value in found.items():
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:<{width}}  {'-' if value is None else told}")

    run(server, work)


@interviews.command()
@server_option
@click.option("--say", help="Have the interviewer say this goodbye first; - reads it from stdin.")
@click.option("--politely", is_flag=True, help="Let the interviewer say goodbye first.")
@click.option(
    "--seconds",
    type=click.IntRange(1, _MAX_GOODBYE_SECONDS),
    help="How long the goodbye may take.  [20]",
)
@click.argument("interview", nargs=-1, required=True)
def end(
    server: str | None,
    say: str | None,
    politely: bool,
    seconds: int | None,
    interview: tuple[str, ...],
) -> None:
    """End each INTERVIEW, and wait until it is over."""
    if seconds is not None and not (politely or say is not None):
        raise click.UsageError("--seconds goes with --say or --politely.")
    goodbye = {"say": None if say is None else _text(say), "politely": politely, "seconds": seconds}
    options = {"json": goodbye} if politely or say is not None else {}

    async def one(ask: Ask, name: str) -> str:
        ended = await ask("POST", f"{_path(name)}/end", **options)
        return f"{name}: {ended['phase']}"

    _each(server, interview, "Ending", one)


@interviews.command()
@server_option
@click.option("--respond", is_flag=True, help="Have the interviewer speak about it.")
@click.option("--interrupt", is_flag=True, help="With --respond: at once, whoever speaks.")
@click.argument("interview")
@click.argument("text")
def instruct(server: str | None, respond: bool, interrupt: bool, interview: str, text: str) -> None:
    """Tell the interviewer of INTERVIEW something that the candidate does not hear.

    TEXT of - is read from stdin.
    """
    if interrupt and not respond:
        raise click.UsageError("--interrupt goes with --respond.")
    wanted = {"text": _text(text), "respond": respond, "interrupt": interrupt}

    async def work(ask: Ask) -> None:
        told = await ask("POST", f"{_path(interview)}/instruct", json=wanted)
        click.echo(f"{interview}: told ({told['item_id']})")

    run(server, work, _END_SECONDS)


@interviews.command()
@server_option
@click.option("--interrupt", is_flag=True, help="At once, whoever speaks.")
@click.argument("interview")
@click.argument("text")
def say(server: str | None, interrupt: bool, interview: str, text: str) -> None:
    """Have the interviewer of INTERVIEW say TEXT; - reads it from stdin.

    Answers when it begins to.
    """
    wanted = {"text": _text(text), "interrupt": interrupt}

    async def work(ask: Ask) -> None:
        told = await ask("POST", f"{_path(interview)}/say", json=wanted)
        reply = told["response_id"]
        click.echo(
            f"{interview}: " + ("waits for its turn" if reply is None else f"says ({reply})")
        )

    run(server, work, _END_SECONDS)


def _text(given: str) -> str:
    """The text itself, or standard input: what is in a command line others can see."""
    return sys.stdin.read().strip() if given == "-" else given


@interviews.command()
@server_option
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.argument("interview", nargs=-1, required=True)
def delete(server: str | None, yes: bool, interview: tuple[str, ...]) -> None:
    """End each INTERVIEW and erase its recording, transcript and what is known of its candidate."""
    if not yes:
        what = interview[0] if len(interview) == 1 else f"{len(interview)} interviews"
        click.confirm(f"Erase {what} for good?", abort=True, err=True)

    async def one(ask: Ask, name: str) -> str:
        removed = await ask("DELETE", f"{_path(name)}?end=true")
        rest = "" if removed["complete"] else "; copies in a store are still to go"
        rest += f" ({removed['waits_for']})" if removed["waits_for"] else ""
        return f"{name}: {len(removed['files'])} files and {removed['turns']} turns erased{rest}"

    _each(server, interview, "Erasing", one)


def _each(
    server: str | None,
    names: tuple[str, ...],
    label: str,
    one: Callable[[Ask, str], Awaitable[str]],
) -> None:
    """Do something to each interview, with a bar on a terminal; one that fails stops no other."""
    failed: list[str] = []

    async def work(ask: Ask) -> None:
        done: list[str] = []
        # On stderr, and only where a person looks on: results are for pipes.
        with click.progressbar(names, label=label, file=sys.stderr, hidden=len(names) < 2) as bar:
            for name in bar:
                try:
                    done.append(await one(ask, name))
                except click.ClickException as error:
                    failed.append(f"{name}: {error.message}")
        for line in done:
            click.echo(line)

    run(server, work, _END_SECONDS)
    if failed:
        raise click.ClickException("\n".join(failed))


@click.group()
def keys() -> None:
    """Make, list and revoke keys for operators.

    Asks a running server, with INTERVIEW_ADMIN_KEY where that is set.
    """


@keys.command()
@server_option
@json_option
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([one.value for one in Scope]),
    help="What it opens; may be given several times.  [as the key that asks]",
)
@click.argument("name")
def create(server: str | None, as_json: bool, scopes: tuple[str, ...], name: str) -> None:
    """Make a key called NAME and print it, this once."""
    wanted = {"name": name, **({"scopes": [*scopes]} if scopes else {})}

    async def work(ask: Ask) -> None:
        made = await ask("POST", _KEYS, json=wanted)
        click.echo(json.dumps(made) if as_json else made["key"])

    run(server, work)


@keys.command("list")
@server_option
@json_option
def list_keys(server: str | None, as_json: bool) -> None:
    """List keys: what they are called, what they open and when they were used."""

    async def work(ask: Ask) -> None:
        for one in (await ask("GET", _KEYS))["keys"]:
            print_row(one, as_json, _KEY_COLUMNS)

    run(server, work)


@keys.command()
@server_option
@click.argument("key_id", metavar="ID")
def revoke(server: str | None, key_id: str) -> None:
    """Make the key of that ID open nothing from now on."""

    async def work(ask: Ask) -> None:
        revoked: Json = await ask("DELETE", f"{_KEYS}/{quote(key_id, safe='')}")
        click.echo(f"{revoked['id']}: revoked")

    run(server, work)


def _path(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"
