"""How many bytes the objects of this process take, by its allocators' own books.

Resident memory cannot tell: Python's allocator gives an arena of a mebibyte back only when nothing
at all is left in it, so pages of the highest load ever are kept by the few small objects that
happened to land there. What is in use is free of that. CPython and glibc alone.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import re
import sys
import tempfile
from typing import Final

SQLITE_STATUS_PAGECACHE_OVERFLOW: Final = 2
"""Of ``sqlite3.h``: bytes of pages that were taken from the heap, which is all of them where no
memory was set apart for pages."""


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` of ``<malloc.h>`` (glibc 2.33), see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def held_bytes() -> int:
    """Bytes in use: small Python objects, and everything taken from the C library.

    Writes to stderr are caught for a moment: Python prints its books and does not return them.
    """
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    with tempfile.TemporaryFile() as books:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(books.fileno(), 2)
            sys._debugmallocstats()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        books.seek(0)
        small = in_small_blocks(books.read().decode())
    known = mallinfo2()
    return small + int(known.uordblks) + int(known.hblkhd)


def in_small_blocks(books: str) -> int:
    """What ``sys._debugmallocstats`` says is in use; 0 where all comes from the C library."""
    found = re.search(r"bytes in allocated blocks\s*=\s*([\d,]+)", books)
    return int(found[1].replace(",", "")) if found else 0


def page_cache_bytes() -> int:
    """What the pages take that SQLite keeps in memory, of all databases of this process.

    0 where its library cannot be asked. It is part of what ``held_bytes`` counts.
    """
    # Beside itself, the loader looks where the module is linked to.
    library = ctypes.CDLL(_sqlite3.__file__)
    now, most = ctypes.c_int64(), ctypes.c_int64()
    try:
        refused = library.sqlite3_status64(
            SQLITE_STATUS_PAGECACHE_OVERFLOW, ctypes.byref(now), ctypes.byref(most), 0
        )
    except AttributeError:
        return 0
    return 0 if refused else now.value
