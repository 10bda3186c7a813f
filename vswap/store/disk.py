"""The backing as the store uses it: attached or not, what is read and written encrypted, counted.

Any thread may read; who writes, attaches or lets go holds `Upkeep.lock`.

Units are read without a cluster lock, for a disk is slow. What is read is the page as it was
when its entry and the sequence of its disk segment were looked up, under the lock, or it is not
authentic: then the page has moved or died meanwhile, or the disk has lost it. Looking the entry
up again tells which (vswap/store/fetch.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vswap.codec import Bytes
from vswap.errors import UserError
from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.backing import BLOCK, Backing, whole_blocks
from vswap.store.budget import Budget
from vswap.store.cipher import Cipher
from vswap.store.disk_log import DiskLog
from vswap.store.entry import Extent, extent_of
from vswap.store.region import Region
from vswap.store.windows import WINDOW_SIZE, Windows

__all__ = ["Disk"]

_REST_SECONDS = 5.0
_LONGEST_REST_SECONDS = 600.0

_SEGMENT_BLOCKS = SEGMENT_SIZE // BLOCK


class Disk:
    """A store's backing, or the place for one."""

    def __init__(self, region: Region, most: int | None = None) -> None:
        """`region` and `most` are for `DiskLog`; the region holds the key."""
        self.log = DiskLog(region, most)
        self.budget = Budget()
        self._note_copy = self.log.note_copy
        self._in_label = b""
        self.windows = Windows()
        self._cipher: Cipher | None = None
        self._backing: Backing | None = None
        self._lock = threading.Lock()
        self._users = 0
        self._leaving: list[Backing] = []
        self._resting = 0.0
        self._rest_until = 0.0
        self.closed_for_writing = False
        """While it is being emptied."""
        self.reads = self.writes = 0  # in blocks
        self.failed_reads = self.failed_writes = self.corrupt = 0

    # --- Attaching ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The backing's; empty if there is none."""
        backing = self._backing
        return backing.name if backing else ""

    @property
    def attached(self) -> bool:
        """Whether there is a backing."""
        return self._backing is not None

    @property
    def takes_writes(self) -> bool:
        """Whether there is a backing that is not being emptied."""
        return self._backing is not None and not self.closed_for_writing

    def attach(self, backing: Backing, *, again: bool = False) -> None:
        """Use a backing; the one that an earlier worker had, if pages are on it.

        Raises `UserError` if there is one already or if this is too small for that, `OSError` if
        it cannot be read. But if it is known to be that one, `again`, it is used whatever has
        become of it meanwhile: some of what is on it may be readable.
        """
        if self._backing is not None:
            raise UserError(f"{self.name} is attached already; detach it first")
        size = backing.size >> SEGMENT_SHIFT
        if again:
            size = max(size, self.log.least_size)
        if size < self.log.least_size:
            raise UserError(
                f"{backing.name} is not the backing that this device's pages were written to: "
                f"it has {size} MiB, and they are in the first {self.log.least_size}"
            )
        in_label = self._label_of(backing, must_be_read=not again)
        self.budget = Budget(self._note_copy.find(in_label))
        self._in_label = in_label or b""
        if self._cipher is None:
            self._cipher = Cipher(self.log.key)
        self.windows.prepare()
        self._backing = backing
        self.closed_for_writing = False
        self._resting = self._rest_until = 0.0
        self.log.resize(size)

    @staticmethod
    def _label_of(backing: Backing, *, must_be_read: bool) -> bytes | None:
        try:
            return backing.load_note()
        except OSError:
            if must_be_read:
                raise
            return None

    def use_all_of(self, backing: Backing) -> None:
        """It has grown; nothing is done if it is not the one that is attached any more."""
        if backing is self._backing:
            self.log.resize(backing.size >> SEGMENT_SHIFT)

    def let_go(self) -> None:
        """Close the backing, if there is one, as soon as nobody reads from it.

        What it still holds cannot be read any more.
        """
        backing = self._backing
        if backing is None:
            return
        with suppress(OSError):
            self.budget.keep(backing.save_note, final=True)
        with self._lock:
            self._backing = None
            self._leaving.append(backing)
        self._close_if_unused()

    def require(self) -> Backing:
        """The backing. Raises `UserError` if there is none."""
        if self._backing is None:
            raise UserError("no backing is attached; `vswap backing attach FILE` attaches one")
        return self._backing

    @contextmanager
    def use(self) -> Iterator[Backing | None]:
        """The backing, if there is one, which is not closed within."""
        with self._lock:
            backing = self._backing
            self._users += 1
        try:
            yield backing
        finally:
            with self._lock:
                self._users -= 1
            if self._leaving:
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            if self._users:
                return
            leaving, self._leaving = self._leaving, []
        for backing in leaving:
            backing.close()

    # --- Reading --------------------------------------------------------------------------

    def unit(self, entry: int, sequence: int, scratch: memoryview) -> bytes | None:
        """The unit that `entry` names, header and payload, as that filling of its segment holds it.

        None if what is there is not that unit. `scratch` is aligned memory for blocks, larger
        than any unit. If units are read in order more is read, and kept for those that follow.
        Raises `OSError`.
        """
        extent = extent_of(entry)
        sealed = self._read_ahead(extent, sequence)
        unit = None if sealed is None else self.open(sequence, extent.offset, sealed)
        if unit is None:  # also what was read wrong once: the disk may give it now
            direct = self._read(extent, scratch)
            unit = None if direct is None else self.open(sequence, extent.offset, direct)
        return unit

    def unit_at_hand(self, entry: int, sequence: int) -> bytes | None:
        """As `unit`, if that takes no reading and no waiting; else None."""
        extent = extent_of(entry)
        sealed = self.windows.find(extent, sequence, wait=False)
        return None if sealed is None else self.open(sequence, extent.offset, sealed)

    def open(self, sequence: int, offset: int, sealed: Bytes) -> bytes | None:
        """What was sealed for a place in a disk segment, or None."""
        assert self._cipher is not None
        return self._cipher.open(sequence, offset, sealed)

    def _read_ahead(self, extent: Extent, sequence: int) -> bytes | None:
        """The unit out of a window, one that is filled for it if units are read in order."""
        sealed = self.windows.find(extent, sequence)
        if sealed is not None:
            return sealed
        start = extent.offset // BLOCK * BLOCK
        size = min(WINDOW_SIZE, whole_blocks(self.log.used_of(extent.segment)) - start)
        if size < extent.size or not self.windows.follows(extent, sequence):
            return None
        window = self.windows.begin(extent, sequence, start, size)
        if window is not None:
            filled = False
            try:
                with suppress(OSError):  # it need not be this unit that cannot be read
                    filled = self.read(extent.segment, start, window.memory[:size])
            finally:
                self.windows.end(window, filled=filled)
        return self.windows.find(extent, sequence)

    def _read(self, extent: Extent, scratch: memoryview) -> memoryview | None:
        """Just the blocks of the unit."""
        start = extent.offset // BLOCK * BLOCK
        end = whole_blocks(extent.offset + extent.size)
        if end > SEGMENT_SIZE:
            return None  # no unit is there: the entry is damaged
        view = scratch[: end - start]
        if not self.read(extent.segment, start, view):
            return None
        return view[extent.offset - start :][: extent.size]

    def read(self, segment: int, start: int, into: memoryview) -> bool:
        """Read blocks of a disk segment; False if there is no backing (any more)."""
        with self.use() as backing:
            if backing is None:
                return False
            try:
                backing.read((segment << SEGMENT_SHIFT) + start, into)
            except OSError:
                with self._lock:
                    self.failed_reads += 1
                raise
        with self._lock:
            self.reads += len(into) // BLOCK
        return True

    def note_corrupt(self) -> None:
        """A unit was found that is not what was written."""
        with self._lock:
            self.corrupt += 1

    # --- Writing --------------------------------------------------------------------------

    def may_write(self) -> bool:
        """Whether writing a segment makes sense now."""
        return self._may_write(_SEGMENT_BLOCKS)

    def _may_write(self, blocks: int) -> bool:
        return self.takes_writes and not self.rests and self.budget.allows(blocks)

    @property
    def rests(self) -> bool:
        """Whether nothing is written for a while because writing has failed."""
        return time.monotonic() < self._rest_until

    def seal(self, sequence: int, offset: int, plain: Bytes) -> bytes:
        """`plain` as it is to lie at `offset` of that filling: `TAG_SIZE` bytes longer."""
        assert self._cipher is not None
        return self._cipher.seal(sequence, offset, plain)

    def admit(self, size: int) -> bool:
        """Whether so many bytes may be written now; they are charged to the day's budget then."""
        blocks = size // BLOCK
        if not self._may_write(blocks):
            return False
        self.budget.charge(blocks)  # before the note, and that before the write
        try:
            if self.budget.note_due():
                self._save_note()
            self._note_copy.keep(self.budget.to_note(final=True), self._in_label)
        except OSError:
            self._count_failure()
            self.rest()
            return False
        return True

    def write(self, segment: int, data: memoryview) -> None:
        """Write the first blocks of a disk segment, which were admitted. Raises `OSError`."""
        try:
            with self.use():
                self.require().write(segment << SEGMENT_SHIFT, data)
        except OSError:
            self._count_failure()
            raise
        with self._lock:
            self.writes += len(data) // BLOCK
        self._resting = 0.0

    def _count_failure(self) -> None:
        with self._lock:
            self.failed_writes += 1

    def rest(self) -> None:
        """Writing has failed, elsewhere too: let it rest, each time for longer."""
        self._resting = min(max(2 * self._resting, _REST_SECONDS), _LONGEST_REST_SECONDS)
        self._rest_until = time.monotonic() + self._resting

    def save_budget(self) -> None:
        """The budget was changed by a person: it is to outlive the daemon. Raises as `write`."""
        self._save_note()
        self._note_copy.keep(self.budget.to_note(final=True), self._in_label)

    def _save_note(self) -> None:
        backing = self.require()

        def save(note: bytes) -> None:
            backing.save_note(note)
            self._in_label = note

        self.budget.keep(save)
