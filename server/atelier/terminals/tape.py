"""The newest bytes that a terminal has shown, each at its place counted from the first that it ever showed."""

from __future__ import annotations

KEPT = 256 * 1024
_SPARE = 64 * 1024  # trimmed in steps, not with every byte


class Tape:
    """Bytes `start` to `end`."""

    def __init__(self) -> None:
        self.start = 0
        self._bytes = bytearray()

    @property
    def end(self) -> int:
        """The place after the last byte."""
        return self.start + len(self._bytes)

    def add(self, data: bytes) -> None:
        """Take more; the oldest go, up to the end of a line so that what is left begins with a whole one."""
        self._bytes += data
        if len(self._bytes) > KEPT + _SPARE:
            cut = len(self._bytes) - KEPT
            line = self._bytes.find(b"\n", cut, cut + _SPARE)
            cut = cut if line < 0 else line + 1
            del self._bytes[:cut]
            self.start += cut

    def skip_to(self, place: int) -> None:
        """Forget everything and go on at a later place: what lies between has been missed."""
        self._bytes.clear()
        self.start = place

    def since(self, place: int, most: int) -> bytes:
        """Return up to `most` bytes from a place that is still here."""
        first = place - self.start
        return bytes(self._bytes[first : first + most])
