"""What was written today, exactly, in memory that outlives a worker.

The note in a backing's label is ahead of what was written (vswap/store/budget.py), and a worker
that is killed loses the difference. The next one has the same memory, though, and finds here what
was true. Which is so only if nobody has used the backing in between, and if it is the same one:
the label must hold the very note that it was given last.
"""

from __future__ import annotations

from xxhash import xxh3_64_digest

__all__ = ["NoteCopy"]

_SIZE = 32
_BOTH = 2 * _SIZE


class NoteCopy:
    """The exact note, its length, the label's, and a checksum. Notes have at most 31 bytes."""

    SIZE = _BOTH + 8

    def __init__(self, memory: memoryview) -> None:
        """`memory` must hold `SIZE` bytes."""
        self._memory = memory

    def keep(self, exact: bytes, in_label: bytes) -> None:
        """`exact` is true as long as the label holds `in_label`.

        It is not stored at once: of what was stored half the checksum is wrong.
        """
        length = bytes([len(exact)])
        both = exact.ljust(_SIZE - 1, b"\0") + length + in_label.ljust(_SIZE, b"\0")
        self._memory[: self.SIZE] = both + xxh3_64_digest(both)

    def find(self, in_label: bytes | None) -> bytes:
        """The note to believe when this is in the label; None if that cannot be read."""
        both = bytes(self._memory[:_BOTH])
        if xxh3_64_digest(both) != self._memory[_BOTH : self.SIZE]:
            return in_label or b""
        if in_label == b"":
            return in_label
        if in_label is not None and both[_SIZE:] != in_label.ljust(_SIZE, b"\0"):
            return in_label
        return both[: both[_SIZE - 1]]
