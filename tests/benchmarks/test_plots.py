"""Plots are made of what there is."""

from __future__ import annotations

from pathlib import Path

from bench.plots import plot_all
from bench.record import Record
from bench.shown import GROUPS, SHOWN

PNG = b"\x89PNG\r\n"


def a_record() -> Record:
    return Record("2026-01-01", {}, {"rounds": "2"})


def test_a_plot_for_each_group_that_has_figures(tmp_path: Path) -> None:
    record = a_record()
    for number in (1, 2):
        record.add("vswap", number, {figure: float(number) for figure in SHOWN})
        record.add("zram lz4", number, {"swapoff, s": 0.0})
    made = plot_all(record, tmp_path)
    assert made == [f"{group.name}.png" for group in GROUPS]
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in made)


def test_no_plot_of_nothing(tmp_path: Path) -> None:
    record = a_record()
    record.add("vswap", 1, {"swapoff, s": 1.0})
    assert plot_all(record, tmp_path) == ["swapoff.png"]
    assert plot_all(a_record(), tmp_path) == []
