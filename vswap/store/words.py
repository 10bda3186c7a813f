"""Fill words: pages that are one 8-byte word again and again cost an entry and nothing else.

zram keeps such a word in the page's table entry (drivers/block/zram, ``same_pages``). Here the
entry has no 64 free bits, so it holds the word's number. How many pages are filled with a word
is counted, and its number is free for another when the last of them goes.

Invariants (each named in the tests):

FILL-COUNT  `count[n]` is the number of entries that name word n, plus those taken for a write
            that has not published them yet, which are `staged` in all.
FILL-WORD   while `count[n]` is not 0, word n does not change. A reader holds the cluster lock
            of a page filled with it, so it reads the word that was written.

All methods do their own locking: one lock, innermost of all.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from vswap.store.cut import WORD
from vswap.store.region import Region

__all__ = ["MAX_WORDS", "FillWords"]

MAX_WORDS = 4096
"""How many different words there may be at a time: bounds this class's own memory. Programs use
a handful. A page with one word more becomes a unit like any other."""


class FillWords:
    """The words in use and their numbers, in a region that outlives the worker."""

    def __init__(self, region: Region) -> None:
        """`region` must hold `region_size()` bytes."""
        self._memory = region.view
        self._lock = threading.Lock()
        self._numbers: dict[bytes, int] = {}
        self._free = list(range(MAX_WORDS - 1, -1, -1))
        self.count: npt.NDArray[np.int64] = np.zeros(MAX_WORDS, np.int64)
        self._count = self.count.data
        self._pages = 0
        self._staged = 0

    def take_over(self, count: npt.NDArray[np.int64]) -> None:
        """So many pages are filled with each word by the entries that an earlier worker left."""
        self.count[:] = count
        self._pages = int(count.sum())
        in_use = np.flatnonzero(count).tolist()
        self._numbers = {self.word(number): number for number in in_use}
        self._free = [number for number in reversed(range(MAX_WORDS)) if not count[number]]

    @staticmethod
    def region_size() -> int:
        """Bytes the words take when all numbers have been used."""
        return MAX_WORDS * WORD

    @property
    def pages(self) -> int:
        """How many pages are filled with a word."""
        return self._pages

    def take(self, word: bytes, pages: int) -> int | None:
        """Count `pages` more filled with `word`; the number of it, or None if there is none left.

        To be called before the entries are published; `publish` or `withdraw` must follow.
        """
        with self._lock:
            number = self._numbers.get(word)
            if number is None:
                if not self._free:
                    return None
                number = self._free.pop()
                self._memory[number * WORD : (number + 1) * WORD] = word
                self._numbers[word] = number
            self._count[number] += pages
            self._pages += pages
            self._staged += pages
            return number

    def publish(self, pages: int, dead: list[int]) -> None:
        """So many pages that were taken are named by entries now; `dead` ones no longer.

        Pages are dead by the numbers of their words.
        """
        with self._lock:
            self._staged -= pages
            self._pages -= len(dead)
            for number in dead:
                self._count[number] -= 1
                if not self._count[number]:
                    del self._numbers[self.word(number)]
                    self._free.append(number)

    def withdraw(self, numbers: list[int]) -> None:
        """These pages have been taken and will not be published."""
        self.publish(len(numbers), numbers)

    def copy(self) -> tuple[npt.NDArray[np.int64], int]:
        """The counts and how many pages are staged, of one instant."""
        with self._lock:
            return self.count.copy(), self._staged

    def word(self, number: int) -> bytes:
        """Word `number`: stable while the caller holds a lock of a page filled with it."""
        return bytes(self._memory[number * WORD : (number + 1) * WORD])
