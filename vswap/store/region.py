"""Shared memory that outlives the process using it: a sparse memory file, mapped whole.

Only what is touched costs memory. *Reading* a hole through the mapping allocates its page
just as writing does, so whoever keeps sparse data here must know without looking where
nothing is (the counts of `SwapTable` and `Zeromap`).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress

from vswap import libc, memfile

__all__ = ["Region"]


class Region:
    """One memory file of `size` bytes, and its mapping.

    `view` is the mapping as bytes. The descriptor may be handed to another process, which
    maps the same memory with `Region(fd)`.
    """

    def __init__(self, fd: int) -> None:
        """Map all of `fd`, which from now on belongs to this region."""
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size)
        self.view = memoryview(self._map)
        self._address = libc.address_of(self._map)
        # Pages of other people's processes: they must not be written out in a core dump.
        libc.madvise(self._address, self.size, libc.MADV_DONTDUMP)

    @classmethod
    def create(cls, name: str, size: int, *, resident: bool = False) -> Region:
        """A new region of zeros, rounded up to whole pages. As `memfile.create`."""
        rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return cls(memfile.create(name, rounded, resident=resident))

    def populate(self, offset: int, length: int) -> None:
        """Allocate and map a range now, so that touching it later takes no page fault."""
        libc.madvise(self._address + offset, length, libc.MADV_POPULATE_WRITE)

    def map(self, offset: int, length: int) -> None:
        """Map a range that has memory now, so that looking at it later takes no page faults.

        A hole in it would get memory. Nothing happens where the kernel does not have this.
        """
        with suppress(OSError):
            libc.madvise(self._address + offset, length, libc.MADV_POPULATE_READ)

    def punch(self, offset: int, length: int) -> None:
        """Give a range's memory back to the kernel; it reads as zeros from then on."""
        libc.punch_hole(self.fd, offset, length)

    def next_data(self, offset: int) -> int | None:
        """The first byte from `offset` on that has memory behind it; None if there is none.

        Looks at the kernel's books only, so it allocates nothing.
        """
        return self._seek(offset, os.SEEK_DATA)

    def data(self) -> Iterator[tuple[int, int]]:
        """The pages with memory behind them, as ranges: number of the first, and of the next."""
        at: int | None = 0
        while at is not None and (start := self.next_data(at)) is not None:
            at = self._seek(start, os.SEEK_HOLE)
            assert at is not None  # there is always a hole at the end
            yield start // mmap.PAGESIZE, -(-at // mmap.PAGESIZE)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there, without mapping them: for a few of them that is much quicker."""
        return os.pread(self.fd, length, offset)

    def _seek(self, offset: int, whence: int) -> int | None:
        try:
            return os.lseek(self.fd, offset, whence)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def allocated(self) -> int:
        """Bytes of memory behind the region, by the kernel's own count."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Close the descriptor. The mapping goes with the last view of it."""
        os.close(self.fd)
