"""What is kept, where and for how long: recordings on disk and in a store, the database."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, Field, SecretStr

from ..errors import ConfigurationError
from .values import HOST_NAME, VISIBLE, BaseUrl, Key

_STORE_PLACE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{1,252}(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*){0,16}"
)

MUST_BE = {
    "data_dir": "must be a folder, not a file",
    "min_free_mb": "must be a whole number of megabytes from 0 to 1000000",
    "database_url": "must be a postgresql:// address; leave it out for SQLite",
    "idempotency_days": "must be a whole number of days from 1 to 36500",
    "audit_days": "must be a whole number of days from 1 to 36500",
    "retention_days": "must be a whole number of days from 1 to 36500",
    "recordings_url": (
        "must be s3://bucket or s3://bucket/prefix, without user, query or fragment (gs:// and "
        "az:// are taken as well)"
    ),
    "s3_endpoint": "must be an http:// or https:// address",
    "s3_region": "must be the name of a region",
    "s3_access_key": "must be a key: visible ASCII characters without spaces",
    "s3_secret_key": "must be a key: visible ASCII characters without spaces",
}


class StorageSettings(BaseModel):
    """Settings of what is kept."""

    data_dir: Path = Field(default=Path("data"), validation_alias="INTERVIEW_DATA_DIR")
    """Folder that ``interviews/<id>/`` is made in, and the SQLite file."""

    min_free_mb: int = Field(
        default=200, ge=0, le=1_000_000, validation_alias="INTERVIEW_MIN_FREE_MB"
    )
    """Megabytes that must be free on the recordings' disk for an interview to begin; 0 does not
    look."""

    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    """PostgreSQL to keep the state in; None is an SQLite file in ``data_dir``. Has a password."""

    idempotency_days: int = Field(
        default=7, ge=1, le=36500, validation_alias="INTERVIEW_IDEMPOTENCY_DAYS"
    )
    """A request can be repeated by its idempotency key for so long."""

    audit_days: int = Field(default=365, ge=1, le=36500, validation_alias="INTERVIEW_AUDIT_DAYS")
    """It is kept for so long what operators did."""

    retention_days: int | None = Field(
        default=None, ge=1, le=36500, validation_alias="INTERVIEW_RETENTION_DAYS"
    )
    """Recordings are erased when they are this old; None keeps them."""

    recordings_url: str | None = Field(default=None, validation_alias="INTERVIEW_RECORDINGS_URL")
    """Object store that finished recordings move to; None leaves them in the data folder."""

    s3_endpoint: BaseUrl | None = Field(default=None, validation_alias="AWS_ENDPOINT_URL_S3")
    """Where the S3-compatible store answers; None is Amazon's own address."""

    s3_region: str | None = Field(default=None, validation_alias="AWS_REGION")
    """Region of the bucket; None is ``us-east-1``, or ``auto`` with an endpoint."""

    s3_access_key: Key | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    """None leaves it to the store's library: web identity, container or instance credentials."""

    s3_secret_key: Key | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    """Belongs to the access key."""

    @pydantic.field_validator("data_dir")
    @classmethod
    def _check_data_dir(cls, value: Path) -> Path:
        folder = value.expanduser().absolute()
        if folder.exists() and not folder.is_dir():
            raise ValueError("a file")
        return folder

    @pydantic.field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        url = urlsplit(text)
        if not VISIBLE.fullmatch(text) or url.scheme not in ("postgresql", "postgres"):
            raise ValueError("not PostgreSQL")
        if url.port == 0 or not url.path.strip("/"):
            raise ValueError("no database")
        return SecretStr(text)

    @pydantic.field_validator("recordings_url")
    @classmethod
    def _check_recordings_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.strip().rstrip("/")
        url = urlsplit(value)
        if not VISIBLE.fullmatch(value) or url.scheme not in ("s3", "gs", "az"):
            raise ValueError("not a store")
        # No "..", no empty part: the prefix becomes the beginning of keys.
        if not _STORE_PLACE.fullmatch(url.netloc + url.path) or "?" in value or "#" in value:
            raise ValueError("not a bucket with a prefix")
        return value

    @pydantic.field_validator("s3_region")
    @classmethod
    def _check_s3_region(cls, value: str | None) -> str | None:
        if value is not None and not HOST_NAME.fullmatch(value.strip()):
            raise ValueError("not a region")
        return None if value is None else value.strip()

    @pydantic.model_validator(mode="after")
    def _check_credentials(self) -> StorageSettings:
        if (self.s3_access_key is None) != (self.s3_secret_key is None) and self.recordings_url:
            raise ConfigurationError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together, or neither."
            )
        return self

    @property
    def state_url(self) -> str | None:
        """``database_url`` in plain text; None is SQLite."""
        return None if self.database_url is None else self.database_url.get_secret_value()
