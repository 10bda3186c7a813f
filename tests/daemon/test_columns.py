"""`vswap status` as a table: its columns, and the forms that it can have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import mounts
from vswapd.cli import age, main
from vswapd.cli.columns import ALL, DEFAULT, columns, raw
from vswapd.cli.status import status as command

MIB = 1 << 20
STATS = {
    "size": 1 << 30,
    "codec": "lz4",
    "supervisor_pid": 12,
    "worker_pid": 34,
    "worker_restarts": 3,
    "orig_data_size": 30 * MIB,
    "compr_data_size": 10 * MIB,
    "mem_used_total": 11 * MIB,
    "mem_used_max": 12 * MIB,
    "mem_limit": 64 * MIB,
    "zero_pages": 512,
    "stored_pages": 7680,
}
BACKED = {
    "backing": "/var/lib/my backing",
    "backing_state": "resting",
    "backing_data_size": 5 * MIB,
}

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the mounts of two devices, of which the second has a backing."""
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(age, "_PROC", tmp_path / "proc")
    lines = []
    for number, stats in enumerate((STATS, {**STATS, **BACKED, "mem_limit": 0})):
        point = tmp_path / f"swap{number}"
        point.mkdir()
        (point / "stats.json").write_text(json.dumps(stats))
        lines.append(f"58 27 0:{number} / {point} rw - fuse.vswap swap{number} rw,user_id=0\n")
    (tmp_path / "mountinfo").write_text("".join(lines))
    return tmp_path


def shown(captured: Captured) -> list[str]:
    return [" ".join(line.split()) for line in captured.readouterr().out.splitlines()]


def test_the_columns_that_are_shown_by_default(disks: Path, capsys: Captured) -> None:
    assert main(["status"]) == 0
    assert shown(capsys) == [
        "NAME SIZE DATA COMPR ALGORITHM ZERO TOTAL LIMIT RATIO BACKING MOUNTPOINT",
        f"swap0 1.0G 30M 10M lz4 2.0M 11M 64M 3.00 - {disks}/swap0",
        f"swap1 1.0G 30M 10M lz4 2.0M 11M - 2.00 my backing:5.0M {disks}/swap1",
    ]


def test_columns_are_aligned(disks: Path, capsys: Captured) -> None:
    assert main(["status", "-o", "TOTAL,NAME,SIZE"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "TOTAL  NAME   SIZE",
        "  11M  swap0  1.0G",
        "  11M  swap1  1.0G",
    ]


def test_chosen_columns_of_one_device(disks: Path, capsys: Captured) -> None:
    assert main(["status", "swap1", "-o", "size, name,On-Disk,file,state,pages,restarts"]) == 0
    assert shown(capsys) == [
        "SIZE NAME ON-DISK FILE STATE PAGES RESTARTS",
        "1.0G swap1 5.0M /var/lib/my backing resting 7680 3",
    ]


def test_raw_bytes_without_headings(disks: Path, capsys: Captured) -> None:
    assert main(["status", "-bnr", "-o", "NAME,TOTAL,LIMIT,BACKING"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"swap0 {11 * MIB} {64 * MIB} -",
        f"swap1 {11 * MIB} - my\\x20backing:{5 * MIB}",
    ]


def test_raw_has_a_word_for_each_column(disks: Path, capsys: Captured) -> None:
    assert main(["status", "--raw", "--output-all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == " ".join(column.name for column in ALL)
    assert {len(line.split(" ")) for line in lines} == {len(ALL)}


def test_aligned_without_headings(disks: Path, capsys: Captured) -> None:
    assert main(["status", "--noheadings", "-o", "NAME,LIMIT,SWAP,LOOP,PID,WORKER,PEAK"]) == 0
    assert shown(capsys) == ["swap0 64M off - 12 34 12M", "swap1 - off - 12 34 12M"]


def test_a_device_that_does_not_answer_has_dashes(disks: Path, capsys: Captured) -> None:
    (disks / "swap0/stats.json").write_text("{")
    assert main(["status", "-nr"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"swap0 - - - - - - - - - {disks}/swap0"
    assert captured.err == "vswap: the daemon of swap0 answers, but not with JSON\n"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["-o", "NAME,NOSUCH"], "unknown column 'NOSUCH'; there are: NAME, SIZE, DATA, COMPR, "),
        (["-o", ""], "unknown column ''; there are: NAME, "),
        (["-o", "NAME", "--json"], "--output says nothing with --json, which prints all there is"),
        (["-r", "--json"], "--raw says nothing with --json"),
        (["-o", "NAME", "--output-all"], "--output and --output-all say different things"),
    ],
)
def test_what_makes_no_sense_is_one_line(args: list[str], reason: str, capsys: Captured) -> None:
    assert main(["status", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"vswap: {reason}")
    assert captured.err.count("\n") == 1


def test_an_unknown_column_names_all_there_are() -> None:
    with pytest.raises(UserError) as caught:
        columns("x")
    assert all(column.name in str(caught.value) for column in ALL)


def test_the_help_tells_of_all_columns(capsys: Captured) -> None:
    assert main(["status", "--help"]) == 0
    out = capsys.readouterr().out
    assert [column.name for column in ALL if f"\n  {column.name} " not in out] == []
    assert "vswap status -o NAME,TOTAL,LIMIT" in out
    assert command.name == "status"


def test_names_are_unique_and_the_default_comes_first() -> None:
    assert len({column.name for column in ALL}) == len(ALL)
    assert list(ALL[: len(DEFAULT)]) == list(DEFAULT)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("plain", "plain"),
        ("a b\tc", r"a\x20b\x09c"),
        ("back\\slash", r"back\x5cslash"),
        ("\x1b[m\u00e4\udcff", r"\x1b[m" + "\u00e4" + r"\xff"),
    ],
)
def test_raw_cells(cell: str, text: str) -> None:
    assert raw(cell) == text


# ---------------------------------------------------------------- for how long


def test_uptime(disks: Path, capsys: Captured) -> None:
    entry = disks / "proc/12"
    entry.mkdir(parents=True)
    ticks = 100 * os.sysconf("SC_CLK_TCK")
    (entry / "stat").write_text(f"12 (a) b) S {' '.join(['0'] * 18)} {ticks} 0 0\n")
    (disks / "proc/uptime").write_text("11000.50 1.0\n")
    assert main(["status", "swap0", "-n", "-o", "UPTIME"]) == 0
    assert shown(capsys) == ["3h01m"]
    assert main(["status", "swap0", "-nb", "-o", "UPTIME"]) == 0
    assert shown(capsys) == ["10900"]


@pytest.mark.parametrize("stat", [None, "", "12 (a) S", f"12 (a) {'x ' * 30}"])
def test_uptime_that_cannot_be_told(
    stat: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(age, "_PROC", tmp_path)
    (tmp_path / "12").mkdir()
    (tmp_path / "uptime").write_text("11000.50 1.0\n")
    if stat is not None:
        (tmp_path / "12/stat").write_text(stat)
    assert age.seconds(12) is None


def test_uptime_of_this_process() -> None:
    assert age.seconds(os.getpid()) in range(24 * 3600)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (100 * 86400 + 3600, "100d01h"),
    ],
)
def test_age(value: int | None, text: str) -> None:
    assert age.age(value) == text
