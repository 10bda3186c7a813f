"""The record of a run, on its way to a file and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.record import Failure, Record, RecordError, load


def a_record() -> Record:
    record = Record("2026-01-01", {"kernel": "6"}, {"rounds": "2"}, {"zram": "there is none"})
    record.add("vswap", 2, {"speed": 2.0})
    record.add("vswap", 1, {"speed": 1.0})
    record.add("vswap", 2, {"size": 5.0})
    record.failures.append(Failure("vswap", "hog", 1, "killed"))
    return record


def test_figures_of_a_round_come_together_whatever_their_order() -> None:
    record = a_record()
    assert record.results == {"vswap": [{"speed": 1.0}, {"speed": 2.0, "size": 5.0}]}
    assert record.values("vswap", "speed") == [1.0, 2.0]
    assert record.values("vswap", "size") == [5.0]
    assert record.values("zram", "speed") == []


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    a_record().save(tmp_path / "run.json")
    assert load(tmp_path / "run.json") == a_record()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"failures": [], "speed": 1}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordError, match="not what the comparison writes"):
        load(tmp_path / "run.json")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        load(tmp_path / "none.json")
