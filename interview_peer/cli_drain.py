"""``interview-peer drain``: empty a running server before it is stopped or replaced."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import aiohttp
import click

from interview_peer.cli_client import Ask, json_option, run, server_option
from interview_peer.types import Json

_PATH: Final = "/api/drain"
_LOOK_SECONDS: Final = 1.0


@click.command()
@server_option
@json_option
@click.option(
    "--seconds",
    type=click.FloatRange(0, 86_400),
    help="End what still runs after so long.  [INTERVIEW_DRAIN_SECONDS of the server]",
)
@click.option("--exit", "exit_after", is_flag=True, help="The server ends itself afterwards.")
@click.option("--wait", is_flag=True, help="Return when no interview runs and all is written.")
def drain(
    server: str | None, as_json: bool, seconds: float | None, exit_after: bool, wait: bool
) -> None:
    """Let no interview begin any more, and those that run finish.

    Asks a running server, with INTERVIEW_ADMIN_KEY where that is set. Asking again changes how
    long it may take.
    """
    body: Json = {"exit": exit_after}
    if seconds is not None:
        body["seconds"] = seconds

    def tell(known: Json) -> None:
        click.echo(json.dumps(known) if as_json else f"{known['state']}: {_running(known)}")

    async def work(ask: Ask) -> None:
        known = await ask("POST", _PATH, json=body)
        tell(known)
        while wait and known["state"] != "drained":
            await asyncio.sleep(_LOOK_SECONDS)
            before = known
            try:
                known = await ask("GET", _PATH)
            except aiohttp.ClientError:
                if not before["exit"]:
                    raise
                # It was to end itself, and has.
                known = {**before, "state": "drained", "interviews": 0}
            if (known["state"], known["interviews"]) != (before["state"], before["interviews"]):
                tell(known)

    run(server, work)


def _running(known: Json) -> str:
    count = known["interviews"]
    return "no interview runs" if not count else f"{count} still running"
