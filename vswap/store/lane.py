"""A lane: one thread's way into the store.

A lane has an open segment, codecs and counters of its own, so that lanes meet only at the
cluster locks and the log's. Requests are in bytes and may lie anywhere; a page is the unit
of storage, so what covers a part of one is read, changed and written back under its lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vswap.codec import Bytes
from vswap.errors import FullError, NoDataError, RangeError, RequestError, UnsupportedError
from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, PAGE_SHIFT, PAGE_SIZE
from vswap.store.fetch import Fetcher, Gap, Parked
from vswap.store.parts import Parts
from vswap.store.reader import Reader
from vswap.store.writer import Writer

__all__ = ["Counters", "FetchLane", "Lane"]

_IN_PAGE = PAGE_SIZE - 1
_IN_CLUSTER = CLUSTER_SLOTS - 1


@dataclass
class Counters:
    """What one lane has done; requests, and pages where it says so. Only ever growing."""

    reads: int = 0
    writes: int = 0
    discards: int = 0
    pages_read: int = 0
    pages_written: int = 0
    failed_reads: int = 0
    failed_writes: int = 0
    invalid_io: int = 0
    notify_free: int = 0
    pool_limit_hit: int = 0


class FetchLane:
    """Finishes what waits for the disk, for one thread at a time."""

    def __init__(self, fetcher: Fetcher) -> None:
        """`fetcher` must be its own."""
        self.counters = Counters()
        self._fetcher = fetcher

    def finish(self, read: Parked) -> Sequence[Bytes]:
        """What `Lane.read` would have answered. Raises as that does."""
        try:
            return self._fetcher.finish(read)
        except RequestError:
            self.counters.failed_reads += 1
            raise

    def fetch_ahead(self, gap: Gap) -> None:
        """Have a unit ready that will probably be wanted. Raises nothing that reading it would."""
        with suppress(RequestError, OSError):
            self._fetcher.unit(gap.slot, gap.entry, gap.sequence)


class Lane:
    """Serves requests for one thread at a time."""

    def __init__(self, parts: Parts, reader: Reader, writer: Writer, fetcher: Fetcher) -> None:
        """All but `parts` must be this lane's own."""
        self.counters = Counters()
        self._parts = parts
        self.size = parts.geometry.size
        self._reader = reader
        self._writer = writer
        self._fetcher = fetcher
        self.read_ahead = reader.read_ahead
        """For the time between two requests: see `Reader.read_ahead`."""

    def read(self, offset: int, size: int) -> Sequence[Bytes]:
        """Buffers that together hold the bytes asked for; fewer at the device's end.

        Raises `CorruptError` if a page cannot be had exactly as it was written, `MediumError` if
        the disk does not give it.
        """
        found = self.look(offset, size)
        if not isinstance(found, Parked):
            return found
        try:
            return self._fetcher.finish(found)
        except RequestError:
            self.counters.failed_reads += 1
            raise

    def look(self, offset: int, size: int) -> Sequence[Bytes] | Parked:
        """As `read`, but what waits for the disk is for somebody else to finish."""
        counters = self.counters
        counters.reads += 1
        try:
            if size == PAGE_SIZE and not offset & _IN_PAGE and offset < self.size:
                counters.pages_read += 1
                page = self._reader.page(offset >> PAGE_SHIFT)
                return Parked([b""], [page], 0, PAGE_SIZE) if isinstance(page, Gap) else (page,)
            return self._look_any(offset, min(size, self.size - offset))
        except RequestError:
            counters.failed_reads += 1
            raise

    def _look_any(self, offset: int, size: int) -> Sequence[Bytes] | Parked:
        if size <= 0:
            return ()
        slot = offset >> PAGE_SHIFT
        count = (offset + size - 1 >> PAGE_SHIFT) - slot + 1
        self.counters.pages_read += count
        buffers, gaps = self._reader.pages(slot, count)
        start = offset & _IN_PAGE
        if gaps:
            return Parked(buffers, gaps, start, size)
        if count << PAGE_SHIFT == size:
            return buffers
        return (memoryview(b"".join(buffers))[start : start + size],)

    def write(self, offset: int, data: memoryview) -> None:
        """Store `data`, all of it or, for whole pages, nothing.

        Raises `FullError` or `RangeError`; what was stored before is then still there.
        """
        counters = self.counters
        counters.writes += 1
        size = len(data)
        try:
            self._check_range(offset, size)
            if (offset | size) & _IN_PAGE:
                self._write_any(offset, data)
            elif size == PAGE_SIZE:
                self._writer.page(offset >> PAGE_SHIFT, data)
            elif size:
                self._writer.pages(offset >> PAGE_SHIFT, data)
        except RequestError as error:
            counters.failed_writes += 1
            counters.pool_limit_hit += isinstance(error, FullError)
            raise
        if size:
            counters.pages_written += (offset + size - 1 >> PAGE_SHIFT) - (offset >> PAGE_SHIFT) + 1

    def _write_any(self, offset: int, data: memoryview) -> None:
        for at, size in _whole_and_partial(offset, len(data)):
            piece = data[at - offset : at - offset + size]
            if size & _IN_PAGE:
                self._writer.part(at >> PAGE_SHIFT, at & _IN_PAGE, piece)
            else:
                self._writer.pages(at >> PAGE_SHIFT, piece)

    def discard(self, offset: int, length: int) -> None:
        """Make a range read as zeros. Whole pages in it are free when this returns."""
        self.counters.discards += 1
        self._check_range(offset, length)
        for at, size in _whole_and_partial(offset, length):
            if size & _IN_PAGE:
                self._writer.zero_part(at >> PAGE_SHIFT, at & _IN_PAGE, size)
            else:
                self._free(at >> PAGE_SHIFT, size >> PAGE_SHIFT)

    def _free(self, slot: int, count: int) -> None:
        parts = self._parts
        last = slot + count - 1
        for cluster in parts.clusters_in_use(slot >> CLUSTER_SHIFT, last >> CLUSTER_SHIFT):
            first = max(slot, cluster << CLUSTER_SHIFT)
            end = min(slot + count, cluster + 1 << CLUSTER_SHIFT)
            with parts.locks[cluster]:
                self.counters.notify_free += parts.free(first, end - first)

    def seek(self, offset: int, whence: int) -> int:
        """Where the next data or hole begins, in bytes (lseek(2); zero pages are holes).

        Raises `NoDataError` from the end on or when no data follows, `UnsupportedError` for
        any other `whence`. Takes the state of each cluster as it comes to it.
        """
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise UnsupportedError(f"lseek whence {whence}")
        if not 0 <= offset < self.size:
            raise NoDataError(f"seek from {offset}")
        data = whence == os.SEEK_DATA
        slot = self._next(offset >> PAGE_SHIFT, data)
        if data and slot == self._parts.geometry.slots:
            raise NoDataError(f"no data from {offset} on")
        return max(offset, slot << PAGE_SHIFT)

    def _next(self, slot: int, data: bool) -> int:
        """The first slot from `slot` on that is stored, or that is not; or the end."""
        parts = self._parts
        end = parts.geometry.slots
        while slot < end:
            cluster = slot >> CLUSTER_SHIFT
            if not parts.table.counts[cluster]:
                if not data:
                    return slot
                following = parts.table.next_cluster(cluster)
                if following is None:
                    break
                slot = following << CLUSTER_SHIFT
            stop = min((slot | _IN_CLUSTER) + 1, end)
            with parts.locks[slot >> CLUSTER_SHIFT]:
                entries = parts.table.entries(slot, stop - slot)
            for at, entry in enumerate(entries, slot):
                if bool(entry) == data:
                    return at
            slot = stop
        return end

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            self.counters.invalid_io += 1
            raise RangeError(f"{length} bytes at {offset} are beyond the device's end")


def _whole_and_partial(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut bytes into a partial page, whole pages, a partial page, as (offset, size)."""
    end = offset + size
    head = min(-offset & _IN_PAGE, size)
    tail_at = max(end & ~_IN_PAGE, offset + head)
    for start, stop in ((offset, offset + head), (offset + head, tail_at), (tail_at, end)):
        if start < stop:
            yield start, stop - start
