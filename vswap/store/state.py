"""The memory that outlives a worker: a header and eight regions, each a memory file.

docs/format.md has the layout. The header says what the other regions hold, and is checked
before anything else is believed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vswap.errors import StateError
from vswap.geometry import PAGE_SIZE, SEGMENT_SHIFT, SEGMENT_SIZE, Geometry
from vswap.store.dictionary import REGION_SIZE
from vswap.store.disk_log import KEY_SIZE, DiskLog
from vswap.store.entry import MAX_SEGMENTS
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.words import FillWords
from vswap.store.zeromap import Zeromap

__all__ = ["Shape", "State"]

_MAGIC = b"vswapmem"
_VERSION = 4
_HEADER = struct.Struct("<8sIIQQQ")
assert _HEADER.size == 40

_LIMIT = 5
"""Place of a 64-bit number in the header: the memory limit in force. It is stored whole, so a
worker that is killed leaves the old one or the new."""
_NOT_SET, _NO_LIMIT = 0, 1

_OUTSTANDING_SIZE = 128 << 10
"""Bytes for requests that have left their receive buffers and are not answered yet."""


@dataclass(frozen=True)
class Shape:
    """What must agree between the workers that use one state.

    `buffers` receive buffers of `buffer_size` bytes (a whole number of pages) each.
    """

    geometry: Geometry
    segments: int
    buffers: int
    buffer_size: int

    @property
    def backing_segments(self) -> int:
        """The most disk segments that are used: room for all pages as they are, and to spare.

        The more is free, the less often dead space between what lives has to be won back.
        """
        return min(4 * (self.geometry.size >> SEGMENT_SHIFT) + 64, MAX_SEGMENTS)

    def sizes(self) -> dict[str, int]:
        """Bytes of each region, in whole pages, when all of it is in use."""
        return {
            "header": PAGE_SIZE,
            "zeromap": -(-Zeromap.region_size(self.geometry) // PAGE_SIZE) * PAGE_SIZE,
            "table": SwapTable.region_size(self.geometry),
            "words": FillWords.region_size(),
            "dictionary": REGION_SIZE,
            "backing": -(-DiskLog.region_size(self.backing_segments) // PAGE_SIZE) * PAGE_SIZE,
            "segments": self.segments * SEGMENT_SIZE,
            "buffers": self.buffers * self.buffer_size,
            "outstanding": _OUTSTANDING_SIZE,
        }

    def overhead(self) -> int:
        """The most bytes that all but the segments can ever cost."""
        sizes = self.sizes()
        return sum(sizes.values()) - sizes["segments"]

    def header(self) -> bytes:
        """The header region's content."""
        return _HEADER.pack(
            _MAGIC, _VERSION, self.buffers, self.geometry.size, self.segments, self.buffer_size
        )


@dataclass(frozen=True)
class State:
    """The regions of one device."""

    shape: Shape
    header: Region
    zeromap: Region
    table: Region
    words: Region
    dictionary: Region
    backing: Region
    segments: Region
    buffers: Region
    outstanding: Region

    @classmethod
    def create(cls, shape: Shape, *, resident: bool = False) -> State:
        """A new, empty device. Costs no memory but the header's page and the key's.

        It is to be `resident` if anything is to be swapped out to it: see `vswap.memfile`.
        """
        sizes = shape.sizes().items()
        regions = [Region.create(name, size, resident=resident) for name, size in sizes]
        regions[0].view[: _HEADER.size] = shape.header()
        state = cls(shape, *regions)
        # The key of whatever will be written to a disk: it is here, and nowhere else.
        state.backing.view[:KEY_SIZE] = os.urandom(KEY_SIZE)
        return state

    @classmethod
    def attach(cls, shape: Shape, fds: Sequence[int]) -> State:
        """The device that another worker left, from `fds()`. They belong to this state then.

        Raises `StateError` if it was made by another version or in another shape.
        """
        if os.fstat(fds[0]).st_size < _HEADER.size:
            raise StateError("the state has no vswap header")
        header = Region(fds[0])
        found = bytes(header.view[: _HEADER.size])
        magic, version, *_ = _HEADER.unpack(found)
        if magic != _MAGIC:
            raise StateError("the state has no vswap header")
        if version != _VERSION:
            raise StateError(f"the state has version {version}, and this code reads {_VERSION}")
        if found != shape.header():
            raise StateError("the state was made with other sizes than these settings give")
        return cls(shape, header, *map(Region, fds[1:]))

    def regions(self) -> tuple[Region, ...]:
        """All of them, in the order of their descriptors."""
        return tuple(getattr(self, name) for name in self.shape.sizes())

    def fds(self) -> list[int]:
        """The descriptors, in the order that `attach` takes them."""
        return [region.fd for region in self.regions()]

    @property
    def memory_limit_set(self) -> bool:
        """Whether a worker has set `memory_limit`."""
        return self.header.view.cast("Q")[_LIMIT] != _NOT_SET

    @property
    def memory_limit(self) -> int | None:
        """The memory limit that was set last, in bytes; None if that was for there to be none."""
        limit = self.header.view.cast("Q")[_LIMIT]
        return None if limit in (_NOT_SET, _NO_LIMIT) else limit

    def keep_memory_limit(self, limit: int | None) -> None:
        """Let the next worker find this limit."""
        self.header.view.cast("Q")[_LIMIT] = _NO_LIMIT if limit is None else limit

    def populate_index(self) -> None:
        """Have memory behind all that says where pages are: 2 MiB for each GiB of the device."""
        for region in (self.table, self.zeromap, self.words):
            region.populate(0, region.size)

    def buffer(self, index: int) -> memoryview:
        """Receive buffer number `index`."""
        size = self.shape.buffer_size
        return self.buffers.view[index * size : (index + 1) * size]

    def close(self) -> None:
        """Close the descriptors."""
        for region in self.regions():
            region.close()
