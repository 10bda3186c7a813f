"""A store under random overwrites, and the record of what each of its pages must be.

The record is an index of pages of the source, one number for each slot, so that it costs
little beside the store. Slots are dealt to the threads in stripes, so that each knows what its
own hold, and all meet in every cluster.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vswap.errors import CorruptError, FullError
from vswap.geometry import PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE, Geometry
from vswap.store import Lane, Policy, Shape, State, Store, StoreStatistics, segments_for

__all__ = ["Churned", "Outcome", "Pages"]

LANES = 2
STRIPE = 64
SIZES = (1, 1, 2, 4, 8, 16, 32)
WRITES, DISCARDS = 0.85, 0.05  # the rest are reads
BUFFER_SIZE = 257 * PAGE_SIZE  # a receive buffer, as the daemon has one for each thread
ZERO = -1
SWITCH_SECONDS = 100e-6  # as in the daemon
RESTING = 1.0  # what a step wants to wait when nothing is left to do
QUIET_SECONDS = 1.0  # after a failure


class Pages:
    """The pages of a file, by number."""

    def __init__(self, path: Path) -> None:
        """Read it whole."""
        self._data = memoryview(path.read_bytes())
        self.count = len(self._data) >> PAGE_SHIFT

    def run(self, first: int, count: int) -> memoryview:
        """Some neighbours."""
        return self._data[first << PAGE_SHIFT : first + count << PAGE_SHIFT]

    def page(self, number: int) -> memoryview:
        """One page; of zeros for `ZERO`."""
        return memoryview(ZERO_PAGE) if number == ZERO else self.run(number, 1)


@dataclass
class Outcome:
    """What threads have done: requests, pages written, and pages read that were wrong."""

    writes: int = 0
    failed: int = 0
    discards: int = 0
    reads: int = 0
    pages_written: int = 0
    wrong: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        """Both together."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Outcome(*(ours + theirs for ours, theirs in pairs))


class Churned:
    """The store, its lanes, and the record."""

    def __init__(self, size: int, fill: float, policy: Policy, pages: Pages, seed: int) -> None:
        """A new device of `size` bytes, of which a share of `fill` will be used."""
        geometry = Geometry(size)
        self._state = State.create(self.shape(geometry))
        self._asked = threading.Event()
        self._store = Store(self._state, policy, self._asked.set)
        self._store.maintain()
        self._state.buffers.populate(0, self._state.buffers.size)
        self._lanes = [self._store.lane() for _ in range(LANES)]
        self._pages = pages
        self._seed = seed
        self._stripes = int(geometry.slots * fill) // STRIPE
        assert self._stripes >= LANES
        self._record = np.full(self._stripes * STRIPE, ZERO, np.int64)

    @staticmethod
    def shape(geometry: Geometry) -> Shape:
        """As the daemon makes it."""
        return Shape(geometry, segments_for(geometry, LANES), LANES, BUFFER_SIZE)

    def close(self) -> None:
        """Give its memory back."""
        self._state.close()

    # --- Requests -------------------------------------------------------------------------

    def write_all(self, times: float) -> Outcome:
        """Fill what is to be used, then go on until `times` the device's size was written."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        share = int(times * (self._store.geometry.size >> PAGE_SHIFT) / LANES)
        found: list[Outcome] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(self._work(n, share)))
            for n in range(LANES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        if len(found) < LANES:
            raise RuntimeError("a thread has failed: its reason stands above")
        return sum(found, Outcome())

    def _work(self, number: int, share: int) -> Outcome:
        """One thread: its own stripes once in order, then requests at random."""
        rng, lane, done = random.Random(self._seed * LANES + number), self._lanes[number], Outcome()
        mine = range(number, self._stripes, LANES)
        for stripe in mine:
            for slot in range(stripe * STRIPE, (stripe + 1) * STRIPE, 32):
                self._write(lane, slot, 32, rng, done)
        while done.pages_written < share:
            count = rng.choice(SIZES)
            slot = mine[rng.randrange(len(mine))] * STRIPE + rng.randrange(STRIPE - count + 1)
            draw = rng.random()
            if draw < WRITES:
                self._write(lane, slot, count, rng, done)
            elif draw < WRITES + DISCARDS:
                lane.discard(slot << PAGE_SHIFT, count << PAGE_SHIFT)
                self._record[slot : slot + count] = ZERO
                done.discards += 1
            else:
                done.wrong += self._wrong(lane, slot, count)
                done.reads += 1
        return done

    def _write(self, lane: Lane, slot: int, count: int, rng: random.Random, done: Outcome) -> None:
        first = rng.randrange(self._pages.count - count)
        done.writes += 1
        done.pages_written += count
        try:
            lane.write(slot << PAGE_SHIFT, self._pages.run(first, count))
        except FullError:
            done.failed += 1
        else:
            self._record[slot : slot + count] = np.arange(first, first + count)

    def _wrong(self, lane: Lane, slot: int, count: int) -> int:
        """Read some slots; how many are not what they must be."""
        try:
            data = memoryview(b"".join(lane.read(slot << PAGE_SHIFT, count << PAGE_SHIFT)))
        except CorruptError as error:
            print(f"slots {slot} to {slot + count - 1}: {error}", file=sys.stderr)
            return count
        wanted = self._record[slot : slot + count].tolist()
        return sum(
            data[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT] != self._pages.page(number)
            for at, number in enumerate(wanted)
        )

    def wrong_pages(self) -> int:
        """Read everything; how many pages are not what they must be."""
        slots = range(0, len(self._record), STRIPE)
        return sum(self._wrong(self._lanes[0], slot, STRIPE) for slot in slots)

    # --- The background -------------------------------------------------------------------

    @contextmanager
    def background(self) -> Iterator[None]:
        """Keep segments ready and clean during the block, each in a thread, as the daemon does."""
        ended = threading.Event()

        def keep_ready() -> None:
            while not ended.is_set():
                if self._asked.wait(0.1):
                    self._asked.clear()
                    _patiently(self._store.maintain)

        def keep_small() -> None:
            while not ended.is_set():
                ended.wait(_patiently(self._store.step) or 0.0)

        threads = [threading.Thread(target=work) for work in (keep_ready, keep_small)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def rest(self, seconds: float) -> float:
        """Step until nothing is left to do; how long that took. `seconds` at the most."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self._store.maintain()
            pause = self._store.step()
            if pause >= RESTING:
                break
            time.sleep(pause)
        return time.monotonic() - began

    # --- Looking --------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """The kernel's count of the memory behind the state."""
        return {"mem_used_total": sum(region.allocated() for region in self._state.regions())}

    def statistics(self) -> StoreStatistics:
        """The store's own."""
        return self._store.statistics()

    def bytes_per_page(self) -> float:
        """What a stored page takes, compressed, on average."""
        stats = self.statistics()
        return stats.compr_data_size / stats.stored_pages

    def check(self) -> tuple[str, ...]:
        """What the store's own audit has to say."""
        return self._store.check().problems


def _patiently(work: Callable[[], float | None]) -> float | None:
    """What `work` answers; a wait if there was no memory for it."""
    try:
        return work()
    except OSError as error:
        print(f"no memory for the background: {error.strerror}", file=sys.stderr)
        return QUIET_SECONDS
