"""What outlives a worker: descriptors, and a record of what they are for.

The connection to the kernel, the memory that the state lies in, the file of the backing. As long
as somebody holds these nothing is lost and no request fails: whoever wants something waits.
"""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from vswap import libc, memfile

__all__ = ["Bundle", "Held", "Record", "is_closed", "ranges_in_memory"]

Bundle = list[tuple[str, int]]
"""What each descriptor is: ``fuse``, ``state0`` and so on, in order, ``history``, ``backing``."""

_POPULATED_AT_ONCE = 64 << 20
_SIGN_SIZE = 16
_LOOKS = 10


@dataclass(frozen=True)
class Record:
    """What must be known of the descriptors, as plain values.

    `settings` is the device's `Settings` as JSON. `point` is where it is mounted, and `mounted`
    what tells that mount from others there. `init` and `reply` are the handshake with the kernel,
    in hexadecimal digits, empty before it. `signs` is where requests begin in the receive buffers,
    which are descriptor number `region` of the state. `backing` is the path of what is attached,
    if anything. `restarts` counts the workers that had a predecessor.
    """

    settings: str
    point: str
    mounted: str | None = None
    init: str = ""
    reply: str = ""
    region: int = 0
    signs: tuple[int, ...] = ()
    backing: str | None = None
    restarts: int = 0

    @property
    def values(self) -> dict[str, Any]:
        """The settings, unchecked."""
        values: dict[str, Any] = json.loads(self.settings)
        return values

    def to_json(self) -> str:
        """One line that `from_json` turns back into an equal value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Raises `ValueError` or `TypeError` for what is no record."""
        values = json.loads(text)
        return cls(**{**values, "signs": tuple(values["signs"])})


class Held:
    """The descriptors of one device in the process that keeps them."""

    def __init__(self, record: Record, state: Sequence[int]) -> None:
        """A device whose connection is not there yet. All descriptors belong to it."""
        self.record = record
        self.state = list(state)
        self.connection: int | None = None
        self.backing: int | None = None
        self.history: int | None = None
        self._residents = [_Resident(fd) for fd in state]

    @classmethod
    def of(cls, record: Record, bundle: Bundle) -> Held:
        """The same device in another process. Raises `ValueError` if descriptors are missing."""
        by_name = dict(bundle)
        names = (f"state{at}" for at in itertools.count())
        held = cls(
            record, [by_name[name] for name in itertools.takewhile(by_name.__contains__, names)]
        )
        held.connection, held.backing = by_name.get("fuse"), by_name.get("backing")
        if "history" in by_name:
            held.hold_history(by_name["history"])
        if len(held.state) != sum(name.startswith("state") for name in by_name):
            raise ValueError("a region of the state is missing")
        if not held.state or held.connection is None:
            raise ValueError("a device needs its state and its connection")
        if record.backing is None:
            held.drop_backing()  # its descriptor was stored, and nothing more said yet
        elif held.backing is None:
            raise ValueError("the backing that was attached is missing")
        return held

    def bundle(self) -> Bundle:
        """All descriptors."""
        found = [(f"state{at}", fd) for at, fd in enumerate(self.state)]
        if self.connection is not None:
            found.append(("fuse", self.connection))
        if self.history is not None:
            found.append(("history", self.history))
        if self.backing is not None:
            found.append(("backing", self.backing))
        return found

    def note(self, **changes: Any) -> None:  # noqa: ANN401 - what Record has
        """Change the record."""
        self.record = replace(self.record, **changes)

    def hold_history(self, fd: int) -> None:
        """The memory of the history, from now on: nothing that is stored depends on it."""
        if self.history is not None:
            os.close(self.history)
        self.history = fd
        self._residents = [*self._residents[: len(self.state)], _Resident(fd)]

    def hold_backing(self, fd: int, path: str) -> None:
        """From now on this is attached, or is about to be."""
        self.drop_backing()
        self.backing = fd
        self.note(backing=path)

    def drop_backing(self) -> None:
        """Nothing is attached any more."""
        if self.backing is not None:
            os.close(self.backing)
            self.backing = None
        self.note(backing=None)

    def keep_resident(self) -> None:
        """Have all memory that the state takes mapped, and so locked, in this process too.

        When a worker dies its locks are gone, and what only it had locked could be swapped out:
        to the device that has just lost its server. Nothing to do where `memfile` sees to that; and
        else not for the thread that decides, since what is being swapped out already is waited for.
        """
        for resident in self._residents:
            if resident.is_swappable:
                resident.keep()

    def signs(self) -> tuple[bytes, ...]:
        """The beginnings of what is in the receive buffers: a request's length and `unique`."""
        view = self._residents[self.record.region].view
        return tuple(bytes(view[at : at + _SIGN_SIZE]) for at in self.record.signs)

    def is_closed(self) -> bool:
        """Whether the connection is no more: the file system was unmounted, or aborted."""
        assert self.connection is not None
        return is_closed(self.connection)

    def has_waiting(self) -> bool:
        """Whether a request waits to be received."""
        assert self.connection is not None
        return bool(_polled(self.connection) & select.POLLIN)


def is_closed(connection: int) -> bool:
    """Whether a connection to the kernel is no more."""
    return bool(_polled(connection) & (select.POLLERR | select.POLLHUP | select.POLLNVAL))


def _polled(connection: int) -> int:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return sum(events for _, events in poll.poll(0))


class _Resident:
    """One memory file's mapping here."""

    def __init__(self, fd: int) -> None:
        self.is_swappable = memfile.is_swappable(fd)
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self._size)
        self.view = memoryview(self._map)
        self._address = libc.address_of(self._map)
        libc.madvise(self._address, self._size, libc.MADV_DONTDUMP)
        self._seen = 0

        self._looks = 0

    def keep(self) -> None:
        """Touch what has memory and leave holes alone: touching one would give it memory.

        (One that is punched out between the look and the touch does get some; the worker gives
        it back when it is at rest.)
        """
        blocks, self._looks = os.fstat(self._fd).st_blocks, self._looks + 1
        # As much as before may be other memory, which is looked for less often.
        if blocks == self._seen and self._looks % _LOOKS:
            return
        self._seen = blocks
        for start, end in ranges_in_memory(self._fd, self._size):
            for at in range(start, end, _POPULATED_AT_ONCE):
                with suppress(OSError):  # no memory for page tables: next time
                    length = min(_POPULATED_AT_ONCE, end - at)
                    libc.madvise(self._address + at, length, libc.MADV_POPULATE_READ)


def ranges_in_memory(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a memory file that have memory, as (start, end)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing more
                raise
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
