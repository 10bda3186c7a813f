"""File handles that tell what they were given for, to a worker that did not give them.

::

     63       40 39        24 23      16 15         0
    +-----------+------------+----------+------------+
    |   size    | generation |  inode   |  counter   |
    +-----------+------------+----------+------------+

size        bytes of what was rendered when the file was opened
generation  how many workers there were before the one that opened it
counter     tells apart what one worker has opened

What does not fit is cut off at its upper end.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Handle"]

_COUNTER = (1 << 16) - 1
_INODE = (1 << 8) - 1
_GENERATION = (1 << 16) - 1
_SIZE = (1 << 24) - 1


class Handle(NamedTuple):
    """The parts of a handle. `size` is in bytes."""

    inode: int
    generation: int
    counter: int
    size: int

    @classmethod
    def make(cls, inode: int, generation: int, counter: int, size: int) -> Handle:
        """A handle with as much of these as fits."""
        return cls(inode & _INODE, generation & _GENERATION, counter & _COUNTER, size & _SIZE)

    @classmethod
    def of(cls, packed: int) -> Handle:
        """The handle that the kernel names by this number."""
        return cls(
            packed >> 16 & _INODE,
            packed >> 24 & _GENERATION,
            packed & _COUNTER,
            packed >> 40 & _SIZE,
        )

    @property
    def packed(self) -> int:
        """The number."""
        return self.size << 40 | self.generation << 24 | self.inode << 16 | self.counter

    def is_of(self, generation: int) -> bool:
        """Whether a worker of this generation gave it."""
        return self.generation == generation & _GENERATION
