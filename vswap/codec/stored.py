"""No compression: for pages that do not compress, and as a floor to measure against."""

from __future__ import annotations

from vswap.codec.base import STORED, Bytes
from vswap.errors import CorruptError

__all__ = ["Stored"]


class Stored:
    """Keeps the bytes as they are."""

    number = STORED

    def compress(self, data: Bytes) -> Bytes:
        """`data` itself, not a copy."""
        return data

    def decompress(self, data: Bytes, size: int) -> Bytes:
        """A copy, so that it outlives the segment it came from."""
        if len(data) != size:
            raise CorruptError(f"{len(data)} stored bytes where {size} were written")
        return bytes(data)
