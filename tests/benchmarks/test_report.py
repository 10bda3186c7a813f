"""Figures: medians, verdicts and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import Aim, markdown, median, save, show, show_cases, spread

ROUNDS = [{"speed": 1.0, "size": 10.0}, {"speed": 3.0}, {"speed": 2.0}]


def test_a_median_is_of_the_rounds_that_have_the_figure() -> None:
    assert median(ROUNDS, "speed") == 2.0
    assert median(ROUNDS, "size") == 10.0
    assert median(ROUNDS, "other") is None


@pytest.mark.parametrize(
    ("aim", "figure", "ratio", "verdict"),
    [
        (Aim(2.0), 2.0, None, ">= 2: met"),
        (Aim(2.0), 1.9, 5.0, ">= 2: missed"),
        (Aim(2.0, at_most=True), 2.1, None, "<= 2: missed"),
        (Aim(1.3, at_most=True, of_ratio=True), 50.0, 1.2, "<= 1.3x: met"),
        (Aim(1.3, at_most=True, of_ratio=True), 1.0, 1.4, "<= 1.3x: missed"),
        (Aim(1.3, of_ratio=True), 50.0, None, ">= 1.3x: nothing to compare with"),
    ],
)
def test_a_verdict_says_the_aim_and_whether_it_was_met(
    aim: Aim, figure: float, ratio: float | None, verdict: str
) -> None:
    assert aim.verdict(figure, ratio) == verdict


def test_a_spread_has_the_extremes_only_if_there_are_any() -> None:
    assert spread([]) == ""
    assert spread([1.5]) == "1.50"
    assert spread([12.25, 12.25]) == "12.2"
    assert spread([1000.0, 3000.0, 2000.0]) == "2,000 (1,000 to 3,000)"


def test_tables_have_ratios_and_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    results = {"ours": ROUNDS, "theirs": [{"speed": 4.0}]}
    aims = {"ours": {"speed": Aim(0.4, of_ratio=True)}}
    show("a title", results, aims, base="theirs")
    shown = capsys.readouterr().out
    assert "0.500" in shown
    assert ">= 0.4x: met" in shown
    show_cases("a title", results, aims, base="theirs")
    shown = capsys.readouterr().out
    assert "0.500x" in shown
    assert ">= 0.4x: met" in shown


def test_a_table_without_its_base_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    aims = {"ours": {"speed": Aim(0.4, of_ratio=True)}}
    show("a title", {"ours": ROUNDS}, aims, base="theirs")
    assert "nothing to compare with" in capsys.readouterr().out


def test_markdown_aligns_numbers_to_the_right() -> None:
    made = markdown(["codec", "ratio"], [["lz4", "2.5"]])
    assert made.splitlines() == ["| codec | ratio |", "| --- | ---: |", "| lz4 | 2.5 |"]


def test_figures_are_saved_where_that_was_asked_for(tmp_path: Path) -> None:
    save(None, {"ours": ROUNDS})
    save(tmp_path / "figures.json", {"ours": ROUNDS})
    assert json.loads((tmp_path / "figures.json").read_text()) == {"ours": ROUNDS}
