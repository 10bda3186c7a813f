"""The history: which samples are taken and kept, what they say, and how it is read."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from vswapd.control import History, Report, Rings
from vswapd.control.history import COLUMNS
from vswapd.control.rings import HAPPENED, SPANS
from vswapd.histogram import Histogram

START = 1_800_000_000
KIBIBYTES = 260
LARGE = 12_345_678


@dataclass
class Device:
    """One whose counters only grow."""

    report: Report
    asked: int = 0

    def __call__(self) -> Report:
        self.asked += 1
        return self.report

    def set(self, **changed: int) -> None:
        values: dict[str, Any] = dict(changed)
        self.report = replace(self.report, store=replace(self.report.store, **values))

    def answer_reads(self, bucket: int, count: int) -> None:
        """So many reads more, all of them in one bucket."""
        before = self.report.latency.read
        counts = tuple(old + count * (at == bucket) for at, old in enumerate(before.counts))
        latency = replace(self.report.latency, read=Histogram(counts, before.total_ns))
        self.report = replace(self.report, latency=latency)


@pytest.fixture
def device(report: Report) -> Device:
    return Device(report)


def pass_time(history: History, seconds: int, start: int = 0) -> None:
    """Samples every ten seconds, the first at `start` and the last after as many as that."""
    for clock in range(start, start + seconds + 1, SPANS[0].interval):
        history.note(START + clock, float(clock))


def content(history: History) -> dict[str, Any]:
    found = json.loads(trio.run(history.render))
    assert isinstance(found, dict)
    return found


def rows(history: History, series: int = 0) -> list[dict[str, Any]]:
    found = content(history)
    return [
        dict(zip(found["columns"], row, strict=True)) for row in found["series"][series]["rows"]
    ]


def test_the_first_look_is_only_compared_with(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.note(START, 0.0)
    assert rows(history) == []
    history.note(START + 10, 10.0)
    assert [(row["time"], row["seconds"]) for row in rows(history)] == [(START + 10, 10.0)]


def test_sizes_are_as_they_are_then(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.note(START, 0.0)
    device.set(orig_data_size=1 << 45, zero_pages=77)
    history.note(START + 10, 10.0)
    [row] = rows(history)
    assert (row["orig_data_size"], row["zero_pages"]) == (1 << 45, 77)


def test_counts_are_of_the_time_between(device: Device, rings: Rings) -> None:
    """However long the worker has counted, and in each series of its own time."""
    history = History(device, rings)
    device.set(reads=1 << 60)
    pass_time(history, 0)
    for tick in range(1, 31):
        device.set(reads=(1 << 60) + 7 * tick)
        history.note(START + 10 * tick, 10.0 * tick)
    assert [row["reads"] for row in rows(history)] == [7] * 30
    assert [row["reads"] for row in rows(history, 1)] == [210]


def test_percentiles_are_of_the_time_between(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    device.answer_reads(30, 1000)
    history.note(START, 0.0)
    device.answer_reads(2, 100)
    history.note(START + 10, 10.0)
    history.note(START + 20, 20.0)
    fast, none = rows(history)
    assert 2.0 < fast["read_p50_us"] < fast["read_p99_us"] <= 4.1
    assert (none["read_p50_us"], none["read_p99_us"]) == (0.0, 0.0)


def test_a_count_that_does_not_fit_is_the_most(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.note(START, 0.0)
    device.set(pages_read=1 << 40)
    history.note(START + 10, 10.0)
    assert rows(history)[0]["pages_read"] == (1 << 32) - 1


def test_nor_does_one_of_what_there_is(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.note(START, 0.0)
    device.set(zero_pages=1 << 33)
    history.note(START + 10, 10.0)
    assert rows(history)[0]["zero_pages"] == (1 << 32) - 1


def test_a_ring_keeps_the_newest_in_order(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    pass_time(history, 4000)
    times = [row["time"] - START for row in rows(history)]
    assert times == list(range(410, 4010, 10))
    assert [row["time"] - START for row in rows(history, 1)] == list(range(300, 4200, 300))[:13]


def test_a_sample_that_came_late_says_so(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    for clock in (0.0, 10.4, 312.0):
        history.note(START + clock, clock)
    assert [row["seconds"] for row in rows(history)] == [10.4, 301.6]
    assert [row["seconds"] for row in rows(history, 1)] == [312.0]


def test_the_clock_may_be_set_meanwhile(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.note(START, 0.0)
    history.note(START - 5000, 10.0)
    [row] = rows(history)
    assert (row["time"], row["seconds"]) == (START - 5000, 10.0)


def test_it_says_what_it_is_of(device: Device, rings: Rings) -> None:
    found = content(History(device, rings))
    assert found["name"] == "swap0"
    assert found["worker_restarts"] == device.report.device.worker_restarts
    assert found["size"] == device.report.store.size
    assert tuple(found["columns"]) == COLUMNS
    assert [one["interval"] for one in found["series"]] == [10, 300]


def test_its_memory_is_bounded_and_all_there_from_the_start(device: Device, rings: Rings) -> None:
    region = rings._region
    assert region.allocated() == region.size < KIBIBYTES << 10
    tracemalloc.start()
    try:
        history = History(device, rings)
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        pass_time(history, 5000)
        later, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert later - made < 8 << 10
    assert peak - made < 32 << 10


def test_a_full_one_is_less_than_half_a_mebibyte(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    many = dict.fromkeys(HAPPENED, 0)
    for tick in range(SPANS[1].samples * 30 + 1):
        if tick % 30 == 0:
            many = {name: count + LARGE for name, count in many.items()}
            device.set(**many)
        history.note(START + 10 * tick, 10.0 * tick)
    found = trio.run(history.render)
    assert len(json.loads(found)["series"][1]["rows"]) == SPANS[1].samples
    assert len(found) < 512 << 10


# --- From one worker to the next -----------------------------------------------------------


def succeed(device: Device, rings: Rings, now: float) -> History:
    """The history of the next worker, which counts from 0 on."""
    before = device.report.device
    began = replace(before, worker_restarts=before.worker_restarts + 1, version="0.8")
    device.report = replace(device.report, device=began)
    device.set(reads=0)
    history = History(device, Rings.of(os.dup(rings.fd)))
    history.begin(now)
    return history


def test_the_next_worker_goes_on(device: Device, rings: Rings) -> None:
    history = History(device, rings)
    history.begin(START - 7)
    pass_time(history, 30)
    later = succeed(device, rings, START + 35)
    device.set(reads=0)
    later.note(START + 35, 1000.0)
    device.set(reads=8)
    later.note(START + 45, 1010.0)
    found = rows(later)
    assert [row["time"] - START for row in found] == [10, 20, 30, 45]
    assert (found[-1]["seconds"], found[-1]["reads"]) == (10.0, 8)
    assert content(later)["began"] == START - 7


def test_takeovers_are_noted_with_their_time(device: Device, rings: Rings) -> None:
    first = replace(device.report.device, worker_restarts=0)
    device.report = replace(device.report, device=first)
    history = History(device, rings)
    history.begin(START)
    assert content(history)["takeovers"] == []
    for number in range(70):
        history = succeed(device, rings, START + 5 + number)
    found = content(history)["takeovers"]
    assert len(found) == 64
    assert found[0] == {"time": START + 11, "worker_restarts": 7, "version": "0.8"}
    assert found[-1] == {"time": START + 74, "worker_restarts": 70, "version": "0.8"}


def test_workers_that_live_shorter_than_a_span_leave_samples_of_it_too(
    device: Device, rings: Rings
) -> None:
    """Each of them for 200 s, with samples of 300 s."""
    for number in range(9):
        history = succeed(device, rings, START + 200 * number)
        for clock in range(0, 200, 10):
            history.note(START + 200 * number + clock, float(clock))
    found = rows(history, 1)
    gaps = [row["time"] - before["time"] for before, row in pairwise(found)]
    assert len(found) >= 4, gaps
    assert set(gaps) <= {300, 310}
    assert all(row["seconds"] < 200 for row in found)


def test_samples_are_taken_every_ten_seconds(
    device: Device, autojump_clock: trio.testing.MockClock, rings: Rings
) -> None:
    async def for_a_minute() -> None:
        with trio.move_on_after(59):
            await History(device, rings).keep()

    trio.run(for_a_minute, clock=autojump_clock)
    assert device.asked == 6


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)
