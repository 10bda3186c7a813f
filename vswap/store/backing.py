"""What is behind the memory: a protocol for a file or block device, and one that lies in memory.

A backing holds disk segments one after the other, each `SEGMENT_SIZE` bytes, and a *note* of a
few bytes that outlives the daemon. It knows nothing of what is in them: what comes here is
encrypted already (vswap/store/cipher.py).
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Protocol

from vswap.errors import UserError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SIZE

__all__ = [
    "BLOCK",
    "NOTE_SIZE",
    "UNIT_BLOCKS",
    "Backing",
    "MemoryBacking",
    "aligned",
    "whole_blocks",
]

BLOCK = 4096
"""What is read and written is whole blocks, at offsets and in memory that are multiples of it."""

UNIT_BLOCKS = MAX_UNIT_PAGES * PAGE_SIZE + 2 * BLOCK
"""Bytes in which the blocks of any unit have room."""

NOTE_SIZE = 512
"""Most bytes of a note."""


class Backing(Protocol):
    """Disk segments that can be read and written by any thread.

    Whatever goes wrong with the medium is an `OSError`: what was to be written may then be
    there, or not, or in part; nothing is said of it to anyone who did not read it.
    """

    name: str
    """What a person calls it: a path."""

    @property
    def size(self) -> int:
        """Bytes for disk segments, a whole number of them."""
        ...

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into`, whole blocks of aligned memory, from byte `offset` on. Raises `OSError`."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`, as `read`. On the medium, or in its cache, when this returns."""
        ...

    def grow(self, size: int) -> None:
        """Make room for `size` bytes of disk segments in all. Raises `UserError`, `OSError`."""
        ...

    def load_note(self) -> bytes:
        """What `save_note` was given last, by any daemon; empty if nothing. Raises `OSError`."""
        ...

    def save_note(self, note: bytes) -> None:
        """Keep `note`, of `NOTE_SIZE` bytes at most, for daemons to come. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Let go of it. Nothing else may be called after."""
        ...


def whole_blocks(size: int) -> int:
    """`size` bytes, rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def aligned(size: int) -> memoryview:
    """Memory for reading and writing: `size` bytes that begin at a page, and stay.

    They are faulted in at once, as far as the kernel has memory. Raises `OSError` if it gives none.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return memoryview(mmap.mmap(-1, size, flags=flags))


class MemoryBacking:
    """A backing without a disk, for warming up and for tests."""

    def __init__(self, size: int, name: str = "memory") -> None:
        """Of `size` bytes, a whole number of segments."""
        assert size % SEGMENT_SIZE == 0
        self.name = name
        self.data = bytearray(size)
        self.note = b""

    @property
    def size(self) -> int:
        """Bytes for disk segments."""
        return len(self.data)

    def read(self, offset: int, into: memoryview) -> None:
        """Beyond the end, `OSError`."""
        self._check(offset, into)
        into[:] = self.data[offset : offset + len(into)]

    def write(self, offset: int, data: memoryview) -> None:
        """Beyond the end, `OSError`."""
        self._check(offset, data)
        self.data[offset : offset + len(data)] = data

    def grow(self, size: int) -> None:
        """As far as memory goes."""
        if size < len(self.data):
            raise UserError(f"{self.name} has {len(self.data)} bytes already; it does not shrink")
        self.data.extend(bytes(size - len(self.data)))

    def load_note(self) -> bytes:
        """What was saved."""
        return self.note

    def save_note(self, note: bytes) -> None:
        """Saved."""
        assert len(note) <= NOTE_SIZE
        self.note = note

    def close(self) -> None:
        """Keeps what is in it, for tests to look at."""

    def _check(self, offset: int, view: memoryview) -> None:
        assert offset % BLOCK == 0
        assert len(view) % BLOCK == 0
        if offset + len(view) > len(self.data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)
