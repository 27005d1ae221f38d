"""``interview-peer audit``: asks a running server what operators did."""

from __future__ import annotations

from typing import Final

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
from interview_peer.core.acts import Act
from interview_peer.types import Json

_PATH: Final = "/api/audit"
_COLUMNS: Final = ("at", "act", "outcome", "key_id", "key_name", "on", "address")


@click.command()
@server_option
@json_option
@click.option("--interview", help="Only what was done to this interview.")
@click.option("--key", help="Only what was done with the key of this ID.")
@click.option("--act", type=click.Choice([act.value for act in Act]), help="Only this.")
@click.option("--since", help="Only what was done from then on: 2026-11-20T00:00:00Z.")
@click.option("--until", help="Only what was done before.")
@limit_option
def audit(
    server: str | None,
    as_json: bool,
    interview: str | None,
    key: str | None,
    act: str | None,
    since: str | None,
    until: str | None,
    limit: int,
) -> None:
    """List who read, erased or changed what, and when; newest first.

    Asks a running server, with INTERVIEW_ADMIN_KEY where that is set.
    """
    filters = {"interview": interview, "key": key, "act": act, "since": since, "until": until}

    async def work(ask: Ask) -> None:
        async for one in rows(ask, _PATH, "acts", filters, limit):
            print_row(one if as_json else _short(one), as_json, _COLUMNS)

    run(server, work)


def _short(one: Json) -> Json:
    """The same with what a row on a terminal has room for."""
    outcome = one["outcome"] if one["code"] is None else f"{one['outcome']}:{one['code']}"
    return {**one, "outcome": outcome, "on": one["object_id"] or one["interview_id"]}
