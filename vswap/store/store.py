"""The store: puts the parts together and gives out lanes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields

from vswap.codec import CODECS, codec
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SHIFT, SEGMENT_SIZE, Geometry
from vswap.store.appender import Appender
from vswap.store.cache import FrontCache
from vswap.store.entry import MAX_SEGMENTS
from vswap.store.lane import Counters, Lane
from vswap.store.locks import ClusterLocks
from vswap.store.log import Log
from vswap.store.parts import Parts
from vswap.store.reader import Reader
from vswap.store.state import State
from vswap.store.stats import StoreStatistics
from vswap.store.table import SwapTable
from vswap.store.unit import Decoder
from vswap.store.writer import Writer
from vswap.store.zeromap import Zeromap

__all__ = ["Policy", "Store", "segments_for"]


@dataclass(frozen=True)
class Policy:
    """How a store compresses and what it may use.

    `codec` is a name in `CODECS`; `unit_pages` the most pages compressed together, a power
    of two up to 16; `memory_limit` bounds the segments' memory, in bytes (None: only by the
    device's size); `reserve` is how many segments are kept ready.
    """

    codec: str = "lz4"
    unit_pages: int = 4
    memory_limit: int | None = None
    reserve: int = 8

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


class Store:
    """One device's pages. Safe for any number of lanes, each used by one thread."""

    def __init__(
        self, state: State, policy: Policy, wake: Callable[[], None] = lambda: None
    ) -> None:
        """`state` must be new. `wake` is called when `maintain` has something to do."""
        geometry = state.shape.geometry
        self.geometry = geometry
        self._state = state
        self._policy = policy
        table = SwapTable(state.table, geometry)
        limit = policy.memory_limit
        self._parts = Parts(
            geometry=geometry,
            memory=state.segments.view,
            locks=ClusterLocks(),
            zeromap=Zeromap(state.zeromap, geometry),
            table=table,
            cache=FrontCache(table),
            log=Log(
                state.segments,
                policy.reserve,
                None if limit is None else limit // SEGMENT_SIZE,
                wake,
            ),
        )
        self._lanes: list[Lane] = []
        self._lanes_lock = threading.Lock()
        self._memory_used_max = 0

    def lane(self) -> Lane:
        """A new lane, with an open segment of its own. Raises `FullError` if there is none."""
        parts = self._parts
        own = codec(self._policy.codec)
        codecs = sorted((make() for make in CODECS.values()), key=lambda made: made.number)
        reader = Reader(parts, Decoder(parts.memory, codecs))
        appender = Appender(parts.log, parts.memory)
        lane = Lane(parts, reader, Writer(parts, reader, appender, own, self._policy.unit_pages))
        with self._lanes_lock:
            self._lanes.append(lane)
        return lane

    def maintain(self, idle: bool = False) -> None:
        """Background work: keep segments ready. See `Log.maintain`.

        To be called when `wake` has been, and with `idle` once no wake has come for a while.
        """
        self._parts.log.maintain(idle)
        self._note_memory()

    def _note_memory(self) -> int:
        used = sum(region.allocated() for region in self._state.regions())
        self._memory_used_max = max(self._memory_used_max, used)
        return used

    def statistics(self) -> StoreStatistics:
        """A snapshot. Counters of different lanes are read one after the other."""
        parts = self._parts
        log = parts.log.statistics()
        with self._lanes_lock:
            lanes = tuple(self._lanes)
        done = {
            field.name: sum(getattr(lane.counters, field.name) for lane in lanes)
            for field in fields(Counters)
        }
        used = self._note_memory()
        return StoreStatistics(
            size=self.geometry.size,
            orig_data_size=log.pages_live * PAGE_SIZE,
            compr_data_size=log.bytes_live,
            mem_used_total=used,
            mem_limit=self._policy.memory_limit or 0,
            mem_used_max=self._memory_used_max,
            huge_pages=log.huge_pages,
            huge_pages_since=log.huge_pages_since,
            stored_pages=log.pages_live,
            zero_pages=int(parts.zeromap.counts.sum()),
            clusters_used=int((parts.table.counts != 0).sum()),
            segment_bytes=self._state.segments.allocated(),
            table_bytes=self._state.table.allocated(),
            zeromap_bytes=self._state.zeromap.allocated(),
            buffer_bytes=self._state.buffers.allocated(),
            segments_open=log.segments_open,
            segments_sealed=log.segments_sealed,
            segments_ready=log.segments_ready,
            **done,
        )
