"""Whether what is to be kept can be kept: the database and the store of recordings."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final

from ..errors import ConfigurationError, StateUnavailable, StoreUnavailable
from ..settings import Settings
from ..state.look import Looked, look
from ..state.migrate import NEWEST
from ..storage.store import S3Access, Store
from .report import Row, Status

DATABASE: Final = "database"
STORE: Final = "store"

_PROBE: Final = b"interview-peer doctor: may be deleted"


class DatabaseLook:
    """One look at the database, which several checks ask for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.found: Looked | None = None

    async def row(self) -> Row:
        """Look, and say what was found; never raises for what the database does."""
        settings = self._settings
        try:
            self.found = found = await look(settings.state_url, settings.data_dir)
        except ConfigurationError as error:
            cure = "Correct DATABASE_URL, install the newer program, or restore a copy."
            return Row(DATABASE, Status.FAIL, error.message, cure)
        except (StateUnavailable, OSError):
            if settings.state_url is None:
                finding = "The SQLite file in INTERVIEW_DATA_DIR cannot be read."
                cure = "Give INTERVIEW_DATA_DIR to the user who runs this."
            else:
                finding = "The database of DATABASE_URL does not answer."
                cure = "Start it, open the way to it, or correct DATABASE_URL."
            return Row(DATABASE, Status.FAIL, finding, cure)
        if found.is_current:
            return Row(DATABASE, Status.PASS, f"It answers, at version {found.version}.")
        if settings.state_url is None:
            finding = "The next start of the server makes or updates the SQLite file."
            return Row(DATABASE, Status.PASS, finding)
        at = (
            "It has no tables yet" if found.version is None else f"It is at version {found.version}"
        )
        finding = f"{at}; this program needs {NEWEST}, and does not start before."
        return Row(DATABASE, Status.WARN, finding, "Run interview-peer migrate.")


async def store(settings: Settings) -> list[Row]:
    """An object is written, read and deleted again."""
    if settings.recordings_url is None:
        return [Row(STORE, Status.PASS, "No store is configured: recordings stay on this disk.")]
    key, secret = settings.s3_access_key, settings.s3_secret_key
    access = S3Access(
        settings.s3_endpoint,
        settings.s3_region,
        None if key is None else key.get_secret_value(),
        None if secret is None else secret.get_secret_value(),
    )
    where = settings.recordings_url
    name = f"doctor-{secrets.token_hex(8)}.txt"
    cure = (
        "Check INTERVIEW_RECORDINGS_URL, AWS_ENDPOINT_URL_S3, AWS_REGION, the keys and what they "
        "allow: reading, writing, listing, deleting."
    )
    try:
        patient = Store.open(
            where,
            access,
            client={"connect_timeout": timedelta(seconds=3), "timeout": timedelta(seconds=5)},
            retry={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
        )
        doing = "write"
        await patient.put_bytes(_PROBE, name, "text/plain")
        try:
            doing = "read"
            held = await patient.read_whole(name)
        finally:
            await patient.delete([name])
        if held != _PROBE:
            return [Row(STORE, Status.FAIL, f"{where} gives back other bytes.", cure)]
        doing = "delete"
        if await patient.head(name) is not None:
            return [Row(STORE, Status.FAIL, f"{where} keeps what was deleted.", cure)]
    except ConfigurationError as error:
        return [Row(STORE, Status.FAIL, error.message, cure)]
    except StoreUnavailable:
        return [Row(STORE, Status.FAIL, f"{where} does not let us {doing}.", cure)]
    return [Row(STORE, Status.PASS, f"{where} takes, gives and deletes.")]
