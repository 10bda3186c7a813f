"""The memory that outlives a worker: a header and four regions, each a memfd.

docs/format.md has the layout. The header says what the other regions hold, and is checked
before anything else is believed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vswap.errors import StateError
from vswap.geometry import SEGMENT_SIZE, Geometry
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.zeromap import Zeromap

__all__ = ["Shape", "State"]

_MAGIC = b"vswapmem"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQQ")
assert _HEADER.size == 40


@dataclass(frozen=True)
class Shape:
    """What must agree between the workers that use one state.

    `buffers` receive buffers of `buffer_size` bytes (a whole number of pages) each.
    """

    geometry: Geometry
    segments: int
    buffers: int
    buffer_size: int

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
    segments: Region
    buffers: Region

    @classmethod
    def create(cls, shape: Shape) -> State:
        """A new, empty device. Costs no memory but the header's page."""
        header = Region.create("header", _HEADER.size)
        header.view[: _HEADER.size] = shape.header()
        return cls(
            shape,
            header,
            Region.create("zeromap", Zeromap.region_size(shape.geometry)),
            Region.create("table", SwapTable.region_size(shape.geometry)),
            Region.create("segments", shape.segments * SEGMENT_SIZE),
            Region.create("buffers", shape.buffers * shape.buffer_size),
        )

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

    def regions(self) -> tuple[Region, Region, Region, Region, Region]:
        """All of them, in the order of their descriptors."""
        return self.header, self.zeromap, self.table, self.segments, self.buffers

    def fds(self) -> list[int]:
        """The descriptors, in the order that `attach` takes them."""
        return [region.fd for region in self.regions()]

    def buffer(self, index: int) -> memoryview:
        """Receive buffer number `index`."""
        size = self.shape.buffer_size
        return self.buffers.view[index * size : (index + 1) * size]

    def close(self) -> None:
        """Close the descriptors."""
        for region in self.regions():
            region.close()
