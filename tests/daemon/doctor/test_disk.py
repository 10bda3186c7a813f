"""What is found at a place for a backing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vswapd.doctor import Level, Machine
from vswapd.doctor.disk import direct, folder, layers, room, rotation

OK, WARNING, FAILURE = Level
Make = Callable[[Mapping[str, str | None]], Machine]


def sysfs(tmp_path: Path) -> str:
    number = tmp_path.stat().st_dev
    return f"sys/dev/block/{os.major(number)}:{os.minor(number)}"


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [("1\n", WARNING, "says that it rotates"), ("0\n", OK, "does not rotate")],
)
def test_rotation(text: str, level: Level, words: str, machine: Make, tmp_path: Path) -> None:
    made = machine({f"{sysfs(tmp_path)}/queue/rotational": text})
    (found,) = rotation(made, tmp_path / "no/such/file")
    assert (found.level, words in found.text) == (level, True)


def test_a_partition_turns_as_its_disk_does(machine: Make, tmp_path: Path) -> None:
    made = machine({"sys/block/sda/queue/rotational": "1", "sys/block/sda/sda1/partition": "1"})
    link = made.root / sysfs(tmp_path)
    link.parent.mkdir(parents=True)
    link.symlink_to(made.root / "sys/block/sda/sda1")
    (found,) = rotation(made, tmp_path)
    assert found.level == WARNING


def test_rotation_that_cannot_be_told(machine: Make, tmp_path: Path) -> None:
    (found,) = rotation(machine({}), tmp_path)
    assert (found.level, "cannot be told" in found.text) == (OK, True)


@pytest.mark.parametrize(
    ("fstype", "path", "warns"),
    [
        ("overlay", "/var/b", True),
        ("ext4", "/var/b", False),
        ("overlay", "/variable", False),
    ],
)
def test_layers(fstype: str, path: str, warns: bool, machine: Make) -> None:
    mounts = f"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /var rw - {fstype} b rw\n"
    made = machine({"proc/self/mountinfo": mounts})
    assert bool(list(layers(made, Path(path)))) == warns


def test_room(tmp_path: Path) -> None:
    (enough,) = room(tmp_path / "b", 1 << 12)
    (any_room,) = room(tmp_path / "b", None)
    (too_little,) = room(tmp_path / "b", 1 << 60)
    assert [each.level for each in (enough, any_room, too_little)] == [OK, OK, FAILURE]
    (tmp_path / "b").touch()
    assert list(room(tmp_path / "b", 1 << 60)) == []


@pytest.mark.parametrize(("mode", "warns"), [(0o755, False), (0o777, True), (0o1777, False)])
def test_folder(mode: int, warns: bool, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f").chmod(mode)
    assert bool(list(folder(tmp_path / "f/b"))) == warns


def test_direct_leaves_nothing(tmp_path: Path) -> None:
    found = list(direct(tmp_path / "b"))
    assert all(each.level in (OK, FAILURE) for each in found)
    assert list(tmp_path.iterdir()) == []
    (missing,) = direct(tmp_path / "no/b")
    assert (missing.level, missing.remedy) == (FAILURE, f"`mkdir {tmp_path}/no`")


def test_direct_on_what_is_there_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert list(direct(tmp_path / "b")) == []
