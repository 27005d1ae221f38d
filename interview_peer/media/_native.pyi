from collections import deque
from collections.abc import Callable
from typing import Any

from .udp import Address

MAX_DATAGRAM: int
TRAILER_ROOM: int
BATCH: int
FLOOR_DISTANCE: int
CLOCK_RATE: int

def configure(unprotect: int, protect: int, bounds: tuple[float, ...], late: float, /) -> None: ...

class Lane:
    irregular: Callable[[int, float], None] | None
    @property
    def armed(self) -> bool: ...
    @property
    def last_at(self) -> float: ...
    def arm(
        self,
        *,
        rx: int,
        tx: int,
        keep: object,
        fd: int,
        to: Address | None,
        in_ssrc: int,
        in_payload_type: int,
        out_ssrc: int,
        out_payload_type: int,
        sequence_offset: int,
        timestamp_offset: int,
        floor: int,
        last_sequence: int,
        last_timestamp: int,
        last_at: float,
        highest: int,
        jitter: float,
        transit: float,
        heard_at: float,
    ) -> None: ...
    def disarm(self) -> None: ...
    def tap(
        self,
        waiting: deque[Any] | None,
        limit: int,
        function: Callable[[float, int, int, int, bytes], None] | None,
        /,
    ) -> None: ...
    def settle(self) -> tuple[Any, ...]: ...

class Reader:
    peer: Lane | None
    def __init__(
        self,
        fd: int,
        buffer: bytearray,
        lanes: dict[bytes, Lane],
        other: Callable[[int, Address | None, float], None],
        /,
    ) -> None: ...
    def shared(self) -> None: ...
    def connected(self) -> None: ...
    def close(self) -> None: ...
