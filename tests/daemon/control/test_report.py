"""The report: every component's statistics, flat, by names that no two of them share."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from vswapd.control import Report
from vswapd.control.report import flatten


def parts(report: Report) -> list[object]:
    return [getattr(report, field.name) for field in fields(report)]


def names(report: Report) -> list[str]:
    return [field.name for part in parts(report) for field in fields(part)]  # type: ignore[arg-type]


def test_no_two_parts_share_a_name(report: Report) -> None:
    assert len(names(report)) == len(set(names(report)))


def test_every_field_of_every_part_is_there(report: Report) -> None:
    flat = flatten(report)
    for part in parts(report):
        for field in fields(part):  # type: ignore[arg-type]
            assert flat[field.name] == getattr(part, field.name)
    assert set(flat) == set(names(report))


def test_values_are_plain(report: Report) -> None:
    """Numpy's numbers, say, would not get into JSON."""
    assert {type(value) for value in flatten(report).values()} <= {int, float, str, bool}


def test_reports_and_their_parts_are_frozen(report: Report) -> None:
    for value in (report, *parts(report)):
        assert is_dataclass(value)
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, None)
