"""The name of a data folder: where the files of an interview are, whoever recorded them.

Kept in the folder, and the same for every process that shares it, now or after a restart.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

FILE: Final = "place"


def place_of(data_dir: Path) -> str:
    """The folder's name, made if there is none. Waits for the disk.

    Raises ``OSError`` if the folder cannot be written.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(data_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Two processes that begin at once agree on one name.
        fcntl.flock(file, fcntl.LOCK_EX)
        name = os.read(file, 64).decode("ascii", "replace").strip()
        if not name:
            name = f"place_{secrets.token_hex(8)}"
            os.write(file, f"{name}\n".encode())
            os.fsync(file)
        return name
    finally:
        os.close(file)
