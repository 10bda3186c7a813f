"""One frozen value with all that a device says about itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

from vswap.store import StoreStatistics
from vswapd.channel import ChannelStatistics, Latencies
from vswapd.histogram import Histogram
from vswapd.memory import Preparation

__all__ = ["DeviceInfo", "Report", "Value", "flatten"]

_PERCENTS = (50, 90, 99)

Value = int | float | str | bool
"""What a statistic may be."""


@dataclass(frozen=True)
class DeviceInfo:
    """What does not change while a worker runs."""

    name: str
    version: str
    codec: str
    unit_pages: int
    spin_us: int
    supervisor_pid: int
    worker_pid: int
    worker_began: int
    """In seconds since 1970."""
    worker_restarts: int
    data_threads: str
    """The kernel's thread numbers, separated by commas."""


@dataclass(frozen=True)
class Report:
    """A snapshot of every component's `statistics()`."""

    device: DeviceInfo
    prepared: Preparation
    store: StoreStatistics
    channel: ChannelStatistics
    latency: Latencies


def flatten(report: Report) -> dict[str, Value]:
    """All fields of the report's parts by their names, which no two parts share.

    A histogram is several: see `_figures`.
    """
    flat: dict[str, Value] = {}
    for part in fields(report):
        values = getattr(report, part.name)
        for field in fields(values):
            value = getattr(values, field.name)
            flat.update(
                _figures(field.name, value) if isinstance(value, Histogram) else {field.name: value}
            )
    return flat


def _figures(kind: str, histogram: Histogram) -> dict[str, Value]:
    """Of a kind of request since the worker's start: how many have been answered, and how fast.

    `read_p99_us` is how many microseconds 99 % of the reads took at most, as exactly as buckets
    that double tell; all of them took less than `read_max_us`. `read_buckets` are the counts, for
    who wants to know of the time between two looks (`vswapd.histogram`).
    """
    figures: dict[str, Value] = {f"{kind}_count": histogram.count}
    for percent in _PERCENTS:
        figures[f"{kind}_p{percent}_us"] = round(histogram.quantile_us(percent / 100), 1)
    figures[f"{kind}_max_us"] = round(histogram.max_us, 1)
    figures[f"{kind}_buckets"] = ",".join(map(str, histogram.used))
    return figures
