"""The store: puts the parts together and gives out lanes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import numpy as np

from vswap.codec import codec
from vswap.errors import UserError
from vswap.geometry import (
    CLUSTER_SHIFT,
    PAGE_SIZE,
    SEGMENT_SIZE,
)
from vswap.store.appender import Appender
from vswap.store.audit import Findings, audit
from vswap.store.backing_desk import BackingDesk
from vswap.store.cache import FrontCache, Presence
from vswap.store.cut import by_cluster
from vswap.store.derive import derive
from vswap.store.dictionary import Dictionary
from vswap.store.disk import Disk
from vswap.store.entry import IDLE
from vswap.store.fetch import Fetched, Fetcher, Gap
from vswap.store.lane import Counters, FetchLane, Lane
from vswap.store.locks import ClusterLocks
from vswap.store.log import Log
from vswap.store.parts import Parts
from vswap.store.policy import Policy, least_memory
from vswap.store.promote import Promoter
from vswap.store.reader import Reader
from vswap.store.room import Room
from vswap.store.select import Selection, in_cache, is_older
from vswap.store.state import State
from vswap.store.stats import StoreStatistics
from vswap.store.table import SwapTable
from vswap.store.upkeep import Upkeep
from vswap.store.words import FillWords
from vswap.store.writer import Writer
from vswap.store.zeromap import Zeromap

__all__ = ["Store"]

_NOTE_SECONDS = 0.01
"""How long after one look at the memory in use the next is worth its system calls."""


class Store:
    """One device's pages. Safe for any number of lanes, each used by one thread."""

    def __init__(
        self, state: State, policy: Policy, wake: Callable[[], None] = lambda: None
    ) -> None:
        """`state` is new, or what an earlier worker left that has ended, however it did.

        What such a worker left is looked through once, which takes some 15 ms for 4 GiB of pages.
        The memory limit is then what it was last set to; it is the policy's in a new state. What
        is on disk can be read when the backing is attached again (`BackingDesk.attach`).
        `wake` is called when `maintain` has something to do. Raises `StateError` for a state that
        no worker can have left.
        """
        geometry = state.shape.geometry
        self.geometry = geometry
        self._state = state
        self._policy = policy
        table = SwapTable(state.table, geometry, keep=policy.keep_table)
        self._log = Log(state.segments, policy.reserve, None, wake)
        self._parts = Parts(
            geometry=geometry,
            memory=state.segments.view,
            locks=ClusterLocks(),
            zeromap=Zeromap(state.zeromap, geometry),
            table=table,
            words=FillWords(state.words),
            dictionary=Dictionary(state.dictionary),
            cache=FrontCache(table),
            log=self._log,
            disk=Disk(state.backing, state.shape.backing_segments),
        )
        self._fetched = Fetched()
        self._lanes: list[Lane] = []
        self._fetch_lanes: list[FetchLane] = []
        self._lanes_lock = threading.Lock()
        self._memory_used_max = 0
        self._memory_noted = 0.0
        self._upkeep = Upkeep(
            self._parts,
            codec(policy.codec, policy.unit_pages * PAGE_SIZE),
            self._requests,
            policy.loaded_first,
        )
        self.backing = BackingDesk(self._parts, self._upkeep)
        self._promoter = Promoter(self._parts, self._upkeep.jobs, self._upkeep.lock)
        self._room = Room(self._log, self._upkeep.reclaim, self._upkeep.retry)
        self._took_over = derive(state, self._parts)
        if state.memory_limit_set:
            self._use_memory_limit(state.memory_limit)
        else:
            self.set_memory_limit(policy.memory_limit)

    def lane(
        self,
        begin: Callable[[], None] = lambda: None,
        between: Callable[[], None] = lambda: None,
        fetch_ahead: Callable[[Gap], None] = lambda _: None,
    ) -> Lane:
        """A new lane, with an open segment of its own. Raises `FullError` if there is none.

        On what an earlier worker left it may begin without one, if none is free, and never fails.

        `begin` is called when a write of it begins to make room by cleaning, or to wait for the
        disk, which take long;
        `between` between the units of a write while many pages are left, with no lock held.
        `fetch_ahead` is told of units on disk that a `FetchLane` should have ready.
        """
        parts, unit_pages = self._parts, self._policy.unit_pages
        own = codec(self._policy.codec, unit_pages * PAGE_SIZE)
        decoder = parts.decoder()
        reader = Reader(parts, decoder, self._fetched, fetch_ahead)
        fetcher = Fetcher(parts, decoder, self._fetched, reader.look, self._promoter.read)
        appender = Appender(self._log, parts.memory, partial(self._room.take, begin))
        if self._took_over:
            appender.open_at_hand()
        else:
            appender.ensure(1)
        prepare = partial(self._room.prepare, begin)

        def fetch(gap: Gap) -> None:
            begin()
            fetcher.fill(gap)

        writer = Writer(parts, reader, appender, own, unit_pages, prepare, between, fetch)
        lane = Lane(parts, reader, writer, fetcher)
        with self._lanes_lock:
            self._lanes.append(lane)
        return lane

    def fetch_lane(self) -> FetchLane:
        """A new one, for reads that `Lane.look` has parked."""
        lane = FetchLane(self._fetcher(self._fetched, self._promoter.read))
        with self._lanes_lock:
            self._fetch_lanes.append(lane)
        return lane

    def close(self) -> None:
        """Let the backing go; what is on it is lost. Nothing else may be called after."""
        with self._upkeep.lock:  # whoever writes to it has done so then
            self._parts.disk.let_go()

    # --- Upkeep ---------------------------------------------------------------------------

    def maintain(self) -> None:
        """Background work: keep segments ready; to be called when `wake` has been.

        Raises `OSError` when the kernel has no memory for them.
        """
        self._log.maintain(idle=False)

    def step(self) -> float:
        """Background work: a bounded piece of cleaning or moving down, if any is due.

        Answers the seconds after which to call again. Safe beside `maintain`. Raises `OSError`
        as that does.
        """
        step = self._upkeep.step()
        if step.resting:
            self._log.maintain(idle=True)
        if (now := time.monotonic()) >= self._memory_noted + _NOTE_SECONDS:
            self._memory_noted = now
            self._note_memory()
        return step.pause

    def set_memory_limit(self, limit: int | None) -> None:
        """Bound the memory behind the state, in bytes; None: only by the device's size.

        What is over it is given back as fast as cleaning can. Raises `UserError` for a limit
        with which the device could not work.
        """
        if limit is not None and limit < (least := least_memory(self._state.shape)):
            raise UserError(
                f"memory limit must be at least {-(-least >> 20)}M for this device, "
                f"not {limit} bytes"
            )
        self._use_memory_limit(limit)
        self._state.keep_memory_limit(limit)

    def _use_memory_limit(self, limit: int | None) -> None:
        room = None if limit is None else limit - self._state.shape.overhead()
        self._memory_limit = limit
        self._log.set_limit(None if room is None else room // SEGMENT_SIZE)
        self._room.reopen()

    def compact(self) -> int:
        """Win back all dead space that can be; how many segments were cleaned."""
        cleaned = self._upkeep.compact()
        self._log.maintain(idle=True)
        return cleaned

    def recompress(self, selection: Selection, max_pages: int | None = None) -> int:
        """Move down the pages selected, about `max_pages` at most; how many were moved."""
        return self._upkeep.recompress(selection, max_pages)

    def mark_idle(self, age: float = 0.0) -> int:
        """Mark as idle the pages written at least `age` seconds ago; how many are.

        Reading a page takes the mark away; writing it, too.
        """
        parts, now, marked = self._parts, time.monotonic(), 0
        for cluster in np.flatnonzero(parts.table.counts).tolist():
            with parts.locks[cluster]:
                entries = parts.table.page(cluster)
                chosen = in_cache(entries)
                if age:
                    chosen &= is_older(entries, parts.log.born, now - age)
                parts.table.mark(cluster, chosen, IDLE)
                marked += int(np.count_nonzero(chosen))
        return marked

    # --- Looking --------------------------------------------------------------------------

    def presence(self, slot: int, count: int) -> tuple[Presence, int]:
        """How much of a range the front cache holds, and the first run's length.

        As `FrontCache.presence`, for any range; over several clusters the answer may be of
        different instants. Raises `UserError` for a range that is not on the device.
        """
        if slot < 0 or count < 1 or slot + count > self.geometry.slots:
            raise UserError(f"the device has no {count} slots from {slot} on")
        of_all: Presence | None = None
        run = 0
        for first, pages in by_cluster(slot, count):
            with self._parts.locks[first >> CLUSTER_SHIFT]:
                state, length = self._parts.cache.presence(first, pages)
                if state is Presence.MIXED:
                    state, _ = self._parts.cache.presence(first, length)
            if of_all is not None and state is not of_all:
                return Presence.MIXED, run
            of_all = state
            run += length
            if length < pages:
                return Presence.MIXED, run
        assert of_all is not None
        return of_all, run

    def check(self) -> Findings:
        """Compare everything the store derives with what is really there. See `audit`."""
        fetched = Fetched()  # its own: what is on the disk is to be read there
        return audit(self._parts, self._fetcher(fetched))

    def _fetcher(
        self, fetched: Fetched, on_read: Callable[[Gap, bytes], None] = lambda _gap, _unit: None
    ) -> Fetcher:
        """One with a decoder and a reader of its own."""
        parts, decoder = self._parts, self._parts.decoder()
        return Fetcher(parts, decoder, fetched, Reader(parts, decoder, fetched).look, on_read)

    def _requests(self) -> int:
        with self._lanes_lock:
            counters = [lane.counters for lane in self._lanes]
        return sum(one.reads + one.writes + one.discards for one in counters)

    def _note_memory(self) -> int:
        used = sum(region.allocated() for region in self._state.regions())
        self._memory_used_max = max(self._memory_used_max, used)
        return used

    def statistics(self) -> StoreStatistics:
        """A snapshot. Counters of different lanes are read one after the other."""
        parts, state = self._parts, self._state
        log, backing = self._log.statistics(), self.backing.statistics()
        with self._lanes_lock:
            lanes: list[Lane | FetchLane] = [*self._lanes, *self._fetch_lanes]
        done: dict[str, Any] = {
            field.name: sum(getattr(lane.counters, field.name) for lane in lanes)
            for field in fields(Counters)
        }
        zeros, fills = int(parts.zeromap.counts.sum()), parts.words.pages
        return StoreStatistics(
            size=self.geometry.size,
            orig_data_size=(log.pages_live + backing.backing_pages) * PAGE_SIZE,
            compr_data_size=log.bytes_live,
            mem_used_total=self._note_memory(),
            mem_limit=self._memory_limit or 0,
            mem_used_max=self._memory_used_max,
            huge_pages=log.huge_pages,
            huge_pages_since=log.huge_pages_since,
            stored_pages=log.pages_live,
            cold_pages=log.pages_cold,
            zero_pages=zeros,
            fill_pages=fills,
            same_pages=zeros + fills,
            clusters_used=int(np.count_nonzero(parts.table.counts)),
            segment_bytes=state.segments.allocated(),
            table_bytes=state.table.allocated(),
            zeromap_bytes=state.zeromap.allocated(),
            buffer_bytes=state.buffers.allocated(),
            segments_open=log.segments_open,
            segments_sealed=log.segments_sealed,
            segments_ready=log.segments_ready,
            dead_bytes=self._log.sealed().dead_bytes(),
            dictionary_bytes=len(parts.dictionary.content),
            dictionary_saving=parts.dictionary.saving or 0.0,
            **asdict(self._upkeep.statistics()),
            **asdict(backing),
            promoted_pages=self._promoter.pages,
            **done,
        )
