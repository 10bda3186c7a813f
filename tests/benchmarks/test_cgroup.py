"""The memory cgroup of the tests and benchmarks, in both layouts, on a tree of plain files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import cgroup
from bench.cgroup import CgroupError, MemoryCgroup

LIMIT = 128 << 20


def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, options: str) -> Path:
    """A hierarchy that mountinfo tells of; answers where it is."""
    root = tmp_path / "hierarchy"
    root.mkdir()
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 1 0:30 / {root} rw - {kind} {kind} {options}\n")
    monkeypatch.setattr(cgroup, "MOUNTS", mountinfo)
    return root


def test_version_1_has_its_limit_in_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = mounted(monkeypatch, tmp_path, "cgroup", "rw,memory")
    group = MemoryCgroup(LIMIT, "hog").__enter__()
    assert group.path == root / "hog"
    assert (group.path / "memory.limit_in_bytes").read_text() == str(LIMIT)
    (group.path / "memory.stat").write_text("cache 1\nswap 4096\n")
    (group.path / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 2\n")
    (group.path / "memory.usage_in_bytes").write_text("7\n")
    assert (group.memory_bytes(), group.swap_bytes(), group.oom_kills()) == (7, 4096, 2)


def test_version_2_hands_the_controller_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = mounted(monkeypatch, tmp_path, "cgroup2", "rw")
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    group = MemoryCgroup(LIMIT, "hog").__enter__()
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    assert (group.path / "memory.max").read_text() == str(LIMIT)
    (group.path / "memory.current").write_text("7\n")
    (group.path / "memory.swap.current").write_text("4096\n")
    (group.path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert (group.memory_bytes(), group.swap_bytes(), group.oom_kills()) == (7, 4096, 2)


@pytest.mark.parametrize(
    ("kind", "file"), [("cgroup", "memory.limit_in_bytes"), ("cgroup2", "memory.max")]
)
def test_the_limit_can_be_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, file: str
) -> None:
    root = mounted(monkeypatch, tmp_path, kind, "rw,memory")
    (root / "cgroup.controllers").write_text("memory\n")
    group = MemoryCgroup(LIMIT, "hog").__enter__()
    group.set_limit(2 * LIMIT)
    assert (group.path / file).read_text() == str(2 * LIMIT)
    (group.path / file).unlink()
    (group.path / file).mkdir()
    with pytest.raises(CgroupError, match="the limit cannot be"):
        group.set_limit(LIMIT)


def test_a_unified_hierarchy_without_the_controller_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = mounted(monkeypatch, tmp_path, "cgroup2", "rw")
    (root / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(CgroupError, match="no memory cgroup controller"):
        MemoryCgroup(LIMIT, "hog")
