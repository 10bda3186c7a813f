"""What the device was like: a sample every ten seconds for an hour, every five minutes for a week.

Each of the two is a ring of its own, and has all of its memory from the start: the worker's memory
is locked, and it must not want more of it when there is none. A sample says what there is then,
and what has happened since the sample before; so counters need four bytes, and how fast requests
were is known of each piece of time by itself. The history begins anew with each worker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

from vswapd.background import in_background
from vswapd.control.report import Report

__all__ = ["COLUMNS", "SPANS", "History", "Span"]


@dataclass(frozen=True)
class Span:
    """So many samples, so many seconds apart."""

    interval: int
    samples: int


SPANS = (Span(10, 360), Span(300, 2016))

_SIZES = ("orig_data_size", "compr_data_size", "mem_used_total", "backing_data_size")
_COUNTS = ("zero_pages", "same_pages")
_HAPPENED = (
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
_LATENCIES = {
    f"{kind}_p{percent}_us": (kind, percent / 100)
    for kind in ("read", "write")
    for percent in (50, 99)
}

_SAMPLE = np.dtype(
    [("time", "u4"), ("seconds", "f4")]
    + [(name, "u8") for name in _SIZES]
    + [(name, "u4") for name in (*_COUNTS, *_HAPPENED)]
    + [(name, "f4") for name in _LATENCIES]
)
COLUMNS = _SAMPLE.names or ()
"""`time` is in seconds since 1970; `seconds` have passed since the sample before. The rest is named
as in `stats.json`, but what is counted, and the percentiles, are of these seconds alone."""

_MOST = (1 << 32) - 1

_Rows = npt.NDArray[Any]


class _Ring:
    """The newest samples of one span."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._rows: _Rows = np.empty(span.samples, _SAMPLE)
        self._rows.view(np.uint8).fill(0)  # each of its pages is there now
        self._count = 0
        self._before: tuple[Report, float] | None = None

    def note(self, report: Report, now: float, clock: float) -> None:
        """Take a sample if it is time; the first is only what the next one is compared with."""
        if self._before is None:
            self._before = report, clock
            return
        before, then = self._before
        if clock - then < self.span.interval - SPANS[0].interval / 2:
            return
        self._rows[self._count % len(self._rows)] = _sample(before, report, now, clock - then)
        self._count += 1
        self._before = report, clock

    def copy(self) -> _Rows:
        """The samples, the oldest first."""
        at = self._count % len(self._rows)
        if self._count <= len(self._rows):
            return self._rows[: self._count].copy()
        return np.concatenate((self._rows[at:], self._rows[:at]))


def _sample(before: Report, now: Report, at: float, seconds: float) -> tuple[float, ...]:
    """What `_SAMPLE` says."""
    was, store = before.store, now.store
    happened = (getattr(store, name) - getattr(was, name) for name in _HAPPENED)
    between = {
        kind: getattr(now.latency, kind).since(getattr(before.latency, kind))
        for kind in ("read", "write")
    }
    return (
        int(at),
        seconds,
        *(getattr(store, name) for name in (*_SIZES, *_COUNTS)),
        *(min(max(0, count), _MOST) for count in happened),
        *(between[kind].quantile_us(share) for kind, share in _LATENCIES.values()),
    )


class History:
    """Both spans of one worker's device."""

    def __init__(self, report: Callable[[], Report]) -> None:
        """`report` takes a snapshot."""
        self._report = report
        self._rings = [_Ring(span) for span in SPANS]
        self._began = int(time.time())
        self._rendering = trio.Lock()  # one at a time: it takes memory

    async def keep(self) -> None:
        """Take samples, for ever."""
        while True:
            self.note(time.time(), time.monotonic())
            await trio.sleep(SPANS[0].interval)

    def note(self, now: float, clock: float) -> None:
        """Take a sample; `now` in seconds since 1970, `clock` by one that is never set.

        Takes no memory but for the report itself.
        """
        report = self._report()
        for ring in self._rings:
            ring.note(report, now, clock)

    async def render(self) -> bytes:
        """The content of `history.json`: see `_lines`. Raises what `report` does.

        In the background, where data threads are let in between any two lines: a full history
        has a third of a megabyte.
        """
        async with self._rendering:
            report = self._report()
            series = [(ring.span, ring.copy()) for ring in self._rings]
            return await in_background(partial(_text, report, self._began, series))


def _text(report: Report, began: int, series: list[tuple[Span, _Rows]]) -> bytes:
    return "".join(_lines(report, began, series)).encode()


def _lines(report: Report, began: int, series: list[tuple[Span, _Rows]]) -> Iterator[str]:
    """An object: what the device is, `columns`, and in `series` for each `interval` its `rows`."""
    store, device = report.store, report.device
    head = {
        "name": device.name,
        "version": device.version,
        "began": began,
        "worker_restarts": device.worker_restarts,
        "size": store.size,
        "mem_limit": store.mem_limit,
        "backing_size": store.backing_size,
        "columns": COLUMNS,
    }
    yield json.dumps(head)[:-1] + ',\n"series": ['
    for at, (span, rows) in enumerate(series):
        yield f'{"," if at else ""}\n{{"interval": {span.interval}, "rows": ['
        for number, row in enumerate(rows):
            yield f"{',' if number else ''}\n{json.dumps([_short(value) for value in row.item()])}"
        yield "]}"
    yield "]}\n"


def _short(value: float) -> float:
    return round(value, 1) if isinstance(value, float) else value
