"""The server that the cost of recording is taken from: the same one, with nowhere to record."""

from __future__ import annotations

from bench import subjects
from bench.subjects import Place


def test_server_with_nowhere_to_record_gets_ready() -> None:
    # Nobody calls, so nobody answers at the far end.
    with subjects.our_server("http://127.0.0.1:9/v1", Place(0), recording=False) as subject:
        assert subject.url.startswith("http://")
