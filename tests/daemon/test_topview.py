"""What `vswap top` shows, rendered as a terminal of 80 columns and 24 lines would have it."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console, Group

from vswapd.cli.topview import Frame, lines
from vswapd.samples import Look, Sample

MIB = 1 << 20
STATS: dict[str, object] = {
    "size": 1024 * MIB,
    "codec": "zstd-fast",
    "worker_pid": 1234,
    "worker_restarts": 2,
    "stored_pages": 131072,
    "orig_data_size": 768 * MIB,
    "compr_data_size": 200 * MIB,
    "same_pages": 26214,
    "zero_pages": 26214 - 256,
    "backing_size": 2048 * MIB,
    "backing_pages": 65536,
    "backing_data_size": 100 * MIB,
    "mem_used_total": 256 * MIB,
    "mem_limit": 512 * MIB,
    "pages_read": 1000,
    "pages_written": 1000,
    "pages_compacted": 0,
    "pages_recompressed": 0,
    "bd_reads": 0,
    "bd_writes": 0,
    "notify_free": 0,
    "failed_reads": 0,
    "failed_writes": 3,
    "read_count": 10,
    "read_p50_us": 12.34,
    "read_p99_us": 1234.0,
    "read_buckets": "0,1,0,0,0,0,9",
    "write_count": 0,
    "write_buckets": "",
}
WIDTH, HEIGHT = 80, 24


def sample(name: str = "swap0", **changed: object) -> Sample:
    """One whose counters have grown by these, within a second."""
    now = {key: STATS[key] + value if key in _COUNTERS else value for key, value in changed.items()}  # type: ignore[operator]
    before = Sample(name, f"/run/vswap/{name}", 5.0, STATS)
    return Sample(name, f"/run/vswap/{name}", 6.0, {**STATS, **now}, before=before)


_COUNTERS = {
    "pages_read",
    "pages_written",
    "pages_compacted",
    "pages_recompressed",
    "bd_reads",
    "bd_writes",
    "notify_free",
}
SILENT = Sample("swap1", "/run/vswap/swap1", 6.0, error="the daemon of swap1 does not answer")


def shown(*samples: Sample, width: int = WIDTH, height: int = HEIGHT, **more: bool) -> list[str]:
    """As on a terminal."""
    return rendered(Look(samples), Frame(width, height, **more))


def rendered(look: Look, frame: Frame) -> list[str]:
    file = io.StringIO()
    console = Console(width=frame.width, height=frame.height, file=file, color_system=None)
    console.print(Group(*lines(look, frame, "every 1 s")), end="")
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_device_at_80_columns() -> None:
    found = shown(
        sample(
            pages_read=12345,
            pages_written=256,
            pages_compacted=77,
            pages_recompressed=88,
            bd_writes=512,
            bd_reads=1,
            notify_free=99,
            read_buckets="0,1,0,0,0,50,9",
        ),
        plain=True,
    )
    assert found == [
        "vswap top                                                              every 1 s",
        "",
        "swap0  1.0G  zstd-fast  /run/vswap/swap0                 worker 1234, 2 restarts",
        " in memory    ############.............   512M   50 % in 200M, ratio 2.56",
        " same pages   ##.......................   102M   10 % 1.0M of them fill pages",
        " on disk      ######...................   256M   25 % in 100M of 2.0G",
        " total        ############.............   256M   50 % of the limit, 512M",
        " swap-in       12,345 pages/s    48M/s  swap-out         256 pages/s   1.0M/s",
        " reads        p50 24.6us p99 32.6us     writes                     -",
        " cleaner           77 pages/s moved     to disk          512 pages/s   2.0M/s",
        " recompressed      88 pages/s           from disk          1 pages/s   4.0K/s",
        " freed             99 pages/s           failed       0 reads, 3 writes",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wrapped_and_wide_terminals_are_used(width: int) -> None:
    found = shown(sample(), SILENT, width=width)
    assert len(found) == 1 + 11 + 3
    assert max(map(len, found)) == width
    [bar] = [line for line in found if line.startswith(" in memory")]
    assert bar.count("\u2588") + bar.count("\u2591") == width - 55


def test_it_says_when_the_worker_took_over() -> None:
    at = 1_800_000_000
    when = time.strftime("%d %b %H:%M", time.localtime(at))
    assert shown(sample(worker_began=at))[2].endswith(f"worker 1234, 2 restarts, last {when}")
    assert shown(sample(worker_began=at, worker_restarts=0))[2].endswith("worker 1234, 0 restarts")
    assert shown(sample(worker_began=1 << 60))[2].endswith("worker 1234, 2 restarts")


def test_large_numbers_fit(width: int = WIDTH) -> None:
    huge: dict[str, Any] = dict.fromkeys(_COUNTERS, 10**15)
    found = shown(sample(**huge), width=width)
    assert max(map(len, found)) <= width
    assert any("T pages/s" in line for line in found)


def test_two_devices_fit_as_blocks() -> None:
    found = shown(sample(), sample("swap1"))
    assert len(found) <= HEIGHT
    assert sum(line.startswith(" in memory") for line in found) == 2


def test_more_are_a_table() -> None:
    found = shown(sample(pages_read=500), SILENT, sample("swap2"), sample("swap3"))
    assert len(found) == 1 + 1 + 1 + 4
    assert " ".join(found[2].split()) == ("NAME DATA TOTAL RATIO IN/S OUT/S RD P99 WR P99 DISK RST")
    assert " ".join(found[3].split()) == "swap0 768M 256M 2.56 500 0 - - 100M 2"
    assert found[4].split() == ["swap1", "does", "not", "answer"]


def test_what_does_not_fit_in_the_table_is_counted() -> None:
    found = shown(*(sample(f"swap{number}") for number in range(40)))
    assert len(found) == HEIGHT
    assert found[-1] == "and 20 more"
    assert sum(bool(re.match(r"swap\d", line)) for line in found) == 20


def test_one_that_does_not_answer_says_so() -> None:
    found = shown(SILENT)
    assert re.fullmatch(r"swap1 +does not answer", found[2])
    assert found[3] == " the daemon of swap1 does not answer"


@pytest.mark.parametrize("overall", [False, True])
def test_percentiles_of_all_requests_say_so(overall: bool) -> None:
    """In the first picture, and where they are wanted."""
    first = Sample("swap0", "/run/vswap/swap0", 5.0, STATS)
    found = shown(sample() if overall else first, overall=overall, plain=True)
    [line] = [line for line in found if line.startswith(" reads")]
    assert line.split() == [
        "reads,",
        "all",
        "p50",
        "12.3us",
        "p99",
        "1.23ms",
        "writes,",
        "all",
        "-",
    ]


def test_a_worker_of_other_code_has_them_of_all_requests() -> None:
    stats = {key: value for key, value in STATS.items() if not key.endswith("buckets")}
    before = Sample("swap0", "/x", 5.0, stats)
    found = shown(Sample("swap0", "/x", 6.0, stats, before=before))
    assert any(line.startswith(" reads, all   p50 12.3us") for line in found)


def test_both_percentiles_are_there_in_60_columns() -> None:
    found = shown(sample(read_buckets="0,1,0,0,0,50,9"), width=60)
    [line] = [line for line in found if line.startswith(" reads")]
    assert line.split()[:3] == ["reads", "24.6us", "32.6us"]


def test_without_rates_there_are_dashes() -> None:
    first = Sample("swap0", "/run/vswap/swap0", 5.0, STATS)
    [line] = [line for line in shown(first) if line.startswith(" swap-in")]
    assert line.split() == ["swap-in", "-", "swap-out", "-"]


def test_a_device_that_says_nothing_useful_is_shown_all_the_same() -> None:
    found = shown(Sample("swap0", "/x", 1.0, {"size": "much", "mem_limit": -5, "read_count": 1}))
    assert any(" 0 % " in line for line in found)


def test_a_problem_is_told() -> None:
    assert rendered(Look(problem="nobody is here"), Frame())[2] == "nobody is here"


def test_a_long_mount_point_is_cut_and_the_rest_stays() -> None:
    long = Sample("swap0", "/a" * 100, 5.0, STATS)
    head = shown(long)[2]
    assert len(head) == WIDTH
    assert head.endswith("\u2026  worker 1234, 2 restarts")


def test_a_small_terminal_shows_the_beginning() -> None:
    found = shown(sample(), width=40, height=5)
    assert len(found) <= 5
    assert max(map(len, found)) <= 40


def test_ascii_is_ascii() -> None:
    long = Sample("swap0", "/a" * 100, 5.0, STATS)
    foreign = Sample("swap0", "/\u00e4\u6f22", 5.0, STATS)
    found = shown(long, sample(), foreign, plain=True, height=40)
    assert all(line.isascii() for line in found)
    assert any("/??  " in line for line in found)
