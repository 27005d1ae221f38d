"""The object store that finished recordings move to: the only module that knows ``obstore``.

Tried against an S3-protocol server. Google's and Azure's stores come with the library and are
untested. Every error of the store comes out as ``StoreUnavailable``; the log says which it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from ..errors import ConfigurationError, StoreUnavailable
from .finished import Place

if TYPE_CHECKING:
    # Shapes of plain dictionaries, which exist for type checkers alone.
    from obstore.store import ClientConfig, RetryConfig, S3Config

log = logging.getLogger(__name__)

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
"""Files are read in pieces of this size, each a request of its own with its own time limit: a slow
listener would outlast the time limit of one for all."""

PART_BYTES: Final = 5 << 20
"""Larger files are uploaded in parts of this size, the smallest that S3 takes."""

CLIENT: Final[ClientConfig] = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=30),
}
RETRY: Final[RetryConfig] = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""The library's own patience is minutes; who waits longer than this is the keeper."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach an S3-compatible store; None leaves it to the library and the machine."""

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """An object as the store lists it. ``tag`` changes whenever its bytes are replaced."""

    key: str
    size: int
    tag: str | None
    modified: datetime


class Store:
    """Objects by key, below the prefix of the store's address.

    Raises ``StoreUnavailable``, or what ``trouble`` makes more exact of it, wherever the store
    does not answer, or refuses.
    """

    def __init__(
        self,
        backend: S3Store | GCSStore | AzureStore,
        place: Place,
        trouble: type[StoreUnavailable] = StoreUnavailable,
    ) -> None:
        self._backend = backend
        self._trouble = trouble
        self.place = place
        """Address without a final slash, as it was configured."""

    @classmethod
    def open(
        cls,
        url: str,
        s3: S3Access | None = None,
        *,
        client: ClientConfig = CLIENT,
        retry: RetryConfig = RETRY,
        trouble: type[StoreUnavailable] = StoreUnavailable,
    ) -> Store:
        """The store at ``s3://bucket/prefix`` (or ``gs://``, ``az://``); nothing is sent yet.

        Raises:
            ConfigurationError: the store cannot be used with these settings.
        """
        scheme, _, place = url.rstrip("/").partition("://")
        bucket, _, prefix = place.partition("/")
        backend: S3Store | GCSStore | AzureStore
        try:
            if scheme == "s3":
                backend = _s3(bucket, prefix, s3 or S3Access(), client, retry)
            elif scheme == "gs":
                backend = GCSStore(
                    bucket, prefix=prefix or None, client_options=client, retry_config=retry
                )
            elif scheme == "az":
                backend = AzureStore(
                    bucket, prefix=prefix or None, client_options=client, retry_config=retry
                )
            else:
                raise ConfigurationError(f"There is no store behind {scheme}:// addresses.")
        except (BaseError, ValueError) as error:
            log.error("the recordings' store cannot be opened", extra={"why": _name(error)})
            raise ConfigurationError(
                "INTERVIEW_RECORDINGS_URL names a store that cannot be used with these settings."
            ) from None
        endpoint = s3.endpoint if s3 is not None and scheme == "s3" else None
        return cls(backend, Place(url.rstrip("/"), endpoint), trouble)

    async def put_file(self, path: Path, key: str, content_type: str, name: str) -> None:
        """Upload a file; a reader finds the old object or the new one, never a part.

        ``name`` is what a browser calls it that gets it from a presigned address.
        """
        disposition = f'attachment; filename="{name}"'
        await self._asked(
            obstore.put_async(
                self._backend,
                key,
                path,
                attributes={"Content-Type": content_type, "Content-Disposition": disposition},
                chunk_size=PART_BYTES,
                max_concurrency=3,
            )
        )

    async def put_bytes(self, data: bytes, key: str, content_type: str) -> None:
        """The same with bytes in memory, which nobody gets from a presigned address."""
        await self._asked(
            obstore.put_async(self._backend, key, data, attributes={"Content-Type": content_type})
        )

    async def head(self, key: str) -> Held | None:
        """The object of that key, or None."""
        try:
            meta = await obstore.head_async(self._backend, key)
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise self._unavailable(error) from None
        return Held(key, meta["size"], meta["e_tag"], meta["last_modified"])

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to, not including, ``end``, in pieces."""
        while start < end:
            stop = min(start + PIECE_BYTES, end)
            piece = await self._asked(
                obstore.get_range_async(self._backend, key, start=start, end=stop)
            )
            if len(piece) != stop - start:
                log.error("the recordings' store sent too little")
                raise self._trouble
            start = stop
            yield bytes(piece)

    async def read_whole(self, key: str) -> bytes | None:
        """A small object as a whole, or None if there is none."""
        try:
            result = await obstore.get_async(self._backend, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise self._unavailable(error) from None

    async def sha256(self, held: Held) -> str:
        """The hash of an object's bytes, read back from the store."""
        digest = hashlib.sha256()
        async for piece in self.read(held.key, 0, held.size):
            # A megabyte takes longer than the event loop may be held.
            await asyncio.to_thread(digest.update, piece)
        return digest.hexdigest()

    async def url_for(self, key: str, seconds: float) -> str | None:
        """An address that anybody can read the object at for a while; None where the store, or its
        credentials, cannot sign."""
        try:
            return await obstore.sign_async(
                self._backend, "GET", key, expires_in=timedelta(seconds=seconds)
            )
        except (BaseError, ValueError) as error:
            log.debug("no presigned address", extra={"why": _name(error)})
            return None

    async def under(self, folder: str = "") -> list[Held]:
        """Every object below ``folder/``, or all of them."""
        found: list[Held] = []
        try:
            async for batch in obstore.list(self._backend, prefix=folder or None):
                found += [
                    Held(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])
                    for meta in batch
                ]
        except BaseError as error:
            raise self._unavailable(error) from None
        return found

    async def delete(self, keys: list[str]) -> None:
        """Delete objects; one that is gone already is no error."""
        for key in keys:
            try:
                await obstore.delete_async(self._backend, key)
            except FileNotFoundError:
                continue
            except BaseError as error:
                raise self._unavailable(error) from None

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (BaseError, FileNotFoundError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        # Its text can show keys and addresses, so its kind has to do.
        log.warning("the recordings' store did not do it", extra={"why": _name(error)})
        return self._trouble()


def _s3(
    bucket: str, prefix: str, access: S3Access, client: ClientConfig, retry: RetryConfig
) -> S3Store:
    config: S3Config = {}
    if access.endpoint is not None:
        config["endpoint"] = access.endpoint
    # Stores beside Amazon's have one region and call it so.
    region = access.region or ("auto" if access.endpoint else None)
    if region is not None:
        config["region"] = region
    if access.access_key is not None and access.secret_key is not None:
        config["access_key_id"] = access.access_key
        config["secret_access_key"] = access.secret_key
    options: ClientConfig = {**client}
    if access.endpoint is not None and access.endpoint.startswith("http://"):
        options["allow_http"] = True
    return S3Store(
        bucket, prefix=prefix or None, config=config, client_options=options, retry_config=retry
    )


def _name(error: Exception) -> str:
    return type(error).__name__
