"""Runs one command of an unpacked image as an engine would with ``--read-only --cap-drop=ALL``.

``python cell.py SPECIFICATION`` (JSON, see ``Cell``) needs root. The command is the first process
of a process namespace, with the image's files as its root: nothing of it can be written but the
folders that are mounted. SIGTERM goes on to it, and its exit code comes back.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from typing import Final, TypedDict

NEW_MOUNTS: Final = 0x00020000
NEW_PROCESSES: Final = 0x20000000
PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
DEVICES: Final = ("null", "zero", "full", "random", "urandom")
FLY_RIGHTS: Final = frozenset((0, 1, 3, 5, 6, 7))
"""What remains to a target that enters as root: CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and
SETUID, all of them in the default set of engines."""

libc = ctypes.CDLL(None, use_errno=True)


class Cell(TypedDict):
    """What to run, and in what."""

    root: str
    data: str
    """A folder of the host that is seen as ``/data``."""
    environment: dict[str, str]
    directory: str
    user: int
    group: int
    command: list[str]


def main(text: str) -> int:
    """The command's exit code; 128 and the signal's number when one ended it."""
    cell: Cell = json.loads(text)
    _check(libc.unshare(NEW_MOUNTS | NEW_PROCESSES))
    child = os.fork()
    if child == 0:
        try:
            _become(cell)
        except BaseException as error:
            print(f"the cell broke: {error!r}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(125)
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(cell: Cell) -> None:
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    root = cell["root"]
    _mount("--make-rprivate", "/")
    _mount("--bind", root, root)
    for folder in ("proc", "dev", "tmp", "data"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    with open(f"{root}/etc/hosts", "a"):
        pass
    _mount("--bind", "/etc/hosts", f"{root}/etc/hosts")
    _mount("-t", "proc", "proc", f"{root}/proc")
    _mount("-t", "tmpfs", "tmpfs", f"{root}/dev")
    for device in DEVICES:
        with open(f"{root}/dev/{device}", "w"):
            pass
        _mount("--bind", f"/dev/{device}", f"{root}/dev/{device}")
    os.mkdir(f"{root}/dev/shm", 0o1777)
    os.chmod(f"{root}/dev/shm", 0o1777)
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp")
    _mount("--bind", cell["data"], f"{root}/data")
    _mount("-o", "remount,bind,ro", root)
    os.chroot(root)
    os.chdir(cell["directory"])
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for right in range(64):
        # One that the kernel does not know is refused; nothing is lost.
        if cell["user"] or right not in FLY_RIGHTS:
            libc.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)
    os.setgroups([])
    os.setresgid(cell["group"], cell["group"], cell["group"])
    os.setresuid(cell["user"], cell["user"], cell["user"])
    os.environ.clear()
    os.environ.update(cell["environment"])
    os.execvp(cell["command"][0], cell["command"])


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
