"""How a store is set, and what that needs."""

from __future__ import annotations

from dataclasses import dataclass

from vswap.geometry import MAX_UNIT_PAGES, SEGMENT_SHIFT, SEGMENT_SIZE, Geometry
from vswap.store.entry import MAX_SEGMENTS
from vswap.store.places import KEPT
from vswap.store.state import Shape

__all__ = ["Policy", "least_memory", "segments_for"]


@dataclass(frozen=True)
class Policy:
    """How a store compresses and what it may use.

    `codec` is a name in `CODECS`, for what is written; `unit_pages` the most pages compressed
    together then, a power of two up to 16; `memory_limit` bounds the memory behind the state,
    in bytes (None: only by the device's size); `reserve` is how many segments are kept ready.
    With `keep_table` the table's pages stay when their clusters are empty.
    `loaded_first`: pages that were read are the first to be moved down.
    docs/codecs.md has the measurements behind the defaults.
    """

    codec: str = "zstd-fast"
    unit_pages: int = 4
    memory_limit: int | None = None
    reserve: int = 4
    loaded_first: bool = True
    keep_table: bool = False

    def __post_init__(self) -> None:
        """Units must be aligned powers of two for writes to be cut at folio boundaries."""
        assert self.unit_pages in (1, 2, 4, 8, 16)
        assert self.unit_pages <= MAX_UNIT_PAGES


def segments_for(geometry: Geometry, lanes: int) -> int:
    """How many segments the log of a device needs address space for.

    Dead space goes only when all of a segment is dead, so pages overwritten in random order
    want more room than the device's size; memory is only taken for what is in use. The
    largest devices get as much as entries can name.
    """
    return min(2 * (geometry.size >> SEGMENT_SHIFT) + 2 * lanes + 16, MAX_SEGMENTS)


def least_memory(shape: Shape) -> int:
    """The least memory limit, in bytes, that a device of this shape can work with.

    All that is not segments, and for each lane two of these, one for the cleaner to fill and
    those that it keeps.
    """
    return shape.overhead() + (2 * shape.buffers + 1 + KEPT) * SEGMENT_SIZE
