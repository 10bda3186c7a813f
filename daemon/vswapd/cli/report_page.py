"""The page that `vswap report` writes: all in one, without scripts, and nothing from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from vswapd.cli.report_style import STYLE
from vswapd.cli.svg import Chart, Line, draw, swatch
from vswapd.figures import duration, human
from vswapd.records import Point, Timeline, binned

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
        "were no requests. Where a point stands for several samples, its median is the mean of "
        "theirs, weighted by requests, and its 99 % the highest.",
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
        "Pages in a second: moved by the cleaner, recompressed, freed by the kernel.",
        (
            ("moved", lambda point: point.moved),
            ("recompressed", lambda point: point.recompressed),
            ("freed", lambda point: point.freed),
        ),
        _pages,
    ),
)


def page(timeline: Timeline, now: float) -> str:
    """The HTML page of a timeline that has points; `now` in seconds since 1970."""
    name = escape(timeline.name)
    points = binned(timeline.points, _DRAWN)
    rows = binned(timeline.points, _IN_A_TABLE)
    marks = [each.time for each in timeline.takeovers]
    body = [
        f"<h1>{name}</h1>",
        f"<p>{escape(_period(timeline, now))}</p>",
        *_tiles(timeline),
        *(part for each in _PICTURES for part in _figure(each, points, rows, marks)),
        *_takeovers(timeline),
        f"<footer>vswap {escape(timeline.version)}. {escape(_restarts(timeline))}</footer>",
    ]
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>vswap: {name}</title><style>{STYLE}</style></head><body><main>"
    )
    return "\n".join([head, *body, "</main></body></html>", ""])


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _period(timeline: Timeline, now: float) -> str:
    first = timeline.points[0].time - timeline.points[0].seconds
    return (
        f"A vswap device of {_bytes(timeline.size)}, from {_when(first)} to "
        f"{_when(timeline.points[-1].time)}. Written at {_when(now)}."
    )


def _restarts(timeline: Timeline) -> str:
    times = "once" if timeline.restarts == 1 else f"{timeline.restarts} times"
    replaced = f"has been replaced {times}" if timeline.restarts else "has not been replaced"
    return f"The worker {replaced}; the history began at {_when(timeline.began)}."


def _takeovers(timeline: Timeline) -> Iterator[str]:
    """The upright lines in the pictures."""
    if not timeline.takeovers:
        return
    about = "A worker took the place of another. In the pictures these are upright lines."
    yield f"<section><h2>Takeovers</h2><p>{about}</p><ol>"
    for each in timeline.takeovers:
        about = f"number {each.restarts}, by version {each.version}"
        yield f"<li>{_when(each.time)}<small>{escape(about)}</small></li>"
    yield "</ol></section>"


def _tiles(timeline: Timeline) -> Iterator[str]:
    """What there is to see at once: as it is now, or of the whole time."""
    last, points = timeline.points[-1], timeline.points
    slowest = max((point.read_p99 or 0.0 for point in points), default=0.0)
    limit = f"of {_bytes(timeline.limit)}" if timeline.limit else "no limit"
    backing = f"of {_bytes(timeline.backing)}" if timeline.backing else "no backing"
    tiles = (
        ("swapped out", _bytes(last.data), f"of {_bytes(timeline.size)}"),
        ("memory it takes", _bytes(last.memory), limit),
        ("memory saved", _bytes(last.saved), "swapped out, less memory"),
        ("ratio", "-" if last.ratio is None else _ratio(last.ratio), "of stored pages"),
        ("on disk", _bytes(last.disk), backing),
        ("slowest reads", duration(slowest) if slowest else "-", "highest 99th percentile"),
        ("failed", f"{sum(point.failed for point in points):,.0f}", "requests, of the whole time"),
        ("restarts", f"{timeline.restarts}", "of the worker"),
    )
    yield "<dl>"
    for name, value, about in tiles:
        yield f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(about)}</small></dd></div>"
    yield "</dl>"


def _figure(
    picture: _Picture, points: Sequence[Point], rows: Sequence[Point], marks: Sequence[float]
) -> Iterator[str]:
    lines = [Line(name, [value(point) for point in points]) for name, value in picture.lines]
    times, seconds = [point.time for point in points], [point.seconds for point in points]
    chart = Chart(
        picture.title, times, lines, picture.shown, picture.base, picture.log, seconds, marks
    )
    yield f"<figure><figcaption><h2>{picture.title}</h2><p>{picture.about}</p></figcaption>"
    yield draw(chart)
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
