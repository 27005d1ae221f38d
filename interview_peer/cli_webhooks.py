"""``interview-peer webhooks``: asks a running server about its webhooks, and to send again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import click

from interview_peer.cli_client import (
    ANSWER_SECONDS,
    Ask,
    json_option,
    limit_option,
    print_row,
    rows,
    run,
    server_option,
)
from interview_peer.types import Json

_PATH: Final = "/api/webhooks"
_DELIVERY_COLUMNS: Final = ("id", "state", "attempts", "type", "last_status", "last_error")
_LOOK_SECONDS: Final = 0.2


@click.group()
def webhooks() -> None:
    """See where notices go, what did not arrive, and send it again.

    Asks a running server, with INTERVIEW_ADMIN_KEY where that is set.
    """


@webhooks.command("list")
@server_option
@json_option
@click.option(
    "--state",
    type=click.Choice(["due", "paused", "delivered", "dead"]),
    help="Deliveries in this state instead of endpoints.",
)
@click.option("--endpoint", help="Only those of this endpoint.")
@click.option("--interview", help="Only those of this interview.")
@limit_option
def list_(
    server: str | None,
    as_json: bool,
    state: str | None,
    endpoint: str | None,
    interview: str | None,
    limit: int,
) -> None:
    """List endpoints, or deliveries when one of the filters is given."""

    async def work(ask: Ask) -> None:
        filters = {"state": state, "endpoint_id": endpoint, "interview_id": interview}
        if not any(filters.values()):
            for one in (await ask("GET", _PATH))["webhooks"]:
                print_row(one, as_json, ("id", "active", "disabled_reason", "url", "events"))
            return
        async for one in rows(ask, f"{_PATH}/deliveries", "deliveries", filters, limit):
            print_row(one, as_json, _DELIVERY_COLUMNS)

    run(server, work)


@webhooks.command()
@server_option
@click.option("--since", help="From when on: 2026-11-20T00:00:00Z.")
@click.option("--until", help="Until when; now if left out.")
@click.option("--endpoint", help="To this endpoint alone, also what it never got.")
@click.option("--all", "everything", is_flag=True, help="Also what was delivered.")
@click.option("--delivery", help="This one delivery, whatever its state; needs no --since.")
def replay(
    server: str | None,
    since: str | None,
    until: str | None,
    endpoint: str | None,
    everything: bool,
    delivery: str | None,
) -> None:
    """Send dead deliveries again."""
    if not since and not delivery:
        raise click.UsageError("Say from when on with --since, or which one with --delivery.")

    async def work(ask: Ask) -> None:
        if delivery or not since:
            await ask("POST", f"{_PATH}/deliveries/{quote(delivery or '', safe='')}/retry")
            click.echo("1 delivery is due again.")
            return
        body: Json = {"since": _zoned(since), "all": everything}
        if until:
            body["until"] = _zoned(until)
        if endpoint:
            body["endpoint_id"] = endpoint
        due, more = 0, True
        while more:
            page = await ask("POST", f"{_PATH}/replay", json=body)
            due, body["cursor"] = due + page["due"], page["next_cursor"]
            more = body["cursor"] is not None
        click.echo(f"{due} {'delivery is' if due == 1 else 'deliveries are'} due again.")

    run(server, work)


@webhooks.command()
@server_option
@click.argument("endpoint")
def test(server: str | None, endpoint: str) -> None:
    """Send a test notice to ENDPOINT and say how it went."""

    async def work(ask: Ask) -> None:
        path = f"{_PATH}/{quote(endpoint, safe='')}/test"
        sent = await ask("POST", path)
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        while not sent["attempts"] and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            sent = await ask("GET", f"{_PATH}/deliveries/{sent['id']}")
        if sent["state"] == "delivered":
            took = sent["tried"][-1]["milliseconds"]
            click.echo(f"Delivered: status {sent['last_status']} after {took} ms.")
            return
        why = f"status {sent['last_status']}" if sent["last_status"] else sent["last_error"]
        raise click.ClickException(f"Not delivered: {why or 'not tried yet'}.")

    run(server, work)


def _zoned(text: str) -> str:
    """The moment in RFC 3339; without a zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-11-20T00:00:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
