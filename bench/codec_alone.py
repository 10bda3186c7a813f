"""Compressors by themselves: levels of zstd, and what a trained dictionary gains.

In the frames that the store keeps (vswap/codec/zstd.py). What does not become smaller is
counted with its own size, as the store would keep it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import zstandard

from vswap.codec import ZSTD, Bytes, Codec, Zstd

__all__ = ["Alone", "cold_levels", "dictionaries", "measure", "sample"]

COLD_UNIT = 64 << 10
LEVELS = range(1, 10)
DICTIONARY_SIZE = 112 << 10
DICTIONARY_LEVELS = (-1, 1, 3, 6)
DICTIONARY_UNITS = (4 << 10, 16 << 10, 64 << 10)
TRAINING_MIB = 16
TRAINING_UNIT = 4 << 10
TAKEN = 64 << 10  # in one piece of the source: samples keep their neighbours

Blocks = Sequence[memoryview]
T = TypeVar("T")


@dataclass(frozen=True)
class Alone:
    """A codec on units of `unit` bytes: how small, and how fast in processor time."""

    unit: int
    ratio: float
    compress_mb_s: float
    decompress_us: float


def sample(path: Path, mib: int, part: int, parts: int) -> memoryview:
    """`mib` MiB (or what there is) out of the whole file: the part-th of each `parts` pieces."""
    data = memoryview(path.read_bytes())
    mine = range(part * TAKEN, len(data) - TAKEN + 1, parts * TAKEN)
    step = max(1, len(mine) * TAKEN // (mib << 20))
    return memoryview(b"".join(data[at : at + TAKEN] for at in mine[::step]))


def cut(data: memoryview, unit: int) -> Blocks:
    """All whole units of `data`."""
    return [data[at : at + unit] for at in range(0, len(data) - unit + 1, unit)]


def measure(codec: Codec, data: memoryview, unit: int) -> Alone:
    """Compress and decompress all of `data`. Raises `ValueError` if it comes back otherwise."""
    units = cut(data, unit)
    packed, compressing = _timed(lambda: [codec.compress(block) for block in units])
    plain, decompressing = _timed(lambda: [codec.decompress(block, unit) for block in packed])
    if any(block != wanted for block, wanted in zip(plain, units, strict=True)):
        raise ValueError("a unit does not come back as it was")
    size = len(units) * unit
    return Alone(
        unit,
        size / sum(min(len(block), unit) for block in packed),
        size / compressing / 1e6,
        decompressing / len(units) * 1e6,
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


def cold_levels(data: memoryview) -> dict[int, Alone]:
    """zstd's levels for what is moved down."""
    return {level: measure(Zstd(level, COLD_UNIT), data, COLD_UNIT) for level in LEVELS}


# ---- dictionaries --------------------------------------------------------------------------


class ZstdWithDictionary:
    """`Zstd` with a dictionary that both directions know."""

    number = ZSTD

    def __init__(self, level: int, unit: int, dictionary: bytes) -> None:
        """`dictionary` as `zstandard.train_dictionary` makes it."""
        shared = zstandard.ZstdCompressionDict(dictionary)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=unit,
            dict_size=len(dictionary),
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        shared.precompute_compress(compression_params=parameters)
        self._compressor = zstandard.ZstdCompressor(dict_data=shared, compression_params=parameters)
        self._decompressor = zstandard.ZstdDecompressor(
            dict_data=shared, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        )

    def compress(self, data: Bytes) -> bytes:
        """`data` as one frame."""
        return self._compressor.compress(data)

    def decompress(self, data: Bytes, size: int) -> bytes:
        """The `size` bytes that were compressed."""
        return self._decompressor.decompress(data, max_output_size=size)


def train(data: memoryview) -> bytes:
    """A dictionary from units of a page: where one has the most to give."""
    units: list[Bytes] = [bytes(block) for block in cut(data, TRAINING_UNIT)]
    return zstandard.train_dictionary(DICTIONARY_SIZE, units).as_bytes()


def dictionaries(data: memoryview, training: memoryview) -> dict[tuple[int, int, bool], Alone]:
    """By unit, level, and whether with a dictionary. `training` should be other data."""
    dictionary = train(training)
    found = {}
    for unit in DICTIONARY_UNITS:
        for level in DICTIONARY_LEVELS:
            found[unit, level, False] = measure(Zstd(level, unit), data, unit)
            with_one = ZstdWithDictionary(level, unit, dictionary)
            found[unit, level, True] = measure(with_one, data, unit)
    return found
