"""Finding mounts, and reading from one whose daemon hangs, is gone, or says no."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import mounts
from vswapd.mounts import (
    Device,
    devices,
    find_device,
    read_file,
    resolve,
)

# Captured on Linux 6.18, and added to: an escaped path, a bind mount of a device (62) and one
# of a directory in it (63), another FUSE file system, a line without optional fields.
MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
58 27 0:57 / /run/vswap/swap0 rw,relatime shared:30 - fuse.vswap swap0 rw,user_id=0,group_id=0
59 27 0:58 / /mnt/with\040space\134 rw - fuse.vswap second rw,user_id=0,group_id=0
60 27 0:59 / /other rw - fuse.sshfs swap0 rw,user_id=0,group_id=0
62 27 0:57 / /bound rw - fuse.vswap swap0 rw,user_id=0,group_id=0
63 27 0:58 /dir /bound2 rw - fuse.vswap second rw,user_id=0,group_id=0
"""

FIRST = Device("swap0", "/run/vswap/swap0")
SECOND = Device("second", "/mnt/with space\\")

Mountinfo = Callable[[bytes], None]


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mountinfo:
    """Have these mounts."""

    def have(text: bytes) -> None:
        path = tmp_path / "mountinfo"
        path.write_bytes(text)
        monkeypatch.setattr(mounts, "_MOUNTINFO", path)

    return have


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_devices(mountinfo: Mountinfo) -> None:
    mountinfo(MOUNTINFO)
    assert devices() == [FIRST, SECOND]


def test_other_users_devices_are_passed_over(mountinfo: Mountinfo) -> None:
    """They could call theirs by the name of ours, and keep root from stopping it."""
    mountinfo(MOUNTINFO + b"70 27 0:70 / /home/x/swap0 rw - fuse.vswap swap0 rw,user_id=1234\n")
    assert devices() == [FIRST, SECOND]


def test_torn_lines_are_passed_over(mountinfo: Mountinfo) -> None:
    mountinfo(b"\n22 27\n22 27 0:21 / /x rw fuse.vswap x rw\n - \n22 2 0:1 / /y rw - fuse.vswap\n")
    assert devices() == []


def test_the_machines_own_mounts() -> None:
    assert mounts.is_mount_point("/proc")
    assert "/proc" in mounts.mount_points("proc")
    assert not mounts.is_mount_point("/proc/self")


def test_find_device(mountinfo: Mountinfo) -> None:
    mountinfo(MOUNTINFO)
    assert find_device("swap0") == FIRST
    assert find_device("/run/vswap/swap0/") == FIRST
    assert find_device("/mnt/with space\\") == SECOND


def test_find_device_takes_the_only_one(mountinfo: Mountinfo) -> None:
    mountinfo(MOUNTINFO.splitlines()[2])
    assert find_device(None) == FIRST


@pytest.mark.parametrize(
    ("lines", "selector", "reason"),
    [
        ([], None, "no vswap device is here; `vswap up` makes one"),
        ([], "swap0", "no vswap device is here; `vswap up` makes one"),
        (
            [2, 3],
            None,
            "there are several devices; name one of: "
            "swap0 at /run/vswap/swap0, second at /mnt/with space\\",
        ),
        ([2], "nosuch", "no device nosuch; there is: swap0 at /run/vswap/swap0"),
        ([2], "/other", "no device /other; there is: swap0 at /run/vswap/swap0"),
        (
            [2, 7],
            "swap0",
            "several devices are called swap0; give the mount point of one: "
            "swap0 at /run/vswap/swap0, swap0 at /elsewhere/swap0",
        ),
    ],
)
def test_find_device_refuses(
    mountinfo: Mountinfo, lines: list[int], selector: str | None, reason: str
) -> None:
    known = [
        *MOUNTINFO.splitlines(),
        b"64 27 0:64 / /elsewhere/swap0 rw - fuse.vswap swap0 rw,user_id=0",
    ]
    mountinfo(b"\n".join(known[line] for line in lines))
    assert refusal(lambda: find_device(selector)) == reason


def test_resolve_follows_links_and_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    (real / "point").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "direct").symlink_to("link/point")
    monkeypatch.chdir(real)
    for path in (
        f"{real}/point",
        f"{tmp_path}/link/point/",
        f"{tmp_path}/direct",
        f"{tmp_path}/link/./point",
        f"{tmp_path}/link/../real/point",
        f"{real}/point/.",
        f"{real}/point/x/..",
        "point",
    ):
        assert resolve(path) == f"{real}/point"
    assert resolve(f"{tmp_path}/missing") == f"{tmp_path}/missing"
    assert resolve(".") == str(real)
    assert resolve("/") == "/"


def test_resolve_says_what_cannot_be_looked_at(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'n' * 300}"
    assert refusal(lambda: resolve(path)) == f"{path} cannot be used: File name too long"


def test_resolve_gives_up_on_a_ring(tmp_path: Path) -> None:
    (tmp_path / "ring").symlink_to("ring")
    path = str(tmp_path / "ring")
    assert refusal(lambda: resolve(path)) == f"{path} leads through too many symbolic links"


def test_resolve_does_not_touch_a_mount_point(
    mountinfo: Mountinfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "point"
    mountinfo(b"58 27 0:57 / %b rw - fuse.vswap point rw,user_id=0" % os.fsencode(point))

    def touch(_path: Path) -> bool:
        pytest.fail("the mount point was looked at")

    monkeypatch.setattr(Path, "is_symlink", touch)
    assert resolve(str(point)) == str(point)


def test_loop_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_SYS_BLOCK", tmp_path)
    for name, backing in {
        "loop0": "/m/swap\n",
        "loop1": None,
        "loop2": "/m/swap2\n",
        "loop3": "/m/swap\n",
        "sda": "/m/swap\n",
    }.items():
        (tmp_path / name).mkdir()
        if backing is not None:
            (tmp_path / name / "loop").mkdir()
            (tmp_path / name / "loop/backing_file").write_text(backing)
    assert mounts.loop_devices(Device("m", "/m")) == ["/dev/loop0", "/dev/loop3"]


def test_holders(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"):
        assert [holder for holder in mounts.holders(str(tmp_path)) if str(os.getpid()) in holder]
    assert mounts.holders(str(tmp_path)) == []
    assert mounts.holders(str(tmp_path)[:-1]) == []


def test_read_file(tmp_path: Path) -> None:
    (tmp_path / "stats.json").write_bytes(b"{}\xff")
    assert read_file(Device("d", str(tmp_path)), "stats.json") == b"{}\xff"


def test_read_file_tells_why_not(tmp_path: Path) -> None:
    reason = refusal(lambda: read_file(Device("d", str(tmp_path)), "stats.json"))
    assert reason.startswith("the daemon of d cannot be asked: cat: ")
    assert reason.endswith("No such file or directory")


def test_read_file_of_a_daemon_that_hangs(tmp_path: Path) -> None:
    """A FIFO that nobody writes to keeps its reader waiting as a hanging daemon does."""
    os.mkfifo(tmp_path / "stats.json")
    before = time.monotonic()
    reason = refusal(lambda: read_file(Device("d", str(tmp_path)), "stats.json", 0.05))
    assert reason == "the daemon of d does not answer (waited 0.05 s)"
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("code", [107, 103, 19])
def test_read_file_of_a_daemon_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cat = tmp_path / "cat"
    cat.write_text(f'#!/bin/sh\necho "cat: $2: {os.strerror(code)}" >&2\nexit 1\n')
    cat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    reason = refusal(lambda: read_file(Device("d", "/m"), "stats.json"))
    assert reason == "the daemon of d is gone; `vswap down d` clears the rest"
