"""Aims against a run, and the Markdown that is made of both."""

from __future__ import annotations

from dataclasses import asdict

from bench.aims import AIMS, Claim, judge
from bench.record import Failure, Record
from bench.report import Aim
from bench.shown import SHOWN, Shown
from bench.tables import document, summary
from bench.work import PLAN

READ = "4K read, depth 1: mean us"
WRITES = "128K write, 2 streams: MB/s"


def a_plan() -> dict[str, str]:
    return {"rounds": "3", **{name: str(value) for name, value in asdict(PLAN).items()}}


def a_record() -> Record:
    machine = dict.fromkeys(("processor", "processors", "memory", "kernel", "Python"), "some")
    record = Record("2026-01-01", machine, a_plan())
    for number, latency in enumerate((99.0, 110.0, 400.0), 1):
        record.add("vswap", number, {READ: latency, WRITES: 150.0, "beside the pool: MiB": 65.0})
        record.add("zram lz4", number, {READ: 55.0, WRITES: 100.0})
    record.add("do-nothing C", 1, {READ: 100.0})
    return record


def verdicts(record: Record) -> dict[str, bool | None]:
    return {judged.claim.words(): judged.met for judged in judge(record)}


def test_an_aim_has_a_base_of_its_own() -> None:
    found = verdicts(a_record())
    assert found["4K random read, depth 1, us: at most 1.1x do-nothing C"] is True
    assert found["128K write, new device, MB/s: at least 1x zram lz4"] is True
    assert found["memory beside the pages (PSS), MiB: at most 64"] is False
    assert found["swapoff (ours with reading ahead), s: at most 2x zram lz4"] is None
    assert len(found) == len(AIMS)


def test_the_ratio_is_of_medians() -> None:
    (judged,) = (j for j in judge(a_record()) if j.claim.figure == READ)
    assert (judged.ours, judged.theirs, judged.ratio) == (110.0, 100.0, 1.1)


def test_a_claim_says_its_bound() -> None:
    assert Claim(READ, Aim(2.0), "x").words() == "4K random read, depth 1, us: at least 2x x"


def test_every_aim_is_about_a_figure_that_is_shown() -> None:
    assert {claim.figure for claim in AIMS} <= set(SHOWN)


def test_an_advantage_says_how_many_times_better_ours_is() -> None:
    assert Shown("latency", "latency", "us").advantage(50.0, 100.0) == 2.0
    assert Shown("speed", "speed", "/s", more_is_better=True).advantage(50.0, 100.0) == 0.5
    assert Shown("speed", "speed", "/s", more_is_better=True).advantage(50.0, 0.0) is None


def test_the_summary_shows_losses_as_plainly_as_wins() -> None:
    made = summary(a_record())
    assert "| zram lz4 | 55 (**0.50x**) | 100 (1.50x) |" in made
    assert "| **vswap** | 110 | 150 |" in made
    assert "at most 1.1x do-nothing C | 110 | 100 | 1.100x | met |" in made
    assert "at most 64 | 65 |  |  | **missed** |" in made
    assert "not measured" in made
    assert "Hog: 512 MiB in a cgroup of 192 MiB" in made


def test_what_is_missing_is_told() -> None:
    record = a_record()
    record.left_out["zram zstd"] = "no such codec"
    record.failures.append(Failure("zram lz4", "hog, seq", 2, "killed"))
    made = summary(record)
    assert "- zram zstd is left out: no such codec" in made
    assert "- hog, seq on zram lz4 failed in round 2: killed" in made


def test_the_document_has_spreads_and_the_plots_that_there_are() -> None:
    made = document(a_record(), ["requests.png"])
    assert "110 (99 to 400)" in made
    assert "![4 KiB requests](requests.png)" in made
    assert "throughput.png" not in made
    assert "## swapoff" not in made
