"""Programs that check files which are not Python: they come with the test dependencies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def findings(program: str, *arguments: str) -> str:
    """What ``hadolint`` or ``shellcheck`` says of a file; nothing when all is well."""
    place = Path(sys.executable).parent / program
    done = subprocess.run([place, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert bool(done.returncode) == bool(done.stdout), done
    return done.stdout
