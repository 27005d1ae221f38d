"""Readings from the kernel: processor time, memory, threads, dropped datagrams, versions.

Linux alone: everything comes from ``/proc``. Nothing here starts or stops anything.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """What the scheduler knows of a process: seconds on a core, seconds waiting for one."""

    ran: float
    waited: float

    def __sub__(self, before: CpuTime) -> CpuTime:
        return CpuTime(self.ran - before.ran, self.waited - before.waited)


def schedstat(text: str) -> CpuTime:
    """Read one ``schedstat`` line: nanoseconds run, nanoseconds waited, time slices."""
    ran, waited = text.split()[:2]
    return CpuTime(int(ran) / 1e9, int(waited) / 1e9)


def cpu_time(pid: int) -> CpuTime:
    """Scheduler time of all threads that the process has now."""
    ran = waited = 0.0
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            one = schedstat((task / "schedstat").read_text())
        except OSError:
            # The thread ended in this moment.
            continue
        ran += one.ran
        waited += one.waited
    return CpuTime(ran, waited)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return status_field((PROC / str(pid) / "status").read_text(), "VmRSS") * 1024


def thread_count(pid: int) -> int:
    """Threads of a process."""
    return status_field((PROC / str(pid) / "status").read_text(), "Threads")


def status_field(text: str, name: str) -> int:
    """One number of ``/proc/<pid>/status``; 0 where the field is missing."""
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def core_busy(core: int) -> float:
    """Seconds the core has spent on anything but idling, since boot; good to one tick."""
    return busy_seconds((PROC / "stat").read_text(), core)


def busy_seconds(text: str, core: int) -> float:
    """Read one core's line of ``/proc/stat``: all fields but idle and waiting for a disk."""
    found = re.search(rf"^cpu{core} (.+)$", text, re.MULTILINE)
    if found is None:
        return 0.0
    fields = [int(field) for field in found[1].split()]
    # user nice system idle iowait irq softirq steal; guest time is in user already.
    return sum(fields[:3] + fields[5:8]) / TICKS


def socket_drops(pid: int) -> int:
    """Datagrams that the kernel dropped at this process's UDP sockets, full buffers above all."""
    inodes = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    tables = ((PROC / str(pid) / "net" / name).read_text() for name in ("udp", "udp6"))
    return sum(drops_of(table, inodes) for table in tables)


def drops_of(table: str, inodes: set[str]) -> int:
    """Sum the ``drops`` column of ``/proc/net/udp`` over these sockets."""
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(int(row[-1]) for row in rows if len(row) >= 13 and row[9] in inodes)


def cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def processor() -> str:
    """Name of the processor and number of cores."""
    text = (PROC / "cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    virtual = " (virtual machine)" if re.search(r"\bhypervisor\b", text) else ""
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores{virtual}"


def versions() -> dict[str, str]:
    """What was measured with what."""
    names = ("aiortc", "aioice", "pylibsrtp", "av", "aiohttp")
    found = {name: importlib.metadata.version(name) for name in names}
    return {
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "OpenSSL (of ssl)": ssl.OPENSSL_VERSION.split()[1],
        **found,
    }
