"""Starts what is measured and the load generator, each pinned to its core; stops them again.

Everything runs on this machine's own addresses, in a temporary folder, and ends with the block.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import glob
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from interview_peer.media.addresses import default_address
from interview_peer.notices import signing
from interview_peer.types import Json

ROOT: Final = Path(__file__).resolve().parents[1]
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
ANSWER_SECONDS: Final = 180.0
_OURS: Final = ("INTERVIEW_", "OPENAI_", "LOG_LEVEL", "SIMULATION_MODE", "PORT")


class BenchFailed(Exception):
    """The benchmark cannot go on; the sentence says why."""


@dataclass(frozen=True)
class Place:
    """Where a process runs, and whether it goes before ordinary ones."""

    core: int
    realtime: bool = False


@dataclass(frozen=True)
class Subject:
    """A running server."""

    url: str
    pid: int


class Generator:
    """The load generator's process, spoken to in lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.far_end: str | None = self._read()["far_end"]

    def ask(self, do: str, **arguments: Any) -> Json:
        """Give one command and wait for its answer.

        Raises:
            BenchFailed: it failed, or took too long.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Json:
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise BenchFailed(f"the load generator ended:\n{_tail(self._log)}")
        answer: Json = json.loads(line)
        if "error" in answer:
            raise BenchFailed(f"the load generator: {answer['error']}")
        return answer


@contextlib.contextmanager
def load_generator(kind: str, place: Place) -> Iterator[Generator]:
    """A generator of ``bench.load``'s kinds, on this core."""
    # Janus never uses loopback's own address, so its callers live on the machine's.
    host = default_address() if kind == "janus" else "127.0.0.1"
    with _folder() as folder:
        log = folder / "generator.log"
        command = [sys.executable, "-m", "bench.load", kind, host]
        with _process(command, place, log, stdin=subprocess.PIPE) as process:
            yield Generator(process, log)


UNLIMITED: Final = {
    "INTERVIEW_REQUESTS_PER_SECOND": "0",
    "INTERVIEW_REQUESTS_PER_MINUTE": "0",
    "INTERVIEW_OFFERS_PER_MINUTE": "0",
    "INTERVIEW_SOCKETS_PER_MINUTE": "0",
}
"""For a load generator, which is one address."""


@contextlib.contextmanager
def our_server(
    far_end: str,
    place: Place,
    *,
    recording: bool = True,
    limited: bool = False,
    webhook: str | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Iterator[Subject]:
    """The real server, live, recording, with the generator's far end as the voice service.

    Args:
        far_end: URL of the generator's far end.
        place: where it runs.
        recording: without, it finds no folder that it could record into.
        limited: one address gets no more than it does by default.
        webhook: where it sends notices.
        prepare: is handed the data folder before the server starts.
    """
    with _folder() as folder:
        if prepare is not None:
            prepare(folder / "data")
        environment = {
            "OPENAI_API_KEY": "bench-key",
            "OPENAI_BASE_URL": far_end,
            "INTERVIEW_ALLOW_ANONYMOUS": "true",
            "INTERVIEW_UDP_HOST": "127.0.0.1",
            "INTERVIEW_UDP_PORT": "0",
            "INTERVIEW_DATA_DIR": str(folder / "data"),
            "INTERVIEW_MAX_INTERVIEWS": "1000",
            "INTERVIEW_DRAIN_SECONDS": "0",
            "LOG_LEVEL": "warning",
        }
        if not limited:
            environment |= UNLIMITED
        if webhook is not None:
            environment |= {
                "INTERVIEW_WEBHOOK_URL": webhook,
                "INTERVIEW_WEBHOOK_SECRET": signing.new_secret(),
                "INTERVIEW_WEBHOOK_ALLOW": "127.0.0.0/8",
            }
        command = [sys.executable, "-m", "interview_peer", "serve", "--port", "0"]
        log = folder / "server.log"
        with _process(command, place, log, environment=environment, cwd=folder) as process:
            url = _ready(process, log)
            if not recording:
                # Only now: a server that could not record from the beginning does not start.
                shutil.rmtree(folder / "data" / "interviews")
                (folder / "data" / "interviews").write_text("in the way")
            yield Subject(url, process.pid)


@contextlib.contextmanager
def plain_relay(far_end: str, place: Place) -> Iterator[Subject]:
    """aiortc's own way of relaying."""
    with _folder() as folder:
        log = folder / "plain.log"
        command = [sys.executable, "-m", "bench.plain_relay", far_end]
        with _process(command, place, log) as process:
            yield Subject(_ready(process, log), process.pid)


@contextlib.contextmanager
def slow_receiver(seconds: float, place: Place) -> Iterator[str]:
    """A receiver of notices that takes so long for each answer; its URL."""
    with _folder() as folder:
        log = folder / "receiver.log"
        command = [sys.executable, "-m", "bench.notices", "--receive", "204"]
        with _process([*command, "--slow", str(seconds)], place, log) as process:
            yield _ready(process, log) + "/"


def janus_missing() -> str | None:
    """Why Janus cannot be measured here; None if it can."""
    if shutil.which("janus") is None:
        return "Janus is not installed (Debian: apt-get install janus)"
    if not _janus_libraries():
        return "Janus' plugins were not found"
    if default_address().startswith("127."):
        return "Janus needs an address beside loopback and this machine has none"
    return None


@contextlib.contextmanager
def janus(place: Place) -> Iterator[Subject]:
    """Debian's Janus with its echo test and nothing else, configured in a folder of its own."""
    libraries = _janus_libraries()
    port = _free_port()
    address = default_address()
    with _folder() as folder:
        for name in ("plugins", "transports", "events", "loggers"):
            (folder / name).mkdir()
        for name in ("plugins/libjanus_echotest.so", "transports/libjanus_websockets.so"):
            (folder / name).symlink_to(Path(libraries) / name)
        (folder / "janus.jcfg").write_text(
            f"""
general: {{
    configs_folder = "{folder}"
    plugins_folder = "{folder}/plugins"
    transports_folder = "{folder}/transports"
    events_folder = "{folder}/events"
    loggers_folder = "{folder}/loggers"
    debug_level = 2
    session_timeout = 0
}}
media: {{
    ipv6 = false
}}
nat: {{
    nice_debug = false
    ice_enforce_list = "{address}"
}}
"""
        )
        (folder / "janus.transport.websockets.jcfg").write_text(
            f"""
general: {{
    json = "compact"
    ws = true
    ws_ip = "127.0.0.1"
    ws_port = {port}
    wss = false
}}
admin: {{
    admin_ws = false
    admin_wss = false
}}
"""
        )
        log = folder / "janus.log"
        command = ["janus", "-C", str(folder / "janus.jcfg"), "-F", str(folder)]
        with _process(command, place, log) as process:
            _wait_for_port(port, process, log)
            yield Subject(f"ws://127.0.0.1:{port}", process.pid)


def _janus_libraries() -> str:
    found = glob.glob("/usr/lib/*/janus/plugins/libjanus_echotest.so")
    return str(Path(found[0]).parents[1]) if found else ""


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="interview_peer_bench_", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


@contextlib.contextmanager
def _process(
    command: Sequence[str],
    place: Place,
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    output: IO[str]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            # Servers say little on stdout; Janus says much and is not read.
            stdout=output if command[0] == "janus" else subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=cwd,
            env={**kept, "PYTHONPATH": str(ROOT), **(environment or {})},
            preexec_fn=_prepared(place),
        )
        try:
            yield process
        finally:
            _stop(process)


def may_run_realtime() -> bool:
    """Whether processes can be put before all ordinary ones of the machine."""
    try:
        subprocess.run(
            ["true"],
            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _prepared(place: Place) -> Callable[[], None]:
    """What a child does before it becomes the program: choose its core, die with its parent, leave
    no image of its memory behind when it crashes, as Janus may: that is half a gigabyte."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    set_parent_death_signal = 1

    def prepare() -> None:
        os.sched_setaffinity(0, {place.core})
        if place.realtime:
            # Not for what it starts in turn: a mix before the server would hold it for as long.
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(1))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        libc.prctl(set_parent_death_signal, signal.SIGKILL)

    return prepare


def _stop(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    """The address in the first line that names one."""
    assert process.stdout is not None
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            if found := re.search(r"https?://\S+", line):
                return found[0].rstrip("/")
    finally:
        watchdog.cancel()
    raise BenchFailed(f"a server did not get ready:\n{_tail(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchFailed(f"Janus did not get ready:\n{_tail(log)}")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return ""
