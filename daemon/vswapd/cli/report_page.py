"""The page that `vswap report` writes: all in one, without scripts, and nothing from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from vswapd.cli.svg import Chart, Line, draw, swatch
from vswapd.figures import duration, human
from vswapd.records import Point, Record, binned

__all__ = ["page"]

_DRAWN = 400
_IN_A_TABLE = 24

_Value = Callable[[Point], float | None]
_Shown = Callable[[float], str]


def _bytes(value: float) -> str:
    return ("-" if value < 0 else "") + human(int(abs(value)))


def _flow(value: float) -> str:
    return f"{_bytes(value)}/s"


def _pages(value: float) -> str:
    return f"{value:,.0f}/s"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


@dataclass(frozen=True)
class _Picture:
    """One chart, and what there is to know to read it."""

    title: str
    about: str
    lines: Sequence[tuple[str, _Value]]
    shown: _Shown
    base: int = 10
    log: bool = False


_PICTURES = (
    _Picture(
        "Memory",
        "What is swapped out, the memory that it takes, and what is on disk of it.",
        (
            ("swapped out", lambda point: point.data),
            ("memory it takes", lambda point: point.memory),
            ("on disk, compressed", lambda point: point.disk),
        ),
        _bytes,
        base=2,
    ),
    _Picture(
        "Compression ratio",
        "Of the stored pages, without those of one word again and again, to what they are kept in.",
        (("ratio", lambda point: point.ratio),),
        _ratio,
    ),
    _Picture(
        "Swap-in and swap-out",
        "What was read from the device and written to it, in a second.",
        (
            ("swap-in", lambda point: point.swap_in),
            ("swap-out", lambda point: point.swap_out),
        ),
        _flow,
        base=2,
    ),
    _Picture(
        "Latency",
        "From a request's receipt to its reply. The axis is logarithmic; where a line stops there "
        "were no requests.",
        (
            ("reads, median", lambda point: point.read_p50),
            ("reads, 99 %", lambda point: point.read_p99),
            ("writes, median", lambda point: point.write_p50),
            ("writes, 99 %", lambda point: point.write_p99),
        ),
        duration,
        log=True,
    ),
    _Picture(
        "Writeback",
        "What was written to the backing and read from it, in a second.",
        (
            ("to disk", lambda point: point.disk_out),
            ("from disk", lambda point: point.disk_in),
        ),
        _flow,
        base=2,
    ),
    _Picture(
        "Upkeep",
        "Pages in a second: moved by the cleaner, compressed again, freed by the kernel.",
        (
            ("moved", lambda point: point.moved),
            ("compressed again", lambda point: point.recompressed),
            ("freed", lambda point: point.freed),
        ),
        _pages,
    ),
)


def page(record: Record, now: float) -> str:
    """The HTML page of a record that has points; `now` in seconds since 1970."""
    name = escape(record.name)
    points = binned(record.points, _DRAWN)
    rows = binned(record.points, _IN_A_TABLE)
    body = [
        f"<h1>{name}</h1>",
        f"<p>{escape(_period(record, now))}</p>",
        *_tiles(record),
        *(part for each in _PICTURES for part in _figure(each, points, rows)),
        f"<footer>vswap {escape(record.version)}. {escape(_restarts(record))}</footer>",
    ]
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>vswap: {name}</title><style>{_STYLE}</style></head><body><main>"
    )
    return "\n".join([head, *body, "</main></body></html>", ""])


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _period(record: Record, now: float) -> str:
    first = record.points[0].time - record.points[0].seconds
    return (
        f"A vswap device of {_bytes(record.size)}, from {_when(first)} to "
        f"{_when(record.points[-1].time)}. Written at {_when(now)}."
    )


def _restarts(record: Record) -> str:
    times = "once" if record.restarts == 1 else f"{record.restarts} times"
    replaced = f"has been replaced {times}" if record.restarts else "has not been replaced"
    return (
        f"The worker {replaced}; the history begins anew with each worker, this one at "
        f"{_when(record.began)}."
    )


def _tiles(record: Record) -> Iterator[str]:
    """What there is to see at once: as it is now, or of the whole time."""
    last, points = record.points[-1], record.points
    slowest = max((point.read_p99 or 0.0 for point in points), default=0.0)
    limit = f"of {_bytes(record.limit)}" if record.limit else "no limit"
    backing = f"of {_bytes(record.backing)}" if record.backing else "no backing"
    tiles = (
        ("swapped out", _bytes(last.data), f"of {_bytes(record.size)}"),
        ("memory it takes", _bytes(last.memory), limit),
        ("memory saved", _bytes(last.saved), "swapped out, less memory"),
        ("ratio", "-" if last.ratio is None else _ratio(last.ratio), "of stored pages"),
        ("on disk", _bytes(last.disk), backing),
        ("slowest reads", duration(slowest) if slowest else "-", "highest 99th percentile"),
        ("failed", f"{sum(point.failed for point in points):,.0f}", "requests, of the whole time"),
        ("restarts", f"{record.restarts}", "of the worker"),
    )
    yield "<dl>"
    for name, value, about in tiles:
        yield f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(about)}</small></dd></div>"
    yield "</dl>"


def _figure(picture: _Picture, points: Sequence[Point], rows: Sequence[Point]) -> Iterator[str]:
    lines = [Line(name, [value(point) for point in points]) for name, value in picture.lines]
    times = [point.time for point in points]
    yield f"<figure><figcaption><h2>{picture.title}</h2><p>{picture.about}</p></figcaption>"
    yield draw(Chart(picture.title, times, lines, picture.shown, picture.base, picture.log))
    legend = (f"<span>{swatch(at)}{line.name}</span>" for at, line in enumerate(lines))
    yield f'<p class="legend">{"".join(legend)}</p>'
    yield from _table(picture, rows)
    yield "</figure>"


def _table(picture: _Picture, rows: Sequence[Point]) -> Iterator[str]:
    yield "<details><summary>As a table</summary><table>"
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("until", *dict(picture.lines)))
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for point in rows:
        values = (value(point) for _, value in picture.lines)
        cells = "".join(
            f"<td>{'-' if value is None else escape(picture.shown(value))}</td>" for value in values
        )
        yield f'<tr><th scope="row">{_when(point.time)}</th>{cells}</tr>'
    yield "</tbody></table></details>"


_STYLE = """
:root { --paper: #f6f7f9; --card: #fff; --ink: #1b2330; --dim: #5b6675; --grid: #e1e5ea;
  --c0: #1d5fd0; --c1: #c2570c; --c2: #0b7a5b; --c3: #a3246f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --card: #1a2029; --ink: #e6eaf0; --dim: #9aa6b5; --grid: #2c3541;
    --c0: #6ea8ff; --c1: #ff9f5a; --c2: #4cd3a5; --c3: #f284c1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px; }
h1 { margin: 0; font-size: 28px; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 17px; }
p { margin: 2px 0 12px; color: var(--dim); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px;
  margin: 16px 0; }
dl div, figure { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; }
dl div { padding: 10px 14px; }
dt, small, footer { color: var(--dim); font-size: 13px; }
dd { margin: 0; font-size: 24px; font-variant-numeric: tabular-nums; }
small { display: block; }
figure { margin: 0 0 16px; padding: 14px 16px; }
svg { display: block; width: 100%; height: auto; }
.swatch { display: inline-block; width: 28px; height: 8px; margin-right: 6px; }
.legend { margin: 6px 0 8px; }
.legend span { display: inline-flex; align-items: center; margin-right: 18px; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: butt; }
.line-0 { stroke: var(--c0); } .line-1 { stroke: var(--c1); }
.line-2 { stroke: var(--c2); } .line-3 { stroke: var(--c3); }
.grid { stroke: var(--grid); }
.axis { fill: var(--dim); font-size: 12px; }
details { overflow-x: auto; }
summary { cursor: pointer; color: var(--dim); font-size: 13px; }
table { border-collapse: collapse; margin-top: 8px; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: nowrap; font-weight: normal; }
thead th { color: var(--dim); }
th:first-child { text-align: left; }
@media print { details { display: none; } }
"""
