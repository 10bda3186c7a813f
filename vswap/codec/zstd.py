"""Zstandard frames without magic, size, checksum or dictionary id.

The unit header holds the codec, the sizes and a checksum, so a frame need not: 4 to 10 bytes
less for each unit. Frames made with a dictionary have a codec number of their own.
"""

from __future__ import annotations

import zstandard

from vswap.codec.base import ZSTD, ZSTD_DICTIONARY, Bytes
from vswap.errors import CorruptError

__all__ = ["Zstd"]

_ANNOUNCES_SIZE = 0xE0
"""Bits of a frame's first byte (RFC 8878, 3.1.1.1.1) that our frames have clear: the decoder
would allocate whatever size a damaged frame announces."""


class Zstd:
    """One compression level of zstd. Holds contexts, so each thread needs its own."""

    def __init__(self, level: int, unit_size: int, dictionary: bytes = b"") -> None:
        """`level` as zstd counts; negative ones trade ratio for speed.

        The compressor's tables are made for units of `unit_size` bytes: small ones are
        cleared sooner and stay in the processor's caches. Decompressing does not depend on
        either, but needs the same `dictionary` (one that `train` made).
        """
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=unit_size,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        form = zstandard.FORMAT_ZSTD1_MAGICLESS
        self.number = ZSTD_DICTIONARY if dictionary else ZSTD
        if dictionary:
            known = zstandard.ZstdCompressionDict(dictionary)
            self._compressor = zstandard.ZstdCompressor(
                compression_params=parameters, dict_data=known
            )
            self._decompressor = zstandard.ZstdDecompressor(format=form, dict_data=known)
        else:
            self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
            self._decompressor = zstandard.ZstdDecompressor(format=form)

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


def train(samples: list[Bytes], size: int, level: int) -> bytes:
    """A dictionary of at most `size` bytes for what resembles `samples`; empty if there is none.

    Takes some hundred milliseconds for a few MB, without the GIL, and five times their memory.
    """
    try:
        return zstandard.train_dictionary(size, samples, level=level).as_bytes()
    except zstandard.ZstdError:  # too few samples, or too much alike
        return b""
