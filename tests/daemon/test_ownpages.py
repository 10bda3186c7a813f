"""A fork's own pages: looked at in forks, by what the kernel says of each page."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vswap import libc
from vswapd.ownpages import (
    STACK_SIZE,
    Run,
    make_own,
    make_own_in_time,
    own_stack,
    resident,
)

PRESENT, EXCLUSIVE = 1 << 63, 1 << 56
PAGES = 8


@pytest.fixture
def memory() -> mmap.mmap:
    """Pages of which every second one has been written to."""
    made = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc.madvise(libc.address_of(made), len(made), 15)  # MADV_NOHUGEPAGE
    for page in range(0, PAGES, 2):
        made[page * mmap.PAGESIZE] = 1
    return made


def words(address: int, length: int) -> npt.NDArray[np.uint64]:
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(address // mmap.PAGESIZE * 8)
        return np.frombuffer(pagemap.read(length // mmap.PAGESIZE * 8), np.uint64)


def own(address: int, length: int) -> list[bool]:
    """Which pages are there and nobody else's."""
    both = np.uint64(PRESENT | EXCLUSIVE)
    return [bool(word & both == both) for word in words(address, length)]


def in_fork(act: Callable[[], bool]) -> bool:
    """Whether `act` answers so in a fork."""
    pid = os.fork()
    if not pid:
        answer = False
        try:
            answer = act()
        finally:
            os._exit(not answer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def of(memory: mmap.mmap, runs: list[Run]) -> list[Run]:
    address = libc.address_of(memory)
    return [run for run in runs if address <= run.address < address + len(memory)]


def test_what_is_there_is_found_and_nothing_else(memory: mmap.mmap) -> None:
    address = libc.address_of(memory)
    assert of(memory, resident()) == [
        Run(address + page * mmap.PAGESIZE, mmap.PAGESIZE, writable=True)
        for page in range(0, PAGES, 2)
    ]


def test_a_fork_has_its_parent_s_pages_as_its_own(memory: mmap.mmap) -> None:
    address, length = libc.address_of(memory), len(memory)
    runs = of(memory, resident())
    there = [page % 2 == 0 for page in range(PAGES)]

    def act() -> bool:
        before = own(address, length)
        make_own(runs)
        return not any(before) and own(address, length) == there and memory[0] == 1

    assert in_fork(act)


def test_what_is_not_there_any_more_is_no_error(memory: mmap.mmap) -> None:
    address = libc.address_of(memory)
    run = Run(address, len(memory), writable=True)
    memory.close()
    make_own([run])


def test_it_stops_when_it_may_not_go_on_and_the_rest_is_left_for_later(memory: mmap.mmap) -> None:
    address, length = libc.address_of(memory), len(memory)
    runs = of(memory, resident())
    first = [page == 0 for page in range(PAGES)]
    there = [page % 2 == 0 for page in range(PAGES)]

    def act() -> bool:
        may = iter((True, False))
        left = make_own(runs, lambda: next(may))
        halfway = own(address, length)
        spare = iter((False, True, True, False, True))
        make_own_in_time(left, lambda: next(spare))
        return (left, halfway, own(address, length)) == (runs[1:], first, there)

    assert in_fork(act)


def test_no_step_takes_long(memory: mmap.mmap) -> None:
    """For who waits in one hears nothing."""
    looks: list[bool] = []
    large = Run(libc.address_of(memory), 1 << 20, writable=True)  # of which most is not there
    left = make_own([large], lambda: not looks.append(True))  # type: ignore[func-returns-value]
    assert (left, len(looks)) == ([], 4)


def test_code_is_mapped_and_not_copied() -> None:
    assert any(not run.writable for run in resident())


def test_a_thread_has_the_stack_that_it_will_use() -> None:
    seen: list[bool] = []

    def act() -> None:
        own_stack()
        start, length = libc.thread_stack()
        assert length <= STACK_SIZE
        depth = 64 << 10
        seen.append(all(word & np.uint64(PRESENT) for word in words(start + length - depth, depth)))

    before = threading.stack_size(STACK_SIZE)
    try:
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert seen == [True]
