"""A report in which every number is another one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeVar

import pytest

from vswap.store import StoreStatistics
from vswapd.channel import ChannelStatistics
from vswapd.control import DeviceInfo, Report
from vswapd.memory import Preparation

_T = TypeVar("_T")


def _filled(kind: type[_T], numbers: Iterator[int], **known: object) -> _T:
    values: dict[str, Any] = {field.name: next(numbers) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**values, **known})


@pytest.fixture
def report() -> Report:
    numbers = itertools.count(1001)
    return Report(
        _filled(DeviceInfo, numbers, name="swap0", codec="lz4", data_threads="71,72"),
        Preparation(True, False, True),
        _filled(StoreStatistics, numbers),
        _filled(ChannelStatistics, numbers),
    )
