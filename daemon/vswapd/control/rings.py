"""The memory of the history: rings of rows that outlive the worker that has noted them.

One memory file, which the supervisor holds beside the state; docs/format.md has the layout. All of
its memory is there from the start: a worker must not want more of it when there is none. A worker
goes on in what it finds there, if its code would have laid it out the same way; else it begins with
memory of its own. Nothing that is stored depends on it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vswap.store.region import Region

__all__ = ["COUNTS", "HAPPENED", "LATENCIES", "SAMPLE", "SIZES", "Ring", "Rings", "Rows", "Span"]


@dataclass(frozen=True)
class Span:
    """So many samples, so many seconds apart."""

    interval: int
    samples: int


SPANS = (Span(10, 360), Span(300, 2016))
"""An hour, and a week."""

_TAKEOVERS = 64

SIZES = ("orig_data_size", "compr_data_size", "mem_used_total", "backing_data_size")
COUNTS = ("zero_pages", "same_pages")
HAPPENED = (
    "reads",
    "writes",
    "pages_read",
    "pages_written",
    "notify_free",
    "bd_reads",
    "bd_writes",
    "pages_compacted",
    "pages_recompressed",
    "failed_reads",
    "failed_writes",
)
LATENCIES = {
    f"{kind}_p{percent}_us": (kind, percent / 100)
    for kind in ("read", "write")
    for percent in (50, 99)
}

SAMPLE = np.dtype(
    [("time", "<u4"), ("seconds", "<f4")]
    + [(name, "<u8") for name in SIZES]
    + [(name, "<u4") for name in (*COUNTS, *HAPPENED)]
    + [(name, "<f4") for name in LATENCIES]
)
TAKEOVER = np.dtype([("time", "<u4"), ("worker_restarts", "<u4"), ("version", "S16")])

_MAGIC = b"vswaphis"
_HEADER = struct.Struct("<8sII")
_BEGAN, _COUNTS_AT = 2, 3  # 64-bit words of the memory
_ROWS_AT = 64

Rows = npt.NDArray[Any]


class Ring:
    """The newest rows of one kind.

    There is room for one more than are seen. So a worker that is killed while it writes a row
    leaves one that is not counted, in the place of one that is not seen any more.
    """

    def __init__(self, rows: Rows, counts: memoryview, at: int) -> None:
        """`counts[at]` is how many rows have ever been noted; it is stored whole."""
        self._rows = rows
        self._counts = counts
        self._at = at

    def append(self, row: tuple[object, ...]) -> None:
        """Note a row. Takes no memory."""
        count = self._counts[self._at]
        self._rows[count % len(self._rows)] = row
        self._counts[self._at] = count + 1

    def copy(self) -> Rows:
        """The rows, the oldest first."""
        count = self._counts[self._at]
        seen = min(count, len(self._rows) - 1)
        found: Rows = self._rows[np.arange(count - seen, count) % len(self._rows)]
        return found

    @property
    def latest(self) -> int | None:
        """The time of the newest row."""
        count = self._counts[self._at]
        return int(self._rows["time"][(count - 1) % len(self._rows)]) if count else None


class Rings:
    """A ring for each of the spans, and one for the takeovers."""

    def __init__(self, region: Region, *, is_new: bool) -> None:
        """In memory that begins with `_head`."""
        self.fd = region.fd
        self.is_new = is_new
        self.spans = SPANS
        self._region = region
        self._words = region.view.cast("Q")
        made, start = [], _ROWS_AT
        for at, (kind, rows) in enumerate(_rings()):
            array: Rows = np.ndarray(rows, kind, region.view, start)
            made.append(Ring(array, self._words, _COUNTS_AT + at))
            start += array.nbytes
        self.samples: Sequence[Ring] = made[:-1]
        self.takeovers = made[-1]

    @classmethod
    def create(cls) -> Rings:
        """New ones, with all of their memory."""
        region = Region.create("history", _size(), resident=True)
        _populate(region)
        region.view[: _HEADER.size] = _head()
        return cls(region, is_new=True)

    @classmethod
    def of(cls, fd: int | None) -> Rings:
        """Those that a worker left at `fd`, which belongs to them then; else new ones."""
        if fd is None:
            return cls.create()
        is_ours = os.fstat(fd).st_size >= _size() and os.pread(fd, _HEADER.size, 0) == _head()
        if is_ours:
            region = Region(fd)
            _populate(region)
            return cls(region, is_new=False)
        os.close(fd)
        return cls.create()

    @property
    def began(self) -> int:
        """When the first worker began to note, in seconds since 1970; 0 if none has yet."""
        return self._words[_BEGAN]

    @began.setter
    def began(self, now: int) -> None:
        self._words[_BEGAN] = now

    def close(self) -> None:
        """Close the descriptor."""
        self._region.close()


def _rings() -> list[tuple[np.dtype[Any], int]]:
    """What lies behind the header: rows of which kind, and how many."""
    return [*((SAMPLE, span.samples + 1) for span in SPANS), (TAKEOVER, _TAKEOVERS + 1)]


def _size() -> int:
    return _ROWS_AT + sum(kind.itemsize * rows for kind, rows in _rings())


def _populate(region: Region) -> None:
    with suppress(OSError):  # there is not enough memory now: then when it is used
        region.populate(0, region.size)


def _head() -> bytes:
    """What tells memory that is laid out like this from any other."""
    layout = json.dumps([[kind.descr, rows] for kind, rows in _rings()] + [*map(astuple, SPANS)])
    return _HEADER.pack(_MAGIC, zlib.crc32(layout.encode()), _size())
