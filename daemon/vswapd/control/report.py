"""One frozen value with all that a device says about itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

from vswap.store import StoreStatistics
from vswapd.channel import ChannelStatistics
from vswapd.memory import Preparation

__all__ = ["DeviceInfo", "Report", "Value", "flatten"]

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


def flatten(report: Report) -> dict[str, Value]:
    """All fields of the report's parts by their names, which no two parts share."""
    flat: dict[str, Value] = {}
    for part in fields(report):
        values = getattr(report, part.name)
        flat.update((field.name, getattr(values, field.name)) for field in fields(values))
    return flat
