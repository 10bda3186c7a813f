"""A table between markers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import published
from bench.published import BEGIN, END, MarkerError, spliced
from bench.record import Record
from bench.work import PLAN

SETTINGS = {"rounds": "3", **{name: str(value) for name, value in asdict(PLAN).items()}}
MACHINE = dict.fromkeys(("processor", "processors", "memory", "kernel", "Python"), "some")


def test_what_stands_between_the_markers_is_replaced() -> None:
    once = spliced(f"head\n{BEGIN}\nold\n{END}\ntail\n", "new")
    assert once == f"head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"
    assert spliced(once, "new") == once


@pytest.mark.parametrize(
    "text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"]
)
def test_without_both_markers_once_nothing_is_replaced(text: str) -> None:
    with pytest.raises(MarkerError):
        spliced(text, "new")


def test_the_document_is_written_or_the_table_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, readme = tmp_path / "compare.json", tmp_path / "README.md"
    Record("2026-01-01", MACHINE, SETTINGS).save(run)
    readme.write_text(f"{BEGIN}{END}")
    monkeypatch.setattr(sys, "argv", ["published", str(run)])
    assert published.main() == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["published", str(run), "--readme", str(readme)])
    assert published.main() == 0
    assert readme.read_text() == f"{BEGIN}\n\n{printed}\n{END}"
    readme.write_text("no markers")
    assert published.main() == 2
    assert readme.read_text() == "no markers"
