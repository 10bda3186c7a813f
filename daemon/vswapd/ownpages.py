"""Giving a fork pages of its own before it needs them.

A fork shares its parent's memory until one of the two writes to a page, and finds programs and
libraries only in the page cache. Each first touch is a page fault, which takes memory; a process
that serves reclaim must not wait for that, least of all with the interpreter's lock held. So the
parent notes once which of its pages are there, and each fork has them all as its own before it
serves, unless nobody else does meanwhile.

By MADV_POPULATE_*, from kernel 5.14 on; before that nothing happens here.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vswap import libc

__all__ = [
    "STACK_SIZE",
    "Run",
    "make_own",
    "make_own_in_time",
    "own_stack",
    "reserve_heap",
    "resident",
]

_PRESENT = np.uint64(1 << 63)  # Documentation/admin-guide/mm/pagemap.rst
_KERNEL_S = ("[vsyscall]", "[vvar]", "[vvar_vclock]", "[vdso]")


STACK_SIZE = 256 << 10
"""Bytes of a thread's stack."""

_STACK_OWN = 128 << 10
_HEAP = 6 << 20  # what is kept decoded of each lane and of the disk, and some more
_ARENAS = 6 << 20
_CODE = 3 << 20  # the interpreter's, the C library's; not the linear algebra's
_ARENA = 1 << 20
_SMALL = 400  # bytes of an object that lies in an arena
_STEP = 256 << 10
_STEP_SECONDS = 0.02
_SPARE_SECONDS = 0.2

_pins: list[bytes] = []


@dataclass(frozen=True)
class Run:
    """Consecutive pages, in bytes. `writable` ones are copied, the others mapped."""

    address: int
    length: int
    writable: bool


def resident() -> list[Run]:
    """The private pages that this process has in memory, and those of its programs.

    None for a process of a user's that is not to be dumped: it may not look.
    """
    try:
        return list(_runs())
    except PermissionError:
        return []


def make_own(runs: Iterable[Run], go_on: Callable[[], bool] = lambda: True) -> list[Run]:
    """Have these pages, which are the parent's, as this process's own, as long as it may go on.

    Returns those that are left.
    """
    steps = iter(_steps(runs))
    for step in steps:
        if not go_on():
            return [step, *steps]
        _own(step)
    return []


def make_own_in_time(runs: Sequence[Run], spare: Callable[[], bool]) -> None:
    """The same for a process that serves already: bit by bit, while there is memory to spare.

    Who waits for a page here keeps mappings from being changed, and so everybody waiting.
    """
    for step in _steps(runs):
        time.sleep(_STEP_SECONDS)
        while not spare():
            time.sleep(_SPARE_SECONDS)
        _own(step)


def own_stack() -> None:
    """Have as much of the calling thread's stack as it will probably use."""
    with suppress(OSError):  # the C library does not tell, or the kernel cannot do this
        start, length = libc.thread_stack()
        own = min(length, _STACK_OWN)
        libc.madvise(start + length - own, own, libc.MADV_POPULATE_WRITE)


def reserve_heap() -> None:
    """Have memory for objects to come.

    For long ones at the end of the heap, which is not given back (M_TRIM_THRESHOLD); for short
    ones in arenas of the interpreter's, each of which one object keeps from being given back.
    """
    bytearray(_HEAP)
    objects = [bytes(_SMALL) for _ in range(_ARENAS // _SMALL)]
    _pins.extend(objects[:: _ARENA // _SMALL // 2])


def _own(run: Run) -> None:
    advice = libc.MADV_POPULATE_WRITE if run.writable else libc.MADV_POPULATE_READ
    with suppress(OSError):  # it is unmapped, or the kernel cannot do this
        libc.madvise(run.address, run.length, advice)


def _steps(runs: Iterable[Run]) -> Iterator[Run]:
    """The same pages in pieces, none of which takes long."""
    for run in runs:
        for start in range(0, run.length, _STEP):
            length = min(_STEP, run.length - start)
            yield Run(run.address + start, length, run.writable)


def _runs() -> Iterator[Run]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        for line in lines:
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            if rights[3] == "s" or rights[0] == "-" or (name and name[0] in _KERNEL_S):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            pagemap.seek(start // mmap.PAGESIZE * 8)
            data = pagemap.read((end - start) // mmap.PAGESIZE * 8)
            there = (np.frombuffer(data, np.uint64) & _PRESENT) != 0
            if rights[2] == "x" and end - start <= _CODE and 2 * there.sum() >= len(there):
                there[:] = True  # code of which much has run
            for first, stop in _ranges(there):
                address = start + first * mmap.PAGESIZE
                yield Run(address, (stop - first) * mmap.PAGESIZE, rights[1] == "w")


def _ranges(there: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where something is, as ranges: number of the first, and of the next."""
    framed = np.concatenate(([False], there, [False]))
    edges = np.flatnonzero(framed[1:] != framed[:-1]).tolist()
    return zip(edges[::2], edges[1::2], strict=True)
