"""Lines over time as SVG: axes, a grid, one path for each line, and what they are called.

Colours are the page's, by classes: `line-0` and so on, `grid`, `axis`. Lines also differ in how
they are dashed, for who cannot tell colours apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["DASHES", "Chart", "Line", "draw", "swatch"]

_WIDTH, _HEIGHT = 880, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 14, 12, 28
_TICKS = 4
_TIME_TICKS = 6
_FAR = 3  # times as long as usual: a worker that is followed by another costs one sample
DASHES = ("", "7 4", "2 3", "10 3 2 3")


@dataclass(frozen=True)
class Line:
    """A line's name, and its value at each of the chart's times; None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """What is drawn. `times` in seconds since 1970; `shown` makes text of a value.

    `base` is of which number's powers the axis has round multiples: 2 for bytes, 10 for others.
    A `log` axis has powers of 10. `seconds` is how long each time has been looked at, if that is
    known: where far more has passed since the time before, lines stop. `marks` are times at which
    something has happened.
    """

    title: str
    times: Sequence[float]
    lines: Sequence[Line]
    shown: Callable[[float], str]
    base: int = 10
    log: bool = False
    seconds: Sequence[float] = ()
    marks: Sequence[float] = ()


def draw(chart: Chart) -> str:
    """An `<svg>`, with its title for who does not see it."""
    axis = _log_axis(chart) if chart.log else _axis(chart)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        f"<title>{escape(chart.title)}</title>",
        *_grid(chart, axis),
        *_time_axis(chart),
        *_marks(chart),
        *(_path(chart, axis, at, line) for at, line in enumerate(chart.lines)),
        "</svg>",
    ]
    return "\n".join(parts)


def swatch(at: int) -> str:
    """A short piece of the line with this number, for a legend."""
    return (
        '<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">'
        f'<path class="line line-{at}" d="M0 4H28"{_dash(at)}/></svg>'
    )


def _dash(at: int) -> str:
    dashes = DASHES[at % len(DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


# --- Up and down ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """Where a value is, from 0 at the bottom to 1 at the top, and which have a line of the grid."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def _values(chart: Chart) -> list[float]:
    return [value for line in chart.lines for value in line.values if value is not None]


def _axis(chart: Chart) -> _Axis:
    """From 0 to a round number that is not below any value."""
    most = max([0.0, *_values(chart)])
    step = _round_up(most / _TICKS, chart.base) if most > 0 else 1.0
    count = max(1, math.ceil(most / step - 1e-9))
    top = step * count
    return _Axis(lambda value: max(0.0, value) / top, [step * at for at in range(count + 1)])


def _round_up(value: float, base: int) -> float:
    """The next round number: a power of 2, or 1, 2 or 5 times a power of 10."""
    if base == 2:
        return float(2.0 ** math.ceil(math.log2(value) - 1e-9))
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def _log_axis(chart: Chart) -> _Axis:
    """Over whole powers of 10."""
    positive = [value for value in _values(chart) if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(low + 1, math.ceil(math.log10(max(positive))))

    def place(value: float) -> float:
        return (math.log10(max(value, 10.0**low)) - low) / (high - low)

    return _Axis(place, [10.0**power for power in range(low, high + 1)])


def _grid(chart: Chart, axis: _Axis) -> list[str]:
    found = []
    for tick in axis.ticks:
        y = _y(axis, tick)
        found += [
            f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>',
            f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(chart.shown(tick))}</text>",
        ]
    return found


def _y(axis: _Axis, value: float) -> float:
    return round(_HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM), 1)


# --- From left to right -----------------------------------------------------------------


def _x(chart: Chart, at: float) -> float:
    first, last = chart.times[0], chart.times[-1]
    share = (at - first) / (last - first) if last > first else 0.5
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _time_axis(chart: Chart) -> list[str]:
    first, last = chart.times[0], chart.times[-1]
    form = "%H:%M:%S" if last - first < 600 else "%H:%M" if last - first < 86400 else "%d %b %H:%M"
    count = _TIME_TICKS if last > first else 1
    times = [first + (last - first) * at / max(1, count - 1) for at in range(count)]
    anchors = ["start" if count > 1 else "middle", *["middle"] * (count - 2), "end"]
    return [
        f'<text class="axis" x="{_x(chart, at)}" y="{_HEIGHT - 8}" text-anchor="{anchor}">'
        f"{time.strftime(form, time.localtime(at))}</text>"
        for at, anchor in zip(times, anchors, strict=False)
    ]


def _marks(chart: Chart) -> Iterator[str]:
    for at in chart.marks:
        if chart.times[0] <= at <= chart.times[-1]:
            yield f'<path class="mark" d="M{_x(chart, at)} {_TOP}V{_HEIGHT - _BOTTOM}"/>'


def _path(chart: Chart, axis: _Axis, at: int, line: Line) -> str:
    """Pieces between which there is no value; a single point is a dot."""
    drawn = []
    for piece in _pieces(chart, line):
        places = [f"{_x(chart, when)} {_y(axis, value)}" for when, value in piece]
        drawn.append("M" + "L".join(places) + ("h.1" if len(places) == 1 else ""))
    return (
        f'<path class="line line-{at}" d="{"".join(drawn)}"{_dash(at)}>'
        f"<title>{escape(line.name)}</title></path>"
    )


def _pieces(chart: Chart, line: Line) -> Iterator[list[tuple[float, float]]]:
    """Times and values, as long as one follows the other."""
    piece: list[tuple[float, float]] = []
    for at, (when, value) in enumerate(zip(chart.times, line.values, strict=True)):
        if piece and (value is None or _is_gap(chart, at)):
            yield piece
            piece = []
        if value is not None:
            piece.append((when, value))
    if piece:
        yield piece


def _is_gap(chart: Chart, at: int) -> bool:
    """Whether nobody looked for a while: the machine slept, or nothing served."""
    passed = chart.times[at] - chart.times[at - 1]
    return bool(chart.seconds) and passed > _FAR * chart.seconds[at]
