"""Devices come up as a configuration says: all in order, whichever fail. Nothing swaps on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_support import Device, left_behind, loops_of, tear_down, vswap

NAMES = tuple(f"conf{number}-{os.getpid()}" for number in range(3))


@pytest.fixture
def points(tmp_path: Path) -> Iterator[list[Path]]:
    """Where three devices are mounted, all gone again afterwards."""
    found = [tmp_path / f"at{number}" for number in range(3)]
    for point in found:
        point.mkdir()
    try:
        yield found
    finally:
        for name, point in zip(NAMES, found, strict=True):
            if left_behind(point):
                tear_down(point)
            Path(f"/run/vswap/{name}.log").unlink(missing_ok=True)


@pytest.fixture
def config(tmp_path: Path, points: list[Path]) -> str:
    """Three devices. Names are not those of the mount points."""
    text = "[defaults]\nswapon = false\ntune = false\nsize = '16M'\nspares = 0\ncodec = 'lz4'\n"
    for name, point in zip(NAMES, points, strict=True):
        text += f"[device.{name}]\nmount = '{point}'\n"
    file = tmp_path / "vswap.toml"
    file.write_text(text + "size = '32M'\ncodec = 'zstd'\n")
    file.chmod(0o644)
    return str(file)


def test_all_come_up_but_the_one_that_cannot(config: str, points: list[Path]) -> None:
    (points[1] / "file").touch()
    done = vswap("up", "--all", "--config", config)
    reason = f"mount point {points[1]} is not empty, and mounting would hide what is there"
    told = [line for line in done.stderr.splitlines() if " warning: " not in line]
    assert (done.returncode, told) == (2, [f"vswap: {NAMES[1]}: {reason}"])
    loops = dict(line.split() for line in done.stdout.splitlines())
    assert list(loops) == [NAMES[0], NAMES[2]]
    assert left_behind(points[1]) == []
    for number, size, codec in ((0, 16 << 20, "lz4"), (2, 32 << 20, "zstd")):
        status = Device(points[number], loops[NAMES[number]]).status()
        assert loops_of(points[number]) == [loops[NAMES[number]]]
        assert (status["name"], status["size"]) == (NAMES[number], size)
        assert (status["swap"], status["stats"]["codec"]) == (False, codec)
        assert vswap("down", NAMES[number]).returncode == 0
        assert left_behind(points[number]) == []


def test_one_comes_up_by_name_with_options_over_the_file(config: str, points: list[Path]) -> None:
    done = vswap("up", NAMES[0], "--config", config, "--size", "24M")
    assert done.returncode == 0, done.stderr
    status = Device(points[0], done.stdout.strip()).status()
    assert (status["name"], status["size"], status["swap"]) == (NAMES[0], 24 << 20, False)
    assert left_behind(points[1]) == left_behind(points[2]) == []
    assert vswap("down", NAMES[0]).returncode == 0
