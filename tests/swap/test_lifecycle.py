"""up, status, down: what they leave, and what they refuse."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from swap_support import (
    ENVIRONMENT,
    Device,
    daemons,
    left_behind,
    loops_of,
    mounts,
    start_vswap,
    swaps,
    vswap,
    wait_until,
)

from vswapd.tuning import restore

PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
RAISED = "5"
TUNING = Path("/run/vswap/tuning.json")


@pytest.fixture
def page_cluster(mount: Path) -> Iterator[Path]:
    """The machine's setting, at the kernel's default; afterwards what it was before."""
    if TUNING.exists():
        pytest.skip("a device of somebody's has the kernel tuned")
    before = PAGE_CLUSTER.read_text()
    PAGE_CLUSTER.write_text("3")
    try:
        yield PAGE_CLUSTER
    finally:
        restore(TUNING.parent, mount.name)  # what a failed test has left, of other settings too
        PAGE_CLUSTER.write_text(before)


def test_up_prints_the_device_that_the_machine_swaps_on(up: Callable[..., Device]) -> None:
    device = up("--size", "64M", "--priority", "7")
    line = next(line for line in swaps().splitlines() if line.startswith(f"{device.loop} "))
    assert line.split()[2:] == [str((64 << 10) - 4), "0", "7"]
    assert stat.S_IMODE(Path(device.loop).stat().st_mode) == 0o600


def test_status_says_what_it_is(up: Callable[..., Device]) -> None:
    device = up("--size", "64M")
    status = device.status()
    assert status["size"] == 64 << 20
    assert status["mount"] == str(device.mount)
    assert status["name"] == device.mount.name
    assert status["loop"] == device.loop
    assert status["swap"] is True
    assert status["worker_pid"] in daemons(device.mount)
    assert {"mem_used_total", "stored_pages", "zero_pages"} <= set(status["stats"])


def test_down_leaves_nothing(up: Callable[..., Device]) -> None:
    device = up("--size", "64M")
    done = vswap("down", str(device.mount))
    assert done.returncode == 0, done.stderr
    assert left_behind(device.mount) == []
    assert device.loop not in swaps()


def test_no_swapon_stops_at_the_loop_device(up: Callable[..., Device]) -> None:
    device = up("--size", "64M", "--no-swapon")
    assert loops_of(device.mount) == [device.loop]
    assert device.loop not in swaps()
    assert device.status()["swap"] is False


PIDS = ("supervisor_pid", "worker_pid")


def program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2]


def test_a_second_up_on_the_same_mount_says_so(up: Callable[..., Device]) -> None:
    device = up("--size", "64M")
    before = device.status()
    again = vswap("up", "--mount", str(device.mount))
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert "down" in again.stderr
    after = device.status()
    assert [after[pid] for pid in PIDS] == [before[pid] for pid in PIDS]
    supervisors = [argv for argv in map(program_of, daemons(device.mount)) if "supervise" in argv]
    assert len(supervisors) == 1


def test_the_kernel_is_tuned_from_up_to_down(mount: Path, page_cluster: Path) -> None:
    done = vswap("up", "--mount", str(mount), "--size", "64M")
    assert done.returncode == 0, done.stderr
    assert "stays as it is" not in done.stderr
    assert page_cluster.read_text().strip() == RAISED
    assert vswap("down", str(mount)).returncode == 0
    assert page_cluster.read_text().strip() == "3"
    assert not TUNING.exists()


def test_down_puts_back_what_a_dead_daemon_left_raised(mount: Path, page_cluster: Path) -> None:
    vswap("up", "--mount", str(mount), "--size", "64M", "--no-swapon")
    for pid in daemons(mount):
        os.kill(pid, signal.SIGKILL)
    assert page_cluster.read_text().strip() == RAISED
    done = vswap("down", str(mount))
    assert done.returncode == 0, done.stderr
    assert page_cluster.read_text().strip() == "3"


def test_no_tune_leaves_the_kernel_alone(up: Callable[..., Device], page_cluster: Path) -> None:
    up("--size", "64M", "--no-tune")
    assert page_cluster.read_text().strip() == "3"


@pytest.mark.parametrize("program", ["losetup", "mkswap", "swapon"])
def test_up_undoes_everything_when_a_step_fails(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, page_cluster: Path
) -> None:
    broken = tmp_path / "bin" / program
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'it is broken' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{broken.parent}:{os.environ['PATH']}")
    done = vswap("up", "--mount", str(mount), "--size", "64M")
    assert done.returncode == 2
    assert "it is broken" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert left_behind(mount) == []
    assert page_cluster.read_text().strip() == "3"


@pytest.mark.parametrize("reached", ["daemon", "mount", "loop"])
def test_ctrl_c_during_up_leaves_nothing(mount: Path, reached: str, page_cluster: Path) -> None:
    look: Callable[[Path], object] = {"daemon": daemons, "mount": mounts, "loop": loops_of}[reached]
    process = start_vswap("up", "--mount", str(mount), "--size", "64M")
    wait_until(lambda: bool(look(mount)) or process.poll() is not None, f"up reaches its {reached}")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:  # it was faster than the signal, and has told so
        assert vswap("down", str(mount)).returncode == 0
    else:
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
    assert left_behind(mount) == []
    assert page_cluster.read_text().strip() == "3"


def test_the_daemon_goes_on_when_it_is_asked_to_stop_under_a_swap(
    up: Callable[..., Device],
) -> None:
    device = up("--size", "64M")
    pid = device.status()["worker_pid"]
    os.kill(pid, signal.SIGTERM)
    assert device.status()["stats"]["worker_pid"] == pid
    assert f"{device.loop} " in swaps()


def test_sizes_are_refused_before_anything_starts(mount: Path) -> None:
    for size in ("0", "-4K", "1000", "17T", "many"):
        done = vswap("up", "--mount", str(mount), "--size", size)
        assert done.returncode == 2
        assert "size" in done.stderr
        assert "Traceback" not in done.stderr
    assert left_behind(mount) == []
