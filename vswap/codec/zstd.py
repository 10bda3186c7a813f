"""Zstandard frames without magic, size, checksum or dictionary id.

The unit header holds the codec, the sizes and a checksum, so a frame need not: 4 to 10 bytes
less for each unit.
"""

from __future__ import annotations

import zstandard

from vswap.codec.base import ZSTD, Bytes
from vswap.errors import CorruptError

__all__ = ["Zstd"]

_ANNOUNCES_SIZE = 0xE0
"""Bits of a frame's first byte (RFC 8878, 3.1.1.1.1) that our frames have clear: the decoder
would allocate whatever size a damaged frame announces."""


class Zstd:
    """One compression level of zstd. Holds contexts, so each thread needs its own."""

    number = ZSTD

    def __init__(self, level: int = 1) -> None:
        """`level` as zstd counts; negative ones trade ratio for speed."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)

    def compress(self, data: Bytes) -> bytes:
        """`data` as one frame."""
        return self._compressor.compress(data)

    def decompress(self, data: Bytes, size: int) -> bytes:
        """Raises `CorruptError` when the frame is damaged or of another length."""
        if data and data[0] & _ANNOUNCES_SIZE:
            raise CorruptError("zstd: a frame that no encoder of ours made")
        try:
            plain = self._decompressor.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise CorruptError(f"zstd: {error}") from None
        if len(plain) != size:
            raise CorruptError(f"zstd: {len(plain)} bytes where {size} were written")
        return plain
