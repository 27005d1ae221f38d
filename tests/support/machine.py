"""What the machine must have for a test, and what happens where it has not.

On a laptop a test that lacks a program is skipped and says why. With ``CI=true`` it fails: there
a missing program is a mistake in the machine, not a reason to test less.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the running test for `reason`, or fail it where ``CI`` is "true"."""
    if os.environ.get("CI", "").strip().lower() == "true":
        pytest.fail(f"CI=true, but {reason}", pytrace=False)
    pytest.skip(reason)


def program(*names: str) -> str:
    """The path of the first of `names` on this machine; :func:`lacking` if there is none."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    lacking(f"{' or '.join(names)} is not installed")
