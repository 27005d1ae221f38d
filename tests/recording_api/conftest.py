"""Fixtures of kept recordings: one S3 server for all, a fresh bucket and a folder for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import SessionId
from tests.recording.folders import finished

from .s3 import Network, network, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
async def bucket(s3: str) -> AsyncIterator[Network]:
    """A fresh bucket, reached over a network that can be spoilt."""
    async with network(s3) as relay:
        yield relay


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder to copy from; making one takes seconds."""
    return finished(tmp_path_factory.mktemp("finished"), "one").path


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> InterviewFolder:
    """A finished interview called "one" in ``tmp_path``."""
    copy = InterviewFolder(tmp_path, SessionId("one"))
    shutil.copytree(model_folder, copy.path)
    return copy
