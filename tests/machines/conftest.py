"""Fixtures of several server processes that share what they keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.notices.receiver import Receiver
from tests.recording_api.s3 import Network, network, s3_server
from tests.support.postgres import Postgres


@pytest.fixture
def shared_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database with all tables."""
    url = postgres.create(postgres_template)
    yield url
    postgres.drop(url)


@pytest.fixture
async def bucket() -> AsyncIterator[Network]:
    """A bucket of an S3 server."""
    with s3_server() as url:
        async with network(url) as relay:
            yield relay


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of notices."""
    started = await Receiver().start()
    yield started
    await started.close()
