"""``docs/reliability.md``: each command writes its own section and leaves the others alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
TOP: Final = """# Reliability

What long use and attacks leave behind, as measured. Each section names the command that writes it.
"""


def put(page: str, heading: str, body: str) -> str:
    """The page with this section, in place of the one of that heading or behind all others."""
    parts = re.split(r"(?m)^(?=## )", page or TOP)
    made = f"## {heading}\n\n{body.strip()}\n"
    kept = [part.rstrip() + "\n" for part in parts]
    for place, part in enumerate(kept):
        if part.startswith(f"## {heading}\n"):
            kept[place] = made
            break
    else:
        kept.append(made)
    return "\n".join(kept)


def write(heading: str, body: str, path: Path = PAGE) -> None:
    """Put the section into the file."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(put(before, heading, body), encoding="utf-8")
