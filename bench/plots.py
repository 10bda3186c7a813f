"""Plots of a run of the comparison: one for each group of figures, a PNG each.

Horizontal bars, a row for each peer: the median of the rounds, with whiskers from the least to
the most. vswap is blue and the others are grey, from a palette that the colour-blind can tell
apart (Okabe and Ito), and what is part of a bar is hatched as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.record import Record
from bench.report import spread
from bench.shown import GROUPS, OURS, Group, Shown

__all__ = ["plot_all"]

OURS_COLOUR, RELATED_COLOUR, OTHER_COLOUR = "#0072B2", "#56B4E9", "#A6A6A6"
COLUMNS = 2
PANEL_WIDTH, ROW_HEIGHT, PANEL_EXTRA = 5.6, 0.32, 1.1  # inches
DPI = 130
ROOM_FOR_LABELS = 1.28  # of the longest bar


def plot_all(record: Record, out: Path) -> list[str]:
    """Write a plot for each group that has figures; their file names."""
    made = []
    for group in GROUPS:
        panels = [shown for shown in group.shown if _peers(record, [shown])]
        if panels:
            name = f"{group.name}.png"
            _figure(record, group, panels).savefig(out / name, dpi=DPI)
            made.append(name)
    return made


def _peers(record: Record, panels: Sequence[Shown]) -> list[str]:
    """Those that have any of these figures."""
    return [
        peer
        for peer in record.results
        if any(record.values(peer, shown.figure) for shown in panels)
    ]


def _figure(record: Record, group: Group, panels: Sequence[Shown]) -> Figure:
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    heights = [len(_peers(record, panels))] * rows
    size = (PANEL_WIDTH * columns + 1, sum(ROW_HEIGHT * n + PANEL_EXTRA for n in heights) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, shown in zip(axes.flat, panels, strict=False):
        _draw(axis, record, shown, _peers(record, panels))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    rounds = f"median (rounds: {record.settings['rounds']}), whiskers from least to most"
    figure.suptitle(f"{group.title}: {rounds}", fontsize=11)
    return figure


def _draw(axis: Axes, record: Record, shown: Shown, peers: Sequence[str]) -> None:
    """One panel. All panels of a plot have the same rows, so that an empty one says something."""
    most = 0.0
    for row, peer in enumerate(peers):
        values = record.values(peer, shown.figure)
        if values:
            _bar(axis, row, peer, values)
            most = max(most, *values)
        if values and shown.part:
            _part(axis, row, record.values(peer, shown.part))
    axis.set_yticks(range(len(peers)), peers)
    for label in axis.get_yticklabels():
        if label.get_text() == OURS:
            label.set_fontweight("bold")
    axis.set_ylim(len(peers) - 0.4, -0.6)
    axis.set_xlim(0, most * ROOM_FOR_LABELS or 1)
    axis.set_xlabel(shown.unit)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_title(_title(shown), fontsize=10, loc="left")


def _title(shown: Shown) -> str:
    """What it is, and what to look for."""
    better = "more is better" if shown.more_is_better else "less is better"
    part = f"; hatched: {shown.part_heading}" if shown.part else ""
    return f"{shown.heading} ({better}{part})"


def _bar(axis: Axes, row: int, peer: str, values: Sequence[float]) -> None:
    middle, low, high = statistics.median(values), min(values), max(values)
    axis.barh(row, middle, height=0.7, color=_colour(peer))
    if low < high:
        whiskers = [[middle - low], [high - middle]]
        axis.errorbar(middle, row, xerr=whiskers, fmt="none", ecolor="black", capsize=3, lw=1)
    axis.annotate(
        spread([middle]),
        (high, row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        fontweight="bold" if peer == OURS else "normal",
    )


def _part(axis: Axes, row: int, values: Sequence[float]) -> None:
    if values and (middle := statistics.median(values)) > 0:
        axis.barh(
            row,
            middle,
            height=0.7,
            facecolor="none",  # only the hatching is drawn
            edgecolor="black",
            hatch="////",
            linewidth=0.6,
        )


def _colour(peer: str) -> str:
    if peer == OURS:
        return OURS_COLOUR
    return RELATED_COLOUR if peer.startswith(OURS) else OTHER_COLOUR
