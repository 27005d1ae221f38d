"""Limits of open files and sockets: raised at the start, and no surprise when reached.

What changes the limit of a whole process is tried in a child.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interview_peer.errors import AtCapacity, OutOfDescriptors
from interview_peer.media.descriptors import REMIND_SECONDS, WANTED, Descriptors, ran_out
from interview_peer.media.udp import RECEIVE_BUFFER_BYTES, UdpPort
from tests.support.server import ROOT


def in_child(program: str) -> str:
    """What a Python program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "now"),
    [
        (100, 400, 131072, 400),
        (100, 400, 200, 200),
        (300, 400, 200, 300),
        (400, 400, 131072, 400),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_wanted_and_permitted_and_never_lowered(
    soft: int, hard: int, wanted: int, now: int
) -> None:
    said = in_child(
        "import resource\n"
        "from interview_peer.media.descriptors import raise_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"print(raise_limit({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert said == f"{now} {now} {hard}"


def test_a_limit_that_the_system_refuses_after_all_is_left() -> None:
    said = in_child(
        "import resource\n"
        "from interview_peer.media.descriptors import raise_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))\n"
        "def refuse(*arguments): raise ValueError('not allowed to raise maximum limit')\n"
        "resource.setrlimit = refuse\n"
        "print(raise_limit())"
    )
    assert said == "100"


LEAVING_FEW = """
import asyncio, os, resource
from interview_peer.errors import OutOfDescriptors
from interview_peer.media.descriptors import Descriptors
from interview_peer.media.udp import UdpPort

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

async def tell(what):
    try:
        result = what()
        if asyncio.iscoroutine(result):
            (await result).close()
        print("well")
    except OutOfDescriptors as error:
        print(error.code, error.status)

async def main():
    descriptors = Descriptors(60, spare=20)
    before = descriptors.open
    await tell(descriptors.require)
    assert descriptors.open == before, "some were kept"
    held = []
    while descriptors.open < 45:
        held.append(os.open(os.devnull, os.O_RDONLY))
    await tell(descriptors.require)
    await tell(lambda: UdpPort.open("127.0.0.1"))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    await tell(lambda: UdpPort.open("127.0.0.1"))
    await tell(descriptors.require)
    for one in held:
        os.close(one)
    await tell(descriptors.require)
    print(descriptors.refused)

asyncio.run(main())
"""


def test_what_would_leave_too_few_is_refused_and_room_is_noticed_again() -> None:
    full = f"{OutOfDescriptors.code} {OutOfDescriptors.status}"
    assert in_child(LEAVING_FEW).splitlines() == ["well", full, "well", full, full, "well", "2"]
    assert (OutOfDescriptors.status, issubclass(OutOfDescriptors, AtCapacity)) == (503, True)


@pytest.mark.parametrize(
    ("limit", "interviews", "enough"),
    [(None, 10_000, True), (WANTED, 10_000, True), (1024, 100, True), (256, 100, False)],
)
def test_a_limit_is_judged_by_the_interviews_that_are_to_run(
    limit: int | None, interviews: int, enough: bool
) -> None:
    assert Descriptors(limit).suffice_for(interviews) is enough


@pytest.fixture
def clock() -> Iterator[list[float]]:
    yield [1000.0]


def test_a_want_is_counted_each_time_and_logged_once_in_a_while(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    descriptors = Descriptors(60, clock=lambda: clock[0])
    with caplog.at_level("WARNING"):
        for _ in range(5):
            descriptors.count()
        clock[0] += REMIND_SECONDS - 1
        descriptors.count()
        assert len(caplog.records) == 1
        clock[0] += 1
        descriptors.count()
    assert len(caplog.records) == 2
    assert descriptors.refused == 7
    assert caplog.records[1].__dict__["refused"] == 7


async def test_a_connection_that_cannot_be_accepted_is_no_traceback_and_others_stay_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, descriptors = asyncio.get_running_loop(), Descriptors(60)
    want = OSError(errno.EMFILE, "Too many open files")
    descriptors.guard(
        loop, {"message": "socket.accept() out of system resource", "exception": want}
    )
    assert [(one.levelno, one.exc_info) for one in caplog.records] == [(logging.WARNING, None)]
    descriptors.guard(loop, {"message": "a defect", "exception": RuntimeError("x")})
    assert caplog.records[1].levelno == logging.ERROR
    assert descriptors.refused == 1


def test_only_a_want_of_descriptors_is_one() -> None:
    assert ran_out(OSError(errno.EMFILE, "")) and ran_out(OSError(errno.ENFILE, ""))
    assert not ran_out(OSError(errno.ENOENT, "")) and not ran_out(ValueError(errno.EMFILE))


RMEM_MAX = Path("/proc/sys/net/core/rmem_max")


async def test_room_for_waiting_datagrams_is_told_as_the_kernel_gives_it() -> None:
    port = await UdpPort.open("127.0.0.1")
    port.close()
    assert 0 < port.receive_buffer <= RECEIVE_BUFFER_BYTES
    if await asyncio.to_thread(RMEM_MAX.exists):
        most = int(await asyncio.to_thread(RMEM_MAX.read_text))
        assert port.receive_buffer == min(most, RECEIVE_BUFFER_BYTES)
