"""A private PostgreSQL on loopback: Debian's programs, a folder of its own, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

USER = "interview"


class Postgres:
    """One cluster. It refuses to run as root, so root lends it another user."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log.txt"
        self._account = _account() if os.getuid() == 0 else None
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self.port = _free_port()
        self.runs = False
        self._run(
            "initdb",
            *("-D", str(self._data), "-U", USER, "-A", "trust"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        )

    def start(self) -> None:
        """Start it, on the same port as ever; returns when it takes connections."""
        # Nothing here must outlive the machine, so it need not wait for the disk.
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off"
        options += f" -c unix_socket_directories={self._data.parent} -c max_connections=200"
        self._control("start", "-o", options, "-l", str(self._log))
        self.runs = True

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" ends every connection in order, "immediate" as a crash would."""
        self._control("stop", "-m", mode)
        self.runs = False

    def create(self, template: str = "template0") -> str:
        """Make a database; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        # Copying files is several times as fast where nothing need be kept; new in version 15.
        how = "STRATEGY file_copy" if _version(self._programs) >= 15 else ""
        self._order(f"CREATE DATABASE {name} TEMPLATE {template} {how}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Remove a database and whoever is connected to it."""
        self._order(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def _order(self, statement: str) -> None:
        """Have it do something. Not by its programs: each takes longer to start than to be done."""

        async def give() -> None:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user=USER, database="postgres", timeout=60
            )
            try:
                await connection.execute(statement, timeout=60)
            finally:
                await connection.close()

        # In a loop of its own: some of those who ask are in one already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, give()).result()

    def _control(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", "30", action, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        account = self._account
        # Output to a file: a server that was started keeps it open, and a pipe would never end.
        with tempfile.TemporaryFile() as output:
            code = subprocess.run(
                [self._programs / program, *arguments],
                cwd="/",
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                timeout=60,
            ).returncode
            output.seek(0)
            assert code == 0, f"{program}: {output.read().decode(errors='replace')}"


def programs() -> Path | None:
    """Where the newest installed PostgreSQL has its programs, if there is one."""
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (other := shutil.which("initdb")):
        found = [Path(other).resolve()]
    return max(found, key=lambda one: _version(one.parent)).parent if found else None


def _version(place: Path) -> int:
    """15 of .../postgresql/15/bin."""
    name = place.parent.name
    return int(name) if name.isdecimal() else 0


@contextlib.contextmanager
def running_postgres(place: Path) -> Iterator[Postgres]:
    """A cluster that runs, from the programs in ``place``."""
    # Not below pytest's own folder, which only its user may enter.
    with tempfile.TemporaryDirectory(prefix="interview-postgres-") as folder:
        server = Postgres(place, Path(folder))
        server.start()
        try:
            yield server
        finally:
            if server.runs:
                server.stop("immediate")


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("neither postgres nor nobody is a user of this machine")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
