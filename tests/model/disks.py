"""Devices with a disk behind them: a store, a backing that can be told to fail, and a model.

`Device.problems` compares what a store reads with the model, and asks whether the books of the
disk (DISK-LIVE, DISK-REUSE, DISK-AGE in vswap/store/disk_log.py) say what the table says. It
shares no code with the store's own audit, which is asked too.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol

import pytest
from model.device import ModelDevice
from model.memory import words_in
from model.moves import Clock
from model.stores import content, limit_of, make_store, state_of, take_over

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Policy, Selection, State, Store
from vswap.store import batch as batches
from vswap.store import disk as disks
from vswap.store import entry as entries
from vswap.store import restack as restacks
from vswap.store.backing import MemoryBacking
from vswap.store.entry import Extent
from vswap.store.jobs import Job
from vswap.store.locks import ClusterLocks
from vswap.store.places import KEPT

__all__ = [
    "EVERYTHING",
    "FEW_SLOTS",
    "PLAIN",
    "SMALL_BATCH",
    "Device",
    "DeviceMaker",
    "SpyBacking",
    "Step",
    "before_lock",
    "device_maker",
    "disk_clock",
    "finish",
    "small_batches",
    "tight",
    "units_on_disk",
]

EVERYTHING = Selection(huge=None, cold=None)
"""All pages in memory."""

FEW_SLOTS = 128

PLAIN = Policy("zstd-fast", 4)

SMALL_BATCH = 64 << 10
"""What is taken for the size of a disk segment's content, so that a few pages fill one."""


def nothing(*_: object) -> None:
    """What is done where nothing is to be done."""


class SpyBacking(MemoryBacking):
    """A backing that remembers what is asked of it, and can be told to fail.

    `reads` and `writes` are byte offsets and sizes. `fails` has for each of the next writes an
    errno and how many bytes get through all the same; errno 0 lets one pass. What lies in
    `unreadable` disk segments gives EIO. The hooks are called with the disk segment.
    """

    def __init__(self, segments: int, name: str = "disk") -> None:
        super().__init__(segments * SEGMENT_SIZE, name)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.notes: list[bytes] = []
        self.fails: deque[tuple[int, int]] = deque()
        self.unreadable: set[int] = set()
        self.note_fails = 0
        self.closed = False
        self.before_read: Callable[[int], object] = nothing
        self.before_write: Callable[[int], object] = nothing
        self.after_write: Callable[[int], object] = nothing

    def read(self, offset: int, into: memoryview) -> None:
        assert not self.closed
        self.before_read(offset // SEGMENT_SIZE)
        self.reads.append((offset, len(into)))
        if offset // SEGMENT_SIZE in self.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)
        super().read(offset, into)

    def write(self, offset: int, data: memoryview) -> None:
        assert not self.closed
        segment = offset // SEGMENT_SIZE
        assert len(data) <= SEGMENT_SIZE
        assert offset % SEGMENT_SIZE == 0
        self.before_write(segment)
        self.writes.append((offset, len(data)))
        number, through = self.fails.popleft() if self.fails else (0, 0)
        if number:
            self.data[offset : offset + through] = data[:through]
            raise OSError(number, os.strerror(number), self.name)
        super().write(offset, data)
        self.after_write(segment)

    def save_note(self, note: bytes) -> None:
        if self.note_fails:
            self.note_fails -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)
        super().save_note(note)
        self.notes.append(note)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        super().close()

    @contextmanager
    def flipped(self, segment: int, offset: int, bit: int = 0) -> Iterator[None]:
        """A bit of a disk segment is another one within."""
        at = segment * SEGMENT_SIZE + offset
        self.data[at] ^= 1 << bit
        yield
        self.data[at] ^= 1 << bit


class Device:
    """A store with a backing of so many disk segments, and what should be in it."""

    def __init__(
        self,
        policy: Policy = PLAIN,
        *,
        slots: int = FEW_SLOTS,
        segments: int = 16,
        disk: int = 8,
    ) -> None:
        self.store: Store = make_store(policy, slots=slots, segments=segments)
        self.disk = SpyBacking(disk)
        self.store.backing.attach(self.disk)
        self.lane = self.store.lane()
        self.model = ModelDevice(slots)
        self.bad = 0
        """How many disk segments should be put aside as bad."""
        self.damaged = False
        """Whether a test leaves something in it that cannot be read."""

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                assert self.damaged or self.problems() == []
        finally:
            self.store.close()
            state_of(self.store).close()

    # --- Requests -----------------------------------------------------------------------

    def write(self, slot: int, data: bytes, at: int = 0) -> None:
        """Write to `slot` and on, from byte `at` of it."""
        offset = slot * PAGE_SIZE + at
        self.lane.write(offset, memoryview(data))
        self.model.write(offset, data)

    def discard(self, slot: int, count: int = 1) -> None:
        self.lane.discard(slot * PAGE_SIZE, count * PAGE_SIZE)
        self.model.discard(slot * PAGE_SIZE, count * PAGE_SIZE)

    def read(self, slot: int, count: int = 1) -> bytes:
        return content(self.lane, slot * PAGE_SIZE, count * PAGE_SIZE)

    def right(self, slot: int, count: int = 1) -> bytes:
        """What should be read there."""
        return self.model.read(slot * PAGE_SIZE, count * PAGE_SIZE)

    # --- Work ---------------------------------------------------------------------------

    def write_back(self, first: int = 0, count: int | None = None) -> int:
        """Write back the pages in memory, of these slots or of all; how many were moved."""
        if count is None:
            return self.store.backing.write_back(EVERYTHING)
        chosen = Selection(huge=None, cold=None, slots=(first, first + count))
        return self.store.backing.write_back(chosen)

    def store_on_disk(self, slot: int, data: bytes) -> None:
        """Write pages, and write back these and all others."""
        self.write(slot, data)
        self.write_back()

    def detach(self, most: int = 1000) -> str:
        """Detach, to the end; how it ended."""
        self.store.backing.begin_detach()
        return self.go_on_detaching(most)

    def go_on_detaching(self, most: int = 1000) -> str:
        for _ in range(most):
            if not self.store.backing.detaching:
                return self.store.statistics().detach_result
            self.store.step()
        raise AssertionError("detaching does not come to an end")

    def rest(self, most: int = 3000) -> None:
        """Let the background work until it finds nothing to do at once."""
        for _ in range(most):
            if self.store.step() > 0:
                return
        raise AssertionError("the background does not come to rest")

    def take_over(self, left: State | None = None) -> None:
        """Let another worker go on with the same backing, on the same memory or on what is `left`.

        The first one has been killed.
        """
        if left is None:
            self.store = take_over(self.store)
        else:
            state_of(self.store).close()
            self.store = Store(left, self.store._policy)
        self.disk.closed = False
        self.store.backing.attach(self.disk)
        self.lane = self.store.lane()

    # --- Looking ------------------------------------------------------------------------

    def on_disk(self) -> dict[int, int]:
        """The entries of the slots whose pages are on disk."""
        table = words_in(state_of(self.store).table)
        return {
            slot: entry
            for slot, entry in table.items()
            if entry >> entries.KIND_SHIFT == entries.KIND_BACKING
        }

    def in_memory(self) -> set[int]:
        """The slots whose pages are in segments of memory."""
        table = words_in(state_of(self.store).table)
        kind = entries.KIND_CACHE
        return {slot for slot, entry in table.items() if entry >> entries.KIND_SHIFT == kind}

    def segments(self) -> list[int]:
        """The disk segments in which anything lives, by the table."""
        return sorted({entries.segment_of(entry) for entry in self.on_disk().values()})

    def room(self) -> int:
        """How many disk segments are free."""
        return self.store.statistics().backing_segments_free

    def read_wrong(self) -> list[int]:
        """The slots that do not read as they should."""
        found = content(self.lane, 0, self.model.size)
        return [
            slot
            for slot in range(self.model.slots)
            if found[slot * PAGE_SIZE : (slot + 1) * PAGE_SIZE] != self.model.page(slot)
        ]

    def problems(self) -> list[str]:
        """What is wrong with a quiet device, one line each."""
        found = [*self.wrong_books(), *self.store.check().problems]
        if wrong := self.read_wrong():
            found.append(f"these slots do not read as they should: {wrong[:20]}")
        return found

    def wrong_books(self) -> list[str]:
        """DISK-LIVE and DISK-REUSE, by the table."""
        disk = self.store._parts.disk
        found = self.on_disk()
        pages: dict[int, int] = {}
        size: dict[int, int] = {}
        hot: dict[int, int] = {}
        for entry in found.values():
            segment = entries.segment_of(entry)
            pages[segment] = pages.get(segment, 0) + 1
            size[segment] = size.get(segment, 0) + entries.share_of(entry)
            hot[segment] = hot.get(segment, 0) + (not entry & entries.NOT_HOT)
        ledger = disk.log.ledger
        problems = []
        for what, has, says in (
            ("pages", pages, ledger.pages),
            ("bytes", size, ledger.bytes),
            ("hot pages", hot, ledger.hot),
        ):
            said = {at: int(count) for at, count in enumerate(says) if count}
            if {at: count for at, count in has.items() if count} != said:
                problems.append(f"DISK-LIVE: {has} {what} live, not {said}")
        huge = sum(bool(entry & entries.HUGE) for entry in found.values())
        cold = sum(bool(entry & entries.COLD) for entry in found.values())
        is_so = (len(found), sum(size.values()), huge, cold, 0)
        totals = ledger.totals()
        if is_so != (
            *(totals.live_pages, totals.live_bytes),
            *(totals.huge, totals.cold, totals.staged),
        ):
            problems.append(f"DISK-LIVE: {is_so} in all, not {totals}")
        in_use = disk.log.full().segments.tolist()
        if in_use != sorted(pages):
            problems.append(f"DISK-REUSE: pages live in {sorted(pages)}, and in use are {in_use}")
        if disk.attached and self.room() + len(in_use) + self.bad != disk.log.size:
            problems.append(f"{self.room()} are free, {len(in_use)} in use, {self.bad} bad")
        return problems + _overlaps(self)


def _overlaps(device: Device) -> list[str]:
    """Units lie one after the other, each within what was written."""
    problems = []
    end = of = 0
    for extent in units_on_disk(device):
        if extent.segment != of:
            of, end = extent.segment, 0
        if extent.offset < end:
            problems.append(f"a unit begins in another one: {extent}")
        end = extent.offset + extent.size
        if end > device.store._parts.disk.log.used_of(of):
            problems.append(f"a unit ends beyond what was written: {extent}")
    return problems


def units_on_disk(device: Device) -> list[Extent]:
    """The places of the units on disk in which anything lives, in order."""
    return sorted({entries.extent_of(entry) for entry in device.on_disk().values()})


class DeviceMaker(Protocol):
    """What the fixture `make_device` is: `Device`, looked through when the test is over."""

    def __call__(
        self, policy: Policy = ..., *, slots: int = ..., segments: int = ..., disk: int = ...
    ) -> Device: ...


def device_maker() -> Iterator[DeviceMaker]:
    """For a fixture: makes devices. None may have problems when the test ends."""
    with ExitStack() as stack:

        def make(
            policy: Policy = PLAIN,
            *,
            slots: int = FEW_SLOTS,
            segments: int = 16,
            disk: int = 8,
        ) -> Device:
            made = Device(policy, slots=slots, segments=segments, disk=disk)
            return stack.enter_context(made)

        yield make


def small_batches(monkeypatch: pytest.MonkeyPatch, size: int = SMALL_BATCH) -> None:
    """Let so few bytes fill a disk segment, so that tests need few pages."""
    monkeypatch.setattr(batches, "SEGMENT_SIZE", size)
    monkeypatch.setattr(restacks, "SEGMENT_SIZE", size)


def disk_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that decides how long writing rests; it goes only when told."""
    clock = Clock(1000.0)
    monkeypatch.setattr(disks, "time", clock)
    return clock


def tight(segments: int, slots: int, codec: str = "zstd-fast", unit_pages: int = 4) -> Policy:
    """A policy that leaves writers so many segments of memory, and the cleaner what it keeps."""
    return Policy(codec, unit_pages, limit_of(segments + KEPT, slots), reserve=0)


def finish(device: Device, job: Job) -> int:
    """Do a job to its end; how many pages were moved."""
    moved = 0
    while True:
        with device.store._upkeep.lock:
            pages = device.store._upkeep.jobs.do_piece(job)
        if pages is None:
            return moved
        moved += pages


class Step:
    """What `before_lock` came to: whether the hook has been called, and at which lock."""

    called = False
    locks = 0


@contextmanager
def before_lock(
    monkeypatch: pytest.MonkeyPatch, number: int, hook: Callable[[], object]
) -> Iterator[Step]:
    """Call `hook` once, before the cluster lock of that number, from 0 on, is taken within.

    That is where others get in between: what is done under a lock they cannot see half of.
    """
    step = Step()
    original = ClusterLocks.__getitem__

    def look(self: ClusterLocks, cluster: int) -> object:
        if step.locks == number and not step.called:
            step.called = True
            hook()
        elif not step.called:
            step.locks += 1
        return original(self, cluster)

    with monkeypatch.context() as patches:
        patches.setattr(ClusterLocks, "__getitem__", look)
        yield step


assert FEW_SLOTS <= CLUSTER_SLOTS
