"""A worker that is killed, and the next one, which finds the memory as it was at that instant.

A kill is an exception that nothing catches, thrown before each of the calls that change the
state in turn, and before each single entry that is stored. What runs while it passes through
(`finally`, `except BaseException`) does not run in a worker that is killed: so the next one is
given a copy of the memory, taken when the exception was thrown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from model.memory import data_extents, peek
from model.stores import state_of

from vswap.store import State, Store
from vswap.store.appender import Appender
from vswap.store.disk import Disk
from vswap.store.disk_log import DiskLog
from vswap.store.log import Log
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.words import FillWords
from vswap.store.zeromap import Zeromap

__all__ = ["DISK_STEPS", "STEPS", "Kill", "KilledError", "copy_of", "killed_before"]

STEPS: tuple[tuple[type, str], ...] = (
    (Appender, "append"),
    (Appender, "copy"),
    (Appender, "settle"),
    (SwapTable, "exchange"),
    (SwapTable, "empty"),
    (SwapTable, "replace"),
    (SwapTable, "mark"),
    (Zeromap, "clear"),
    (Zeromap, "set"),
    (FillWords, "take"),
    (FillWords, "publish"),
    (Log, "seal"),
    (Log, "publish"),
    (Log, "mark_cold"),
    (Region, "punch"),
)
"""The calls that change what a crash leaves, without a disk."""

DISK_STEPS = (
    *STEPS,
    (DiskLog, "next_sequence"),
    (DiskLog, "take"),
    (DiskLog, "put_back"),
    (DiskLog, "fill"),
    (DiskLog, "publish"),
    (DiskLog, "resize"),
    (Disk, "write"),
    (Disk, "let_go"),
)
"""And with one."""


class KilledError(BaseException):
    """The worker is gone."""


@dataclass
class Kill:
    """What came of it: the calls that were made, and the memory that was left, if it was killed."""

    made: list[str] = field(default_factory=list)
    left: State | None = None


class _Stores:
    """Stands for the table's entries, and calls `before` before one is stored."""

    def __init__(self, entries: memoryview, before: Callable[[str], None]) -> None:
        self._entries = entries
        self._before = before

    def __getitem__(self, at: int | slice) -> object:
        return self._entries[at]

    def __setitem__(self, at: int, entry: int) -> None:
        self._before("store")
        self._entries[at] = entry


def copy_of(state: State) -> State:
    """Another state with the same memory in it, holes and all."""
    regions = []
    for name, region in zip(state.shape.sizes(), state.regions(), strict=True):
        fd = os.memfd_create(f"copy-{name}")
        os.ftruncate(fd, region.size)
        for start, end in data_extents(region):
            os.pwrite(fd, peek(region, start, end - start), start)
        regions.append(Region(fd))
    return State(state.shape, *regions)


@contextmanager
def killed_before(
    step: int, store: Store, steps: tuple[tuple[type, str], ...] = STEPS
) -> Iterator[Kill]:
    """Within, the worker with that store is killed before step number `step`."""
    kill = Kill()

    def before(name: str) -> None:
        if kill.left is not None or len(kill.made) == step:
            kill.left = kill.left or copy_of(state_of(store))
            raise KilledError
        kill.made.append(name)

    def guarded(method: Callable[..., object], name: str) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            before(name)
            return method(*args, **named)

        return call

    table = store._parts.table
    entries: Any = _Stores(table._entries, before)
    patches = [
        patch.object(owner, name, guarded(getattr(owner, name), name)) for owner, name in steps
    ]
    patches.append(patch.object(table, "_entries", entries))
    for one in patches:
        one.start()
    try:
        yield kill
    except KilledError:
        pass
    finally:
        for one in patches:
            one.stop()
