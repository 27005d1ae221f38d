"""The media room's tests run twice where packets are forwarded: natively, and in Python."""

from __future__ import annotations

import os

import pytest

from interview_peer.media import native

FORWARDING = {"test_forwarder", "test_leg", "test_lossy_link", "test_meters", "test_udp"}


@pytest.fixture(autouse=True)
def forwarding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """How this test's packets are forwarded: ``native`` or ``python``; None: it does not matter."""
    way: str | None = getattr(request, "param", None)
    if way == "native" and not native.BUILT:
        reason = "the native forwarder was not built: there is no C compiler"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    if way == "python":
        monkeypatch.setattr(native, "BUILT", False)
    return way


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the forwarding modules' tests both ways, those marked ``python_forwarding`` one way."""
    if metafunc.module.__name__.rpartition(".")[2] in FORWARDING:
        ways = ["native", "python"]
        if metafunc.definition.get_closest_marker("python_forwarding"):
            ways = ["python"]
        metafunc.parametrize("forwarding", ways, indirect=True)
