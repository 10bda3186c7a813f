"""LZ4 blocks (raw, without a frame or a size: the unit header knows both)."""

from __future__ import annotations

from lz4.block import LZ4BlockError, compress, decompress

from vswap.codec.base import LZ4, Bytes
from vswap.errors import CorruptError

__all__ = ["Lz4"]


class Lz4:
    """LZ4's fast compressor. Both directions release the GIL."""

    number = LZ4

    def compress(self, data: Bytes) -> bytes:
        """`data` as one raw LZ4 block."""
        packed: bytes = compress(data, store_size=False)
        return packed

    def decompress(self, data: Bytes, size: int) -> bytes:
        """Raises `CorruptError` when the block is damaged or of another length."""
        try:
            plain: bytes = decompress(data, uncompressed_size=size)
        except LZ4BlockError as error:
            raise CorruptError(f"lz4: {error}") from None
        if len(plain) != size:
            raise CorruptError(f"lz4: {len(plain)} bytes where {size} were written")
        return plain
