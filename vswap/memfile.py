"""Memory files: a device's state lies in them, and nothing else has their contents.

The state must not be swapped out to the device, or who wants it back waits for itself. As long as a
process has its pages locked they stay where they are. But locks are a process's: when a worker is
killed, what only it had touched could be taken the instant after, and whoever touches that next
(its successor, or the supervisor, which has it mapped) would wait for a device that nobody serves.

So a *resident* memory file lies in a tmpfs with the option `noswap` (from kernel 6.4 on), mounted
nowhere: all of its pages are unevictable, locked or not. Where there is none to be had it is a
memfd, as all others are; `is_swappable` tells which. Each is the first file of its own file system,
so its inode's number is that of others too.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from vswap import libc

__all__ = ["create", "is_swappable"]

_PREFIX = "vswap-"
_NOT_TO_BE_HAD = {
    errno.ENOSYS,  # before 5.2
    errno.EINVAL,  # before 6.4; and where this is not the first user namespace
    errno.EPERM,  # not as root
    errno.EACCES,
    errno.ENODEV,  # no tmpfs in the kernel
}


def create(name: str, size: int = 0, *, resident: bool = False) -> int:
    """The descriptor of a new sparse file of `size` bytes; `name` shows in /proc/PID/maps.

    Making a file system, as a `resident` one needs, can wait for who reclaims memory: that is for
    the start of a device, and not for when nobody serves it. Raises `OSError`.
    """
    fd = _resident(_PREFIX + name) if resident else None
    if fd is None:
        fd = os.memfd_create(_PREFIX + name)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_swappable(fd: int) -> bool:
    """Whether a memory file may be swapped out where nobody has it locked."""
    return str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/memfd:")


def _resident(name: str) -> int | None:
    """A file in a file system of its own; None if there is none to be had."""
    try:
        root = _file_system()
    except OSError as error:
        if error.errno in _NOT_TO_BE_HAD:
            return None
        raise
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
        os.unlink(name, dir_fd=root)
        return fd
    finally:
        os.close(root)


def _file_system() -> int:
    """The root of a new one: of any size, of small pages, and never swapped."""
    with ExitStack() as undo:
        context = libc.fsopen("tmpfs")
        undo.callback(os.close, context)
        libc.fsconfig(context, libc.FSCONFIG_SET_FLAG, "noswap")
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "size", "0")
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "huge", "never")
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE)
        return libc.fsmount(context)
