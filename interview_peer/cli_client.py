"""What every command shares that asks a running server through its API.

On SQLite nobody but the server may open the database, and only the server can end an interview.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
import click

from interview_peer.settings import load_settings
from interview_peer.types import Json

ANSWER_SECONDS: Final = 30.0
_PAGE: Final = 200
"""Rows that the API gives at once."""

Ask = Callable[..., Awaitable[Json]]
"""``await ask(method, path, **options)``: the body of the answer; refusals end the command."""

server_option = click.option("--server", help="Address of the server.  [http://127.0.0.1:PORT]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
limit_option = click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="List so many at the most.",
)


def run(
    server: str | None,
    work: Callable[[Ask], Awaitable[None]],
    seconds: float = ANSWER_SECONDS,
) -> None:
    """Do ``work`` with a server; what a person can mend becomes one sentence.

    Args:
        seconds: how long one answer may take.
    """
    # Nobody is served, so neither OpenAI's key nor a door is asked for.
    settings = load_settings(simulation=True)
    base = (server or f"http://127.0.0.1:{settings.port}").rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise click.UsageError("--server takes an address that begins with http:// or https://.")
    headers = {}
    if settings.admin_key is not None:
        headers["Authorization"] = f"Bearer {settings.admin_key.get_secret_value()}"

    async def main() -> None:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:

            async def ask(method: str, path: str, **options: Any) -> Json:
                # The key goes to the server that was named and nowhere else.
                async with http.request(
                    method, base + path, allow_redirects=False, **options
                ) as answer:
                    body = await answer.json(content_type=None)
                    if not isinstance(body, dict) or answer.status >= 300:
                        raise click.ClickException(_sentence(body, answer.status))
                    return body

            await work(ask)

    try:
        asyncio.run(main())
    except TimeoutError:
        raise click.ClickException(f"The server at {base} did not answer in time.") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise click.ClickException(
            f"No interview_peer answers at {base}; name its address with --server."
        ) from error


async def rows(
    ask: Ask, path: str, name: str, filters: Mapping[str, str | None], limit: int
) -> AsyncIterator[Json]:
    """Up to ``limit`` rows of a list, which answers hold under ``name``, a page at a time."""
    asked = {key: value for key, value in filters.items() if value is not None}
    while limit:
        page = await ask("GET", path, params={**asked, "limit": str(min(limit, _PAGE))})
        for row in page[name]:
            yield row
        limit -= len(page[name])
        if page["next_cursor"] is None:
            return
        asked["cursor"] = page["next_cursor"]


def _sentence(body: object, status: int) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if not message:
        return f"The server answered with status {status}."
    # Whoever sits at a terminal has no header to set.
    return f"{message} Set INTERVIEW_ADMIN_KEY to it." if status == 401 else str(message)


def print_row(row: Json, as_json: bool, columns: tuple[str, ...]) -> None:
    """Print one object: as JSON, or the named columns of it."""
    if as_json:
        click.echo(json.dumps(row))
        return
    cells = [row[name] for name in columns]
    click.echo("  ".join(_cell(cell) for cell in cells))


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
