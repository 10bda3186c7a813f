"""What a device holds, in the simplest way there is: a dict of pages."""

from __future__ import annotations

import os
from itertools import pairwise

from vswap.geometry import PAGE_SIZE, ZERO_PAGE

__all__ = ["ModelDevice", "pieces"]


def pieces(offset: int, size: int) -> list[tuple[int, int]]:
    """A byte range cut into a partial page, whole pages, a partial page, as (offset, size).

    Each is all or nothing: what a write or discard that fails has done is the first of them.
    """
    end = offset + size
    first_whole = min(-(-offset // PAGE_SIZE) * PAGE_SIZE, end)
    last_whole = max(end // PAGE_SIZE * PAGE_SIZE, first_whole)
    edges = [offset, first_whole, last_whole, end]
    return [(a, b - a) for a, b in pairwise(edges) if a < b]


class ModelDevice:
    """`pages[slot]` is what is there, where that is not zeros."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.size = slots * PAGE_SIZE
        self.pages: dict[int, bytes] = {}

    def page(self, slot: int) -> bytes:
        return self.pages.get(slot, ZERO_PAGE)

    def put(self, slot: int, page: bytes) -> None:
        if page == ZERO_PAGE:
            self.pages.pop(slot, None)
        else:
            self.pages[slot] = page

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        first = offset // PAGE_SIZE
        after = -(-(offset + size) // PAGE_SIZE)
        whole = b"".join(self.page(slot) for slot in range(first, after))
        return whole[offset - first * PAGE_SIZE :][:size]

    def write(self, offset: int, data: bytes) -> None:
        first = offset // PAGE_SIZE
        after = -(-(offset + len(data)) // PAGE_SIZE)
        whole = bytearray(self.read(first * PAGE_SIZE, (after - first) * PAGE_SIZE))
        at = offset - first * PAGE_SIZE
        whole[at : at + len(data)] = data
        for i, slot in enumerate(range(first, after)):
            self.put(slot, bytes(whole[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]))

    def discard(self, offset: int, size: int) -> None:
        self.write(offset, bytes(size))

    def seek(self, offset: int, whence: int) -> int | None:
        """As lseek(2), zero pages being holes. None where it fails with ENXIO."""
        data = whence == os.SEEK_DATA
        for slot in range(offset // PAGE_SIZE, self.slots):
            if (slot in self.pages) == data:
                return max(offset, slot * PAGE_SIZE)
        return None if data or offset >= self.size else self.size
