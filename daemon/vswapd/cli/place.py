"""Where a device goes: what the machine must offer, the mount point, and clearing it again.

Directories in /run/vswap are ours: made when they are missing, removed when they are done
with. Any other mount point is the user's, must be there, and stays.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from vswap import libc
from vswap.errors import UserError
from vswapd.config import Settings, device_name
from vswapd.mounts import devices, holders, is_mount_point
from vswapd.swapdev import run_program

__all__ = [
    "DEFAULT_DEVICE",
    "RUN_DIRECTORY",
    "check_fuse",
    "check_mount",
    "check_point",
    "default_mount",
    "make_own_mount",
    "remove_own_mount",
    "unmount",
]

RUN_DIRECTORY = Path("/run/vswap")
DEFAULT_DEVICE = "swap0"
_FUSE = Path("/dev/fuse")
_BUSY_SECONDS = 2.0  # a loop device is gone only when the last who looks at it (udev) closes it
_UNMOUNT_SECONDS = 10.0


def default_mount(name: str) -> str:
    """Where the device of this name is mounted if nothing else is said."""
    return str(RUN_DIRECTORY / name)


def check_point(point: str) -> None:
    """Raise `UserError` for a mount point that is, or would hide, what is vswap's own."""
    if RUN_DIRECTORY.is_relative_to(point):
        raise UserError(f"mounting on {point} would cover {RUN_DIRECTORY}; choose another")
    if _is_own(point):
        device_name(point)


def check_fuse() -> None:
    """Raise `UserError` unless FUSE can be used."""
    device = _FUSE
    if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
        raise UserError(f"{device} does not exist; load the kernel's module with `modprobe fuse`")
    if not os.access(device, os.R_OK | os.W_OK):
        raise UserError(f"{device} may not be opened by this user; `ls -l {device}` tells by whom")


def check_mount(settings: Settings) -> None:
    """Raise `UserError` unless a device can be mounted as these settings say."""
    point = settings.mount
    for device in devices():
        if device.mount == point:
            raise UserError(f"a daemon already serves {point}; `vswap down {device.name}` stops it")
        if device.name == settings.name:
            raise UserError(
                f"a device called {device.name} is at {device.mount}; "
                "mount this one at a directory of another name"
            )
    if is_mount_point(point):
        raise UserError(f"{point} is in use, something else is mounted there; choose another")
    if not os.path.lexists(point) and not _is_own(point):
        raise UserError(f"mount point {point} does not exist; create it or choose another")
    if os.path.lexists(point):
        _check_directory(point)


def _check_directory(point: str) -> None:
    if not Path(point).is_dir():
        raise UserError(f"mount point {point} is not a directory; choose another")
    try:
        empty = not os.listdir(point)  # noqa: PTH208
    except OSError as error:
        raise UserError(f"mount point {point} cannot be used: {error.strerror}") from None
    if not empty:
        raise UserError(f"mount point {point} is not empty, and mounting would hide what is there")


def _is_own(mount: str) -> bool:
    return Path(mount).parent == RUN_DIRECTORY


def make_own_mount(mount: str) -> None:
    """Make the mount point, if it is one of ours and missing."""
    if _is_own(mount):
        RUN_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        Path(mount).mkdir(mode=0o700, exist_ok=True)


def remove_own_mount(mount: str) -> None:
    """Remove the mount point if it is one of ours, and then /run/vswap if that is empty."""
    if _is_own(mount):
        with suppress(FileNotFoundError):
            Path(mount).rmdir()
        with suppress(OSError):  # a log or another device is in it
            RUN_DIRECTORY.rmdir()


def unmount(mount: str) -> None:
    """Unmount a device. Raises `UserError`, which tells who has files open there."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while not _try_unmount(mount):
        if time.monotonic() > deadline:
            who = (
                ", ".join(holders(mount)[:3]) or "a program or mount that cannot be seen from here"
            )
            raise UserError(f"something still has {mount} open: {who}; stop it and try again")
        time.sleep(0.05)


def _try_unmount(mount: str) -> bool:
    """Whether it was unmounted, and not found busy."""
    if os.geteuid() != 0:
        return _try_fusermount(mount)
    try:
        libc.umount2(mount, libc.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _try_fusermount(mount: str) -> bool:
    ended = run_program(["fusermount3", "-u", mount], _UNMOUNT_SECONDS)
    if ended.code and not ended.last_line.endswith(os.strerror(errno.EBUSY)):
        raise UserError(f"unmounting {mount} failed: {ended.last_line}")
    return not ended.code
