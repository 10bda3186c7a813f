"""What memory is behind a region, found out without touching it.

A look through the mapping would allocate what it looks at; lseek and pread do not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from vswap.geometry import PAGE_SIZE
from vswap.store.region import Region

__all__ = ["data_extents", "data_pages", "peek", "words_in"]


def data_extents(region: Region) -> Iterator[tuple[int, int]]:
    """The parts of the region that are no holes, as (start, stop) in bytes."""
    stop = 0
    while stop < region.size:
        try:
            start = os.lseek(region.fd, stop, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        stop = os.lseek(region.fd, start, os.SEEK_HOLE)
        yield start, stop


def data_pages(region: Region) -> set[int]:
    """The numbers of the pages that have memory behind them."""
    return {
        page
        for start, stop in data_extents(region)
        for page in range(start // PAGE_SIZE, -(-stop // PAGE_SIZE))
    }


def peek(region: Region, offset: int, length: int) -> bytes:
    """The bytes there; a hole reads as zeros and stays a hole."""
    return os.pread(region.fd, length, offset)


def words_in(region: Region) -> dict[int, int]:
    """The region's 64-bit words that are not 0, each by its number."""
    found = {}
    for start, stop in data_extents(region):
        words = np.frombuffer(peek(region, start, stop - start), np.uint64)
        for at in np.flatnonzero(words).tolist():
            found[start // 8 + at] = int(words[at])
    return found
