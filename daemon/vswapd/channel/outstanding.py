"""Requests that have left their receive buffers and are not answered yet.

Reads that wait for the disk, and what was passed on to the control plane. They lie in memory that
outlives the worker, so that the next one can answer them: where the kernel does not send
unanswered requests again (before 6.9) nobody else could.

The layout is in docs/format.md. A place is written from its second word on, and its first word,
the request's length, at last; it is free when that is 0.
"""

from __future__ import annotations

import threading

from vswap.proto import abi

__all__ = ["Outstanding"]

_PLACE = 512
"""Bytes kept of a request: all of it, but for commands, which nobody repeats."""

_EMPTY = bytes(4)


class Outstanding:
    """The places. Any thread may use them."""

    def __init__(self, memory: memoryview) -> None:
        """What a predecessor has left in `memory` is kept like what comes."""
        self._memory = memory
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._places: dict[int, int] = {}
        for place in range(0, len(memory), _PLACE):
            if self._length_at(place):
                self._places[abi.IN_HEADER.unpack_from(memory, place)[2]] = place
            else:
                self._free.append(place)

    def _length_at(self, place: int) -> int:
        return int.from_bytes(self._memory[place : place + 4], "little")

    def __contains__(self, unique: int) -> bool:
        """Whether it is kept."""
        return unique in self._places

    def keep(self, unique: int, request: memoryview) -> bool:
        """Keep a request until it is `answered`; False if there is no place for one more."""
        with self._lock:
            if not self._free:
                return False
            place = self._free.pop()
            self._places[unique] = place
        kept = request[:_PLACE]
        self._memory[place + 4 : place + len(kept)] = kept[4:]
        self._memory[place : place + 4] = kept[:4]
        return True

    def answered(self, unique: int) -> None:
        """It has been. Nothing happens if it was not kept."""
        with self._lock:
            place = self._places.pop(unique, None)
            if place is not None:
                self._memory[place : place + 4] = _EMPTY
                self._free.append(place)

    def all(self) -> list[bytes]:
        """What is kept, as much of each as is, in the order of arrival."""
        with self._lock:
            places = sorted(self._places.items())
        return [
            bytes(self._memory[place : place + min(self._length_at(place), _PLACE)])
            for _, place in places
        ]

    def clear(self) -> None:
        """Somebody else sees that all of it is answered."""
        for unique in list(self._places):
            self.answered(unique)
