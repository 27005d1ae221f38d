"""``interview-peer doctor``: what stands between these settings and an interview, row by row."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final

import click

from interview_peer import logs
from interview_peer.cli_client import json_option
from interview_peer.errors import ConfigurationError
from interview_peer.settings import load_settings

_COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@json_option
@click.option("--send-test", is_flag=True, help="Send each receiver of notices a webhook.test.")
@click.option("--data-dir", help="Folder for recordings.  [INTERVIEW_DATA_DIR; data]")
def doctor(as_json: bool, send_test: bool, data_dir: str | None) -> None:
    """Try all that an interview needs, and say what to do about what is missing.

    Each row is pass, warn or fail. Ends with 1 if one of them is fail. A server may be running
    meanwhile.
    """
    from interview_peer.doctor.examine import SETTINGS, examine
    from interview_peer.doctor.report import Row, Status

    try:
        settings = load_settings(data_dir=data_dir)
    except ConfigurationError as error:
        rows = [Row(SETTINGS, Status.FAIL, error.message, "Correct it; the rest was not tried.")]
    else:
        for secret in settings.secrets:
            logs.register_secret(secret)
        # What is wrong is told by the rows, not by the log as well.
        quiet = settings.log_level if settings.log_level == "debug" else "critical"
        logs.configure(quiet, form=settings.log_format)
        rows = asyncio.run(examine(settings, send_test=send_test))
    for row in rows:
        if as_json:
            told = {
                name: logs.redact(value) if isinstance(value, str) else value
                for name, value in row.to_json().items()
            }
            click.echo(json.dumps(told))
        else:
            word = click.style(f"{row.status.value:<4}", fg=_COLOURS[row.status.value])
            cure = f" {row.cure}" if row.cure else ""
            click.echo(f"{word}  {row.check:<8}  {logs.redact(row.finding + cure)}")
    if any(row.status is Status.FAIL for row in rows):
        sys.exit(1)
