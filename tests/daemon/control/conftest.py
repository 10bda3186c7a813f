"""A report in which every number is another one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeVar

import pytest

from vswap.store import StoreStatistics
from vswapd.channel import ChannelStatistics, Latencies
from vswapd.control import DeviceInfo, Report, Rings
from vswapd.histogram import BUCKETS, Histogram
from vswapd.memory import Preparation

_T = TypeVar("_T")


def _filled(kind: type[_T], numbers: Iterator[int], **known: object) -> _T:
    values: dict[str, Any] = {field.name: next(numbers) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**values, **known})


def _histogram(number: int) -> Histogram:
    """Requests of 16 to 32 us, of 32 to 65 us, and one of a second."""
    counts = [0] * BUCKETS
    counts[5], counts[6], counts[20] = 10 * number, number, 1
    return Histogram(tuple(counts), number * 1_000_000)


@pytest.fixture
def report() -> Report:
    numbers = itertools.count(1001)
    return Report(
        _filled(
            DeviceInfo, numbers, name="swap0", version="0.7", codec="lz4", data_threads="71,72"
        ),
        Preparation(True, False, True),
        _filled(StoreStatistics, numbers),
        _filled(ChannelStatistics, numbers),
        Latencies(*(_histogram(number) for number in itertools.islice(numbers, 3))),
    )


@pytest.fixture
def rings() -> Iterator[Rings]:
    """Memory for a history, and nothing in it."""
    made = Rings.create()
    yield made
    made.close()
