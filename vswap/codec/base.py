"""What the store asks of a compressor, and the numbers that unit headers hold.

A codec turns the pages of one unit into bytes and back. Its number is written into every
unit header, so a number once given away is never given to another format.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["LZ4", "STORED", "ZSTD", "ZSTD_DICTIONARY", "Bytes", "Codec"]

Bytes = bytes | bytearray | memoryview

STORED = 0
LZ4 = 1
ZSTD = 2
ZSTD_DICTIONARY = 3


class Codec(Protocol):
    """A compressor for the use of one thread: it may keep scratch state between calls."""

    @property
    def number(self) -> int:
        """The number that unit headers hold."""

    def compress(self, data: Bytes) -> Bytes:
        """`data` in this codec's form; may be longer than `data`, and may be `data` itself."""

    def decompress(self, data: Bytes, size: int) -> Bytes:
        """The `size` bytes that `data` was made from.

        Raises `CorruptError` when `data` does not decode to exactly that many bytes.
        """
