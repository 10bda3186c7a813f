"""What `history.json` says, as points in time that can be drawn.

The two series of the file become one: that of the last hour, and before it the coarser one. What
another process says is not believed to have any form: what makes no sense is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswapd.figures import ratio
from vswapd.said import moment, number, word

__all__ = ["Point", "Takeover", "Timeline", "binned", "parse_timeline"]


@dataclass(frozen=True)
class Point:
    """What a device was like at `time`, in seconds since 1970, and did in the `seconds` before.

    Rates are in a second: `swap_in`, `swap_out`, `disk_in` (read from it), `disk_out` in bytes, the
    others in pages. `reads`, `writes` and `failed` are requests in these seconds. Percentiles are
    in microseconds, None if there were no requests.
    """

    time: float
    seconds: float
    data: float
    memory: float
    disk: float
    ratio: float | None
    swap_in: float
    swap_out: float
    disk_in: float
    disk_out: float
    moved: float
    recompressed: float
    freed: float
    failed: float
    reads: float
    writes: float
    read_p50: float | None
    read_p99: float | None
    write_p50: float | None
    write_p99: float | None

    @property
    def saved(self) -> float:
        """Bytes of memory that swapping out has won, or lost."""
        return self.data - self.memory


@dataclass(frozen=True)
class Takeover:
    """A worker took over at `time`, in seconds since 1970, the so-manieth that did."""

    time: float
    restarts: int
    version: str


@dataclass(frozen=True)
class Timeline:
    """A device, and its points in order. `began` in seconds since 1970, sizes in bytes."""

    name: str
    version: str
    began: float
    restarts: int
    size: float
    limit: float
    backing: float
    points: Sequence[Point]
    takeovers: Sequence[Takeover] = ()

    def since(self, time: float) -> Timeline:
        """The same from a time on."""
        return replace(
            self,
            points=[point for point in self.points if point.time >= time],
            takeovers=[each for each in self.takeovers if each.time >= time],
        )


def parse_timeline(text: bytes, name: str) -> Timeline:
    """The history of the device `name`. Raises `UserError` if this is none."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("columns"), list):
        raise UserError(f"the daemon of {name} answers, but not with a history")
    return Timeline(
        name=word(said.get("name")),
        version=word(said.get("version")),
        began=moment(said.get("began")),
        restarts=int(number(said.get("worker_restarts"))),
        size=number(said.get("size")),
        limit=number(said.get("mem_limit")),
        backing=number(said.get("backing_size")),
        points=_points(said["columns"], said.get("series")),
        takeovers=list(_takeovers(said.get("takeovers"))),
    )


def _takeovers(said: object) -> Iterator[Takeover]:
    for each in said if isinstance(said, list) else ():
        if isinstance(each, dict) and (time := moment(each.get("time"))):
            restarts, version = number(each.get("worker_restarts")), word(each.get("version"))
            yield Takeover(time, int(restarts), version)


def _points(columns: list[object], series: object) -> list[Point]:
    """The finest series, and of the coarser ones what is older."""
    found: list[Point] = []
    oldest = math.inf
    for each in series if isinstance(series, list) else ():
        rows = each.get("rows") if isinstance(each, dict) else None
        older = [
            point
            for point in map(_point, _dicts(columns, rows))
            if moment(point.time) and point.time < oldest and 0 < point.seconds <= point.time
        ]
        found += older
        oldest = min([oldest, *(point.time - point.seconds / 2 for point in older)])
    return sorted(found, key=lambda point: point.time)


def _dicts(columns: list[object], rows: object) -> Iterator[dict[str, float]]:
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, list) and len(row) == len(columns):
            yield dict(zip(map(str, columns), map(number, row), strict=True))


def _point(row: dict[str, float]) -> Point:
    def get(name: str) -> float:
        return row.get(name, 0)

    def rate(name: str, unit: int = 1) -> float:
        return get(name) * unit / get("seconds") if get("seconds") > 0 else 0

    def percentile(name: str) -> float | None:
        return get(name) or None

    kept = get("compr_data_size") + get("backing_data_size")
    return Point(
        time=get("time"),
        seconds=get("seconds"),
        data=get("orig_data_size") + get("same_pages") * PAGE_SIZE,
        memory=get("mem_used_total"),
        disk=get("backing_data_size"),
        ratio=ratio(get("orig_data_size"), kept),
        swap_in=rate("pages_read", PAGE_SIZE),
        swap_out=rate("pages_written", PAGE_SIZE),
        disk_in=rate("bd_reads", PAGE_SIZE),
        disk_out=rate("bd_writes", PAGE_SIZE),
        moved=rate("pages_compacted"),
        recompressed=rate("pages_recompressed"),
        freed=rate("notify_free"),
        failed=get("failed_reads") + get("failed_writes"),
        reads=get("reads"),
        writes=get("writes"),
        read_p50=percentile("read_p50_us"),
        read_p99=percentile("read_p99_us"),
        write_p50=percentile("write_p50_us"),
        write_p99=percentile("write_p99_us"),
    )


_SUMS = ("seconds", "failed", "reads", "writes")
_HIGHEST = {"read_p99", "write_p99"}
_BY_REQUESTS = {"read_p50": "reads", "write_p50": "writes"}


def binned(points: Sequence[Point], most: int) -> list[Point]:
    """As many points at most, each of equal pieces of time.

    Means by time, of medians by requests; of the 99th percentiles the highest, of counts the sum.
    """
    if len(points) <= most:
        return list(points)
    first, last = points[0].time, points[-1].time
    bins: dict[int, list[Point]] = {}
    for point in points:
        at = int((point.time - first) * most / (last - first)) if last > first else 0
        bins.setdefault(min(at, most - 1), []).append(point)
    return [_merged(each) for each in bins.values()]


def _merged(points: Sequence[Point]) -> Point:
    values: dict[str, float | None] = {"time": points[-1].time}
    values |= {name: sum(getattr(point, name) for point in points) for name in _SUMS}
    for name in Point.__dataclass_fields__.keys() - values.keys():
        weight = _BY_REQUESTS.get(name, "seconds")
        pairs = [(getattr(point, name), max(1.0, getattr(point, weight))) for point in points]
        values[name] = _highest(pairs) if name in _HIGHEST else _mean(pairs)
    return Point(**values)  # type: ignore[arg-type]


def _mean(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in pairs if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _highest(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    return max((value for value, _ in pairs if value is not None), default=None)
