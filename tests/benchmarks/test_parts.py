"""The parts of the benchmarks that need no device."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest

from bench import __main__ as command
from bench.disturbed import GROUP_PAGES, dead_ranges
from bench.hog import figures
from bench.options import settings
from bench.sampler import Samples, sampling
from vswap.geometry import PAGE_SIZE

MIB = 1 << 20


def test_settings_are_numbers_truths_or_text() -> None:
    given = ["codec=lz4", "unit_pages=8", "clean=false", "loaded_first=true"]
    wanted = {"codec": "lz4", "unit_pages": 8, "clean": False, "loaded_first": True}
    assert settings(given) == wanted


def test_half_of_the_device_is_discarded_and_every_first_page_kept() -> None:
    size = 5 * GROUP_PAGES * PAGE_SIZE * 10
    ranges = list(dead_ranges(size))
    assert sum(length for _, length in ranges) == size // 2
    dead = {at for start, length in ranges for at in range(start, start + length, PAGE_SIZE)}
    assert not dead & set(range(0, size, GROUP_PAGES * PAGE_SIZE))
    assert max(dead) < size


def test_samples_tell_the_most_and_how_often_something_changed() -> None:
    samples = Samples()
    assert (samples.most("a"), samples.last("a"), samples.share_changing("a")) == (0, 0, 0.0)
    values = [(1, 0), (5, 0), (5, 1), (5, 1)]
    samples.rows = [(float(at), {"a": a, "b": b}) for at, (a, b) in enumerate(values)]
    assert (samples.most("a"), samples.last("b")) == (5, 1)
    assert samples.share_changing("a", "b") == pytest.approx(2 / 3)


def test_sampling_goes_on_after_a_look_that_failed() -> None:
    numbers: Iterator[int] = count()

    def look() -> dict[str, int]:
        if (number := next(numbers)) == 0:
            raise OSError
        return {"a": number}

    with sampling(look, 0.001) as samples:
        deadline = time.monotonic() + 10
        while len(samples.rows) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert samples.rows[0][1] == {"a": 1}


def test_a_hogs_speed_is_without_the_time_its_source_took() -> None:
    phase = {"pages": 100, "seconds": 2.0, "source_seconds": 1.0}
    printed = {"phases": [{"phase": "fill", **phase}, {"phase": "verify 1", **phase, "pages": 300}]}
    samples = Samples()
    row = {"mem_used_total": MIB, "compr_data_size": MIB, "stored_pages": 1, "failed_writes": 7}
    samples.rows = [(0.0, row)]
    found = figures(printed, samples, killed=False)
    assert (found["fill: pages/s"], found["in all: pages/s"]) == (100.0, 200.0)
    assert (found["failed writes"], found["hogs that did not finish"]) == (7, 0)
    assert "in all: pages/s" not in figures({}, samples, killed=True)


def test_a_benchmark_is_chosen_by_name_and_compare_is_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    def body(name: str) -> int:
        called.append((name, sys.argv[1:]))
        return 0

    for name in command.BENCHMARKS:
        monkeypatch.setitem(command.BENCHMARKS, name, partial(body, name))
    for argv in (["--rounds", "1"], ["churn", "--size", "1G"], []):
        monkeypatch.setattr(sys, "argv", ["bench", *argv])
        assert command.main() == 0
    assert called == [("compare", ["--rounds", "1"]), ("churn", ["--size", "1G"]), ("compare", [])]
    monkeypatch.setattr(sys, "argv", ["bench", "other"])
    assert command.main() == 2
    assert "no benchmark 'other'" in capsys.readouterr().err
