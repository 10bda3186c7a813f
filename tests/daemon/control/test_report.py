"""The report: every component's statistics, flat, by names that no two of them share."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest

from vswapd.channel import Latencies
from vswapd.control import Report
from vswapd.control.report import flatten
from vswapd.histogram import Histogram

FIGURES = ("count", "p50_us", "p90_us", "p99_us", "max_us")


def parts(report: Report) -> list[object]:
    return [getattr(report, field.name) for field in fields(report)]


def names(report: Report) -> list[str]:
    return [field.name for part in parts(report) for field in fields(part)]  # type: ignore[arg-type]


def test_no_two_parts_share_a_name(report: Report) -> None:
    assert len(names(report)) == len(set(names(report)))


def test_every_field_of_every_part_is_there(report: Report) -> None:
    flat = flatten(report)
    expected = set[str]()
    for part in parts(report):
        for field in fields(part):  # type: ignore[arg-type]
            value = getattr(part, field.name)
            if isinstance(value, Histogram):
                assert flat[f"{field.name}_count"] == value.count
                expected |= {f"{field.name}_{figure}" for figure in (*FIGURES, "buckets")}
            else:
                assert flat[field.name] == value
                expected.add(field.name)
    assert set(flat) == expected


def test_a_histogram_is_figures_in_microseconds(report: Report) -> None:
    """Ten in eleven took 16 to 32 us, the others up to 65, and one a second (conftest.py)."""
    flat = flatten(report)
    for kind in ("read", "write", "discard"):
        assert isinstance(flat[f"{kind}_p50_us"], float)
        assert 16.384 < flat[f"{kind}_p50_us"] < 32.768 < flat[f"{kind}_p99_us"] < 65.536  # type: ignore[operator]
        assert flat[f"{kind}_max_us"] == 1_073_741.8


def test_the_buckets_are_there_up_to_the_last_in_use(report: Report) -> None:
    last = report.latency.discard.counts
    said = flatten(report)["discard_buckets"]
    assert said == f"0,0,0,0,0,{last[5]},{last[6]},{'0,' * 13}1"


def test_figures_of_nothing_are_0(report: Report) -> None:
    none = replace(report, latency=Latencies(Histogram(), Histogram(), Histogram()))
    flat = flatten(none)
    kinds = ("read", "write", "discard")
    assert {flat[f"{kind}_{figure}"] for kind in kinds for figure in FIGURES} == {0}
    assert {flat[f"{kind}_buckets"] for kind in kinds} == {""}


def test_values_are_plain(report: Report) -> None:
    """Numpy's numbers, say, would not get into JSON."""
    assert {type(value) for value in flatten(report).values()} <= {int, float, str, bool}


def test_reports_and_their_parts_are_frozen(report: Report) -> None:
    for value in (report, *parts(report)):
        assert is_dataclass(value)
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, None)
