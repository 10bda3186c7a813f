"""What systemd shows of a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from vswap.geometry import Geometry
from vswap.store import Policy, Shape, State, Store, StoreStatistics
from vswapd.sdnotify import Keeper
from vswapd.statusline import keep_told, summary

if TYPE_CHECKING:
    from daemon.conftest import Systemd

MIB = 1 << 20


@pytest.fixture
def statistics() -> Iterator[StoreStatistics]:
    state = State.create(Shape(Geometry(16 * MIB), segments=8, buffers=1, buffer_size=2 * MIB))
    store = Store(state, Policy("lz4", 4, None), lambda: None)
    yield store.statistics()
    store.close()
    state.close()


def test_an_empty_device_has_no_ratio(statistics: StoreStatistics) -> None:
    found = replace(statistics, mem_used_total=3 * MIB)
    assert summary(found) == "0 pages, 0 in 0, 3.0M of memory taken"


def test_what_is_on_disk_counts_for_the_ratio(statistics: StoreStatistics) -> None:
    found = replace(
        statistics,
        orig_data_size=12 * MIB,
        compr_data_size=2 * MIB,
        backing_data_size=1 * MIB,
        backing_state="attached",
        mem_used_total=5 * MIB,
    )
    line = "3072 pages, 12M in 3.0M (4.00:1), 5.0M of memory taken, 1.0M on disk"
    assert summary(found) == line


def test_it_is_said_again_and_again(
    statistics: StoreStatistics, systemd: Systemd, address: str
) -> None:
    async def listen() -> None:
        with trio.move_on_after(25):
            await keep_told(Keeper(address), lambda: statistics)

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(listen, clock=clock)
    told = systemd.hear()
    assert len(told) == 3  # at 0, 10 and 20 s
    assert all(line[0].startswith("STATUS=0 pages") for line in told)
