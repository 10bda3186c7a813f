"""What becomes of a history: points in order, of one line of time."""

from __future__ import annotations

import json

import pytest
from daemon.records_support import MIB, NOW, history, row

from vswap.errors import UserError
from vswapd.records import Point, Takeover, binned, parse_timeline


def points(fine: list[list[float]], coarse: list[list[float]] | None = None) -> list[Point]:
    return list(parse_timeline(history(fine, coarse), "swap0").points)


def test_rates_are_in_a_second_and_pages_are_bytes() -> None:
    [point] = points([row(NOW, 10.0, pages_read=2560, bd_writes=256, pages_compacted=50)])
    assert point.swap_in == 1 * MIB
    assert point.disk_out == MIB / 10
    assert point.moved == 5


def test_sizes_and_the_ratio() -> None:
    [point] = points(
        [
            row(
                NOW,
                orig_data_size=90 * MIB,
                compr_data_size=20 * MIB,
                backing_data_size=10 * MIB,
                same_pages=2560,
                mem_used_total=25 * MIB,
            )
        ]
    )
    assert (point.data, point.memory, point.disk) == (100 * MIB, 25 * MIB, 10 * MIB)
    assert (point.ratio, point.saved) == (3.0, 75 * MIB)


def test_without_requests_there_are_no_percentiles_and_without_pages_no_ratio() -> None:
    [point] = points([row(NOW)])
    assert (point.read_p50, point.write_p99, point.ratio) == (None, None, None)


def test_of_the_coarse_series_only_what_is_older() -> None:
    fine = [row(NOW - 20), row(NOW - 10), row(NOW)]
    coarse = [row(NOW - 600, 300.0), row(NOW - 300, 300.0), row(NOW - 5, 300.0)]
    assert [point.time for point in points(fine, coarse)] == [
        NOW - 600,
        NOW - 300,
        NOW - 20,
        NOW - 10,
        NOW,
    ]


def test_points_are_in_order_when_the_clock_was_set() -> None:
    assert [point.time for point in points([row(NOW), row(NOW - 100)])] == [NOW - 100, NOW]


def test_since() -> None:
    said = [{"time": NOW - at, "worker_restarts": 9 - at, "version": "0.8"} for at in (11, 5)]
    text = history([row(NOW - 20), row(NOW - 10), row(NOW)], takeovers=said)
    timeline = parse_timeline(text, "swap0")
    assert len(timeline.takeovers) == 2
    later = timeline.since(NOW - 10)
    assert [point.time for point in later.points] == [NOW - 10, NOW]
    assert later.takeovers == [Takeover(NOW - 5, 4, "0.8")]


@pytest.mark.parametrize("said", [None, 7, {}, [7], [{}], [{"time": -5}], [{"time": 1 << 60}]])
def test_takeovers_that_make_no_sense_are_left_out(said: object) -> None:
    assert list(parse_timeline(history([], takeovers=said), "swap0").takeovers) == []


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"columns": 7}', b"\xff", b"[" * 100_000])
def test_what_is_no_history_is_a_user_s_error(text: bytes) -> None:
    with pytest.raises(UserError, match="the daemon of swap0 answers, but not with a history"):
        parse_timeline(text, "swap0")


@pytest.mark.parametrize(
    "rows",
    [
        7,
        None,
        [7],
        [[1, 2]],
        [row(NOW, 0.0)],
        [row(NOW, -10.0)],
        [row(-5)],
        [row(1 << 60)],
        [row(float("nan"))],
        [[None] * len(row(NOW))],
        [["7"] * len(row(NOW))],
    ],
)
def test_rows_that_make_no_sense_are_left_out(rows: object) -> None:
    said = json.loads(history([]))
    said["series"][0]["rows"] = rows
    assert list(parse_timeline(json.dumps(said).encode(), "swap0").points) == []


@pytest.mark.parametrize("series", [None, 7, [7], {}, [{}]])
def test_so_are_series(series: object) -> None:
    assert list(parse_timeline(history([], series=series), "swap0").points) == []


def test_a_column_that_is_not_known_here_does_no_harm() -> None:
    said = json.loads(history([row(NOW)]))
    said["columns"].append("new")
    said["series"][0]["rows"][0].append(5)
    assert len(parse_timeline(json.dumps(said).encode(), "swap0").points) == 1


# --- Fewer points ----------------------------------------------------------------------


def test_few_points_stay_as_they_are() -> None:
    few = points([row(NOW - 10), row(NOW)])
    assert binned(few, 2) == few


def test_bins_have_means_by_time_or_requests_highest_percentiles_and_sums_of_counts() -> None:
    fine = [
        row(
            NOW + at,
            1.0,
            pages_read=256 * (1 + at % 2),
            read_p99_us=float(at),
            write_p50_us=float(at % 2),
            writes=5,
            read_p50_us=10.0 if at % 10 else 1000.0,
            reads=1 if at % 10 else 991,
            failed_reads=1,
        )
        for at in range(1000)
    ]
    found = binned(points(fine), 10)
    assert len(found) == 10
    assert {point.swap_in for point in found} == {1.5 * MIB}
    assert {point.write_p50 for point in found} == {1.0}  # of those that had requests
    medians = [point.read_p50 for point in found]
    assert medians == pytest.approx([991.09] * 10)  # as where nearly all requests were
    assert found[-1].read_p99 == 999
    assert sum(point.writes for point in found) == 5000
    assert sum(point.failed for point in found) == 1000
    assert sum(point.seconds for point in found) == 1000
    assert found[-1].time == NOW + 999


def test_points_of_one_time_are_one_bin() -> None:
    assert len(binned(points([row(NOW)] * 30), 10)) == 1
