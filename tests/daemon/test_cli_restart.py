"""`vswap restart` finds the supervisor when no worker answers: among processes that are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.cli import replace
from vswapd.cli.daemon import log_path
from vswapd.mounts import Device

DEVICE = Device("swap0", "/run/vswap/swap0")
UNIT = "0::/system.slice/system-vswap.slice/vswap@swap0.service\n"
JOURNAL = "socket:[4711]"


@pytest.fixture(autouse=True)
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No process, in the place of /proc."""

    def silent(_device: Device) -> dict[str, object]:
        raise UserError("the daemon of swap0 does not answer (waited 5 s)")

    monkeypatch.setattr(replace, "read_stats", silent)
    monkeypatch.setattr(replace, "_PROC", tmp_path)
    return tmp_path


def add(proc: Path, pid: int, stderr: str, cgroup: str, comm: str = "vswap-keeper") -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "fd/2").symlink_to(stderr)
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "cgroup").write_text(cgroup)


def test_by_the_log_that_it_writes_to(proc: Path) -> None:
    add(proc, 810, str(log_path("swap1")), "0::/\n")
    add(proc, 811, str(log_path("swap0")), "0::/\n", "vswap-worker")
    add(proc, 812, str(log_path("swap0")), "0::/\n")
    assert replace.supervisor_of(DEVICE) == 812


def test_by_the_unit_that_has_started_it(proc: Path) -> None:
    add(proc, 810, JOURNAL, UNIT.replace("swap0", "swap1"))
    add(proc, 811, JOURNAL, UNIT, "vswap")
    add(proc, 812, JOURNAL, f"1:name=systemd:{UNIT[3:]}0::/\n")
    assert replace.supervisor_of(DEVICE) == 812


def test_another_user_s_unit_is_another_one(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(proc, 812, JOURNAL, UNIT)
    monkeypatch.setattr(os, "geteuid", lambda: proc.stat().st_uid + 1)
    with pytest.raises(UserError, match="does not answer"):
        replace.supervisor_of(DEVICE)


def test_none_is_found(proc: Path) -> None:
    (proc / "812").mkdir()
    with pytest.raises(UserError, match="does not answer"):
        replace.supervisor_of(DEVICE)
