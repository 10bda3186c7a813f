"""Figures, what they should be, and how they are shown.

A benchmark gives figures by name, one set for each round and each thing that it measured.
What counts are medians, and ratios of medians taken in the same run: the machine's speed
cancels out.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = [
    "Aim",
    "Figures",
    "Results",
    "markdown",
    "median",
    "save",
    "show",
    "show_cases",
    "spread",
]

WIDTH = 132

Figures = dict[str, float]
Results = Mapping[str, Sequence[Figures]]
"""The figures of each round by the name of what was measured."""


@dataclass(frozen=True)
class Aim:
    """What a figure, or its ratio to the one it is compared with, should at least (or most) be."""

    bound: float
    at_most: bool = False
    of_ratio: bool = False

    def verdict(self, figure: float, ratio: float | None) -> str:
        """The aim in words, and whether it was met."""
        words = f"{'<=' if self.at_most else '>='} {self.bound:g}{'x' if self.of_ratio else ''}"
        if self.of_ratio and ratio is None:
            return f"{words}: nothing to compare with"
        value = ratio if self.of_ratio and ratio is not None else figure
        return f"{words}: {'met' if self.met(value) else 'missed'}"

    def met(self, value: float) -> bool:
        """Whether a figure, or a ratio, is good enough."""
        return value <= self.bound if self.at_most else value >= self.bound


def median(rounds: Sequence[Figures], figure: str) -> float | None:
    """The median of one figure over the rounds that have it."""
    values = [run[figure] for run in rounds if figure in run]
    return statistics.median(values) if values else None


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most where they differ from it."""
    if not values:
        return ""
    digits = _digits(max(map(abs, values)))
    middle, low, high = statistics.median(values), min(values), max(values)
    if low == high:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _digits(value: float) -> int:
    if value == int(value):
        return 0
    return 0 if value >= 1000 else 1 if value >= 10 else 2


def show(
    title: str,
    results: Results,
    aims: Mapping[str, Mapping[str, Aim]],
    base: str | None = None,
) -> None:
    """Print a table: a row for each figure, a column for each thing measured.

    `aims` are by thing and by figure. With a `base` among the things there is a column more
    for each other one: the ratio of the medians.
    """
    others = [name for name in results if base in results and name != base]
    table = Table(title=f"{title}: median (least to most)", title_justify="left")
    table.add_column("figure")
    for name in (*results, *(_ratio_name(name, base, others) for name in others), "aim"):
        table.add_column(name, justify="right")
    for figure in _figures(results):
        cells = [spread(_values(rounds, figure)) for rounds in results.values()]
        ratios = {name: _ratio(results, figure, name, base) for name in results}
        cells += ["" if (r := ratios[name]) is None else f"{r:.3f}" for name in others]
        table.add_row(figure, *cells, _verdicts(results, aims, figure, ratios))
    Console(width=WIDTH).print(table)


def show_cases(
    title: str, results: Results, aims: Mapping[str, Mapping[str, Aim]], base: str
) -> None:
    """As `show` for many things with few figures: a row for each, with its ratios to `base`."""
    table = Table(title=f"{title}: median (least to most), ratio", title_justify="left")
    table.add_column("")
    figures = _figures(results)
    for figure in (*figures, "aim"):
        table.add_column(figure, justify="right")
    for name, rounds in results.items():
        cells = []
        for figure in figures:
            ratio = _ratio(results, figure, name, base)
            shown = "" if ratio is None else f", {ratio:.3f}x"
            cells.append(spread(_values(rounds, figure)) + shown)
        mine = {name: aims.get(name, {})}
        found = (
            _verdicts(results, mine, figure, {name: _ratio(results, figure, name, base)})
            for figure in figures
        )
        table.add_row(name, *cells, "\n".join(filter(None, found)))
    Console(width=WIDTH).print(table)


def _figures(results: Results) -> list[str]:
    return list(
        dict.fromkeys(name for rounds in results.values() for run in rounds for name in run)
    )


def _values(rounds: Sequence[Figures], figure: str) -> list[float]:
    return [run[figure] for run in rounds if figure in run]


def _ratio_name(name: str, base: str | None, others: Sequence[str]) -> str:
    return "ratio" if len(others) == 1 else f"{name} / {base}"


def _ratio(results: Results, figure: str, name: str, base: str | None) -> float | None:
    if base is None or base not in results or name == base:
        return None
    ours, theirs = median(results[name], figure), median(results[base], figure)
    return None if ours is None or not theirs else ours / theirs


def _verdicts(
    results: Results,
    aims: Mapping[str, Mapping[str, Aim]],
    figure: str,
    ratios: Mapping[str, float | None],
) -> str:
    found = {}
    for name, by_figure in aims.items():
        value = median(results.get(name, ()), figure)
        if figure in by_figure and value is not None:
            found[name] = by_figure[figure].verdict(value, ratios[name])
    if len(found) == 1:
        return next(iter(found.values()))
    return "\n".join(f"{name} {verdict}" for name, verdict in found.items())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as documents have it, the first column to the left and the others to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(path: Path | None, results: Mapping[str, object]) -> None:
    """Write every figure of every round as JSON, if that was asked for."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")
