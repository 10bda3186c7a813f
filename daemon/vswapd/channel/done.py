"""The mark that a data thread leaves when it has done what a request asks, before it answers.

In memory that outlives the worker: the beginning of the page in which the receive buffer begins.
Little-endian; the codes are `struct`'s:

======  ====  =================================================
offset  code  field
======  ====  =================================================
0       Q     `unique` of the last request that succeeded
8       Q     `unique` of the last request that failed
16      Q     the errno with which that one failed
======  ====  =================================================

Each is one aligned store, and the errno is there before the `unique` that it belongs to. Both marks
stay until the thread's next ones: they are compared with the request in its buffer, and no two
requests have the same `unique`.
"""

from __future__ import annotations

__all__ = ["MARK_SIZE", "Done"]

MARK_SIZE = 24
_SUCCEEDED, _FAILED, _ERRNO = range(3)


class Done:
    """One thread's mark."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` has `MARK_SIZE` bytes, at a multiple of 8."""
        self._words = memory[:MARK_SIZE].cast("Q")

    def succeeded(self, unique: int) -> None:
        """It is done, and need only be answered."""
        self._words[_SUCCEEDED] = unique

    def failed(self, unique: int, code: int) -> None:
        """It has failed with this errno, and is not to be tried again."""
        self._words[_ERRNO] = code
        self._words[_FAILED] = unique

    def outcome_of(self, unique: int) -> int | None:
        """0 or the errno if the request is done, None if that is not known."""
        if self._words[_SUCCEEDED] == unique:
            return 0
        return self._words[_ERRNO] if self._words[_FAILED] == unique else None
