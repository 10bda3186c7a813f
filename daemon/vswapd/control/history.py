"""What the device was like: a sample every ten seconds for an hour, every five minutes for a week.

A sample says what there is then, and what has happened since the sample before; so counters need
four bytes, and how fast requests were is known of each piece of time by itself. Samples outlive the
worker (`vswapd.control.rings`). What one compares with does not: of the seconds between the last
sample of a worker and the first look of the next one nothing is known, and a takeover is noted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import trio

from vswapd.background import in_background
from vswapd.control.report import Report
from vswapd.control.rings import COUNTS, HAPPENED, LATENCIES, SAMPLE, SIZES, Ring, Rings, Rows, Span

__all__ = ["COLUMNS", "History"]

COLUMNS = SAMPLE.names or ()
"""`time` is in seconds since 1970; `seconds` have passed since the sample before. The rest is named
as in `stats.json`, but what is counted, and the percentiles, are of these seconds alone."""

_MOST = (1 << 32) - 1


class _Series:
    """The samples of one span, and what the next one is compared with."""

    def __init__(self, span: Span, ring: Ring, tolerance: float) -> None:
        """A sample may be taken by so many seconds too early: half the time between two looks."""
        self._span = span
        self._ring = ring
        self._tolerance = tolerance
        self._due = 0.0
        self._before: tuple[Report, float] | None = None

    def note(self, report: Report, now: float, clock: float, began: int) -> None:
        """Take a sample if it is time; the first is only what the next one is compared with.

        `began` is when the history did, 0 if that is not known.
        """
        if self._before is None:
            self._due = clock + self._span.interval - self._late(now, began)
            self._before = report, clock
            return
        before, then = self._before
        if clock < self._due - self._tolerance:
            return
        self._ring.append(_sample(before, report, now, clock - then))
        self._due = clock + self._span.interval
        self._before = report, clock

    def _late(self, now: float, began: int) -> float:
        """How much of the interval had passed before this worker.

        Of workers that do not live as long as the interval there would never be a sample.
        """
        latest = self._ring.latest or began or now
        return min(max(0.0, now - latest), self._span.interval)


def _sample(before: Report, now: Report, at: float, seconds: float) -> tuple[float, ...]:
    """What `SAMPLE` says."""
    was, store = before.store, now.store
    counts = [getattr(store, name) for name in COUNTS]
    counts += [getattr(store, name) - getattr(was, name) for name in HAPPENED]
    between = {
        kind: getattr(now.latency, kind).since(getattr(before.latency, kind))
        for kind in ("read", "write")
    }
    return (
        int(at),
        seconds,
        *(getattr(store, name) for name in SIZES),
        *(min(max(0, count), _MOST) for count in counts),
        *(between[kind].quantile_us(share) for kind, share in LATENCIES.values()),
    )


class History:
    """Takes samples, and says what they are."""

    def __init__(self, report: Callable[[], Report], rings: Rings) -> None:
        """`report` takes a snapshot. Goes on with what is in the rings."""
        self._report = report
        self._rings = rings
        self._interval = rings.spans[0].interval
        self._series = [
            _Series(span, ring, self._interval / 2)
            for span, ring in zip(rings.spans, rings.samples, strict=True)
        ]
        self._looks = 0
        self._rendering = trio.Lock()  # one at a time: it takes memory
        self._rendered: bytes | None = None

    def begin(self, now: float) -> None:
        """A worker begins, at `now`, in seconds since 1970: if it has a predecessor, note that."""
        device = self._report().device
        if not self._rings.began:
            self._rings.began = int(now)
        if device.worker_restarts:
            version = device.version.encode(errors="replace")
            self._rings.takeovers.append((int(now), min(device.worker_restarts, _MOST), version))

    async def keep(self) -> None:
        """Take samples, for ever."""
        while True:
            self.note(time.time(), time.monotonic())
            await trio.sleep(self._interval)

    def note(self, now: float, clock: float) -> None:
        """Take a sample; `now` in seconds since 1970, `clock` by one that is never set.

        Takes no memory but for the report itself.
        """
        report = self._report()
        self._looks += 1
        self._rendered = None
        for series in self._series:
            series.note(report, now, clock, self._rings.began)

    async def render(self) -> bytes:
        """The content of `history.json`: see `_lines`. Raises what `report` does.

        In the background, where data threads are let in between any two lines: a full history
        has a third of a megabyte. Who asks before the next sample is given the same object.
        """
        async with self._rendering:
            if self._rendered is not None:
                return self._rendered
            looks, report = self._looks, self._report()
            series = [
                (span.interval, ring.copy())
                for span, ring in zip(self._rings.spans, self._rings.samples, strict=True)
            ]
            head = _head(report, self._rings.began, self._rings.takeovers.copy())
            text = await in_background(partial(_text, head, series))
            if looks == self._looks:
                self._rendered = text
            return text


def _head(report: Report, began: int, takeovers: Rows) -> dict[str, object]:
    """What the device is, when the history began, and which workers have taken over since."""
    store, device = report.store, report.device
    return {
        "name": device.name,
        "version": device.version,
        "began": began,
        "worker_began": device.worker_began,
        "worker_restarts": device.worker_restarts,
        "takeovers": [
            {"time": at, "worker_restarts": restarts, "version": version.decode(errors="replace")}
            for at, restarts, version in takeovers.tolist()
        ],
        "size": store.size,
        "mem_limit": store.mem_limit,
        "backing_size": store.backing_size,
        "columns": COLUMNS,
    }


def _text(head: dict[str, object], series: Sequence[tuple[int, Rows]]) -> bytes:
    return "".join(_lines(head, series)).encode()


def _lines(head: dict[str, object], series: Sequence[tuple[int, Rows]]) -> Iterator[str]:
    """An object: `head`, and in `series` for each `interval` its `rows`, as `columns` says."""
    yield json.dumps(head)[:-1] + ',\n"series": ['
    for at, (interval, rows) in enumerate(series):
        yield f'{"," if at else ""}\n{{"interval": {interval}, "rows": ['
        for number, row in enumerate(rows):
            yield f"{',' if number else ''}\n{json.dumps([_short(value) for value in row.item()])}"
        yield "]}"
    yield "]}\n"


def _short(value: float) -> float:
    return round(value, 1) if isinstance(value, float) else value
