"""Whether one more interview may begin here now, and if not, why.

The one place that decides it: offers are refused by it, and readiness tells it. Interviews that
run are never touched.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import AtCapacity, DiskFull, Draining, InterviewPeerError
from ..storage.room import Room


class Openings:
    """The bounds of one server."""

    def __init__(self, most: int, room: Room | None = None) -> None:
        """``most`` interviews at once; ``room`` knows the disk, None is one without end."""
        self.most = most
        self.draining = False
        """Whether no interview is to begin any more; set once, by ``close``."""
        self._room = room
        self._listeners: list[Callable[[], None]] = []

    def listen(self, closed: Callable[[], None]) -> None:
        """Have ``closed`` called, once no interview is to begin any more; it must not raise."""
        self._listeners.append(closed)

    def close(self) -> None:
        """Let no interview begin any more. Again is harmless."""
        if not self.draining:
            self.draining = True
            for closed in self._listeners:
                closed()

    def hindrances(self, running: int) -> list[type[InterviewPeerError]]:
        """Everything that keeps another interview from beginning, while ``running`` run."""
        found: list[type[InterviewPeerError]] = []
        if self.draining:
            found.append(Draining)
        if running >= self.most:
            found.append(AtCapacity)
        if self._room is not None and self._room.full:
            found.append(DiskFull)
        return found

    def require(self, running: int) -> None:
        """Let another interview begin.

        A disk that fails costs the recording and is told, but keeps nobody out: it may be back.

        Raises:
            Draining, AtCapacity, DiskFull: not now.
        """
        for hindrance in self.hindrances(running):
            raise hindrance

    @property
    def disk_unusable(self) -> bool:
        """Whether nothing can be written to the data folder."""
        return self._room is not None and self._room.unusable
