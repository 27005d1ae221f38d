"""A UDP socket that can be cut off, as a network that fails: nothing goes out, nothing comes in."""

from __future__ import annotations

from ..media.udp import Address, UdpPort


class Wire(UdpPort):
    """One call's socket. It stays bound when cut, so that the far end gets no ICMP error."""

    is_cut = False

    def cut(self) -> None:
        """Lose the network for good."""
        self.is_cut = True
        if self.descriptor() >= 0:
            self._loop.remove_reader(self.descriptor())

    def send(self, data: bytes | bytearray | memoryview, addr: Address) -> bool:
        """Send, or after ``cut`` pretend to."""
        return True if self.is_cut else super().send(data, addr)
