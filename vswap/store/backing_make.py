"""Room on a disk: which file system gives any, a file that has it, and zeros all over it.

A backing file is written in full when it is made, and not only allocated: the first write to
an extent that is merely allocated makes the file system convert it, which takes memory just
when there is none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store.backing import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LABEL_SIZE",
    "NO_ROOM",
    "check_file_system",
    "check_path",
    "fill",
    "is_fuse",
    "make_file",
    "no_direct",
    "whole_segments",
]

LABEL_SIZE = SEGMENT_SIZE
"""Bytes in front of the first disk segment. The label is the first block; the rest is zeros."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a file system says that cannot make a file so large."""

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-3][0-7]{2})")


class _Mount(NamedTuple):
    number: int
    point: str
    fstype: str


def whole_segments(size: int) -> int:
    """`size` bytes, rounded up to whole segments."""
    return -(-size // SEGMENT_SIZE) * SEGMENT_SIZE


def is_fuse(path: str) -> bool:
    """Whether `path` is on a FUSE mount, by its name alone: nothing there is touched.

    A process that asks its own mount for something can wait for itself.
    """
    return _fuse(_type_of_path(path))


def check_path(path: str, called: str | None = None) -> None:
    """`check_file_system` by name, for what is not there yet or must not be touched.

    The error says `called` if that is given.
    """
    _check_type(called or path, _type_of_path(path))


def check_file_system(path: str, fd: int) -> None:
    """Raise `UserError` if `fd`, which is `path`, is on a file system that can back no memory."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    number = int(re.findall(r"^mnt_id:\s*(\d+)$", info, re.MULTILINE)[0])
    # st_dev would not do: on btrfs it is another than the mount's.
    _check_type(path, next((m.fstype for m in _mounts() if m.number == number), ""))


def _check_type(path: str, fstype: str) -> None:
    if fstype in _MEMORY:
        raise UserError(f"{path} is on {fstype}, which is memory itself; choose a place on a disk")
    if _fuse(fstype):
        raise UserError(
            f"{path} is on {fstype}, served by a process that may itself wait for memory; "
            "choose a place on a file system of the kernel's"
        )


def _fuse(fstype: str) -> bool:
    return fstype in ("fuse", "fuseblk") or fstype.startswith(("fuse.", "fuseblk."))


def _type_of_path(path: str) -> str:
    absolute = os.path.abspath(path)  # noqa: PTH100 (unlike resolve(), it touches nothing)
    found, longest = "", -1
    for mount in _mounts():
        inside = absolute == mount.point or absolute.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= longest:  # of two at one point the later covers
            found, longest = mount.fstype, len(mount.point)
    return found


def _mounts() -> Iterator[_Mount]:
    """The lines of mountinfo, proc(5)."""
    for line in _MOUNTINFO.read_text(errors="surrogateescape").split("\n")[:-1]:
        mount, _, origin = line.partition(" - ")
        fields = mount.split(" ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        yield _Mount(int(fields[0]), point, origin.split(" ")[0])


def no_direct(path: str) -> str:
    """What is said of a file that O_DIRECT cannot be had for."""
    return f"{path} is on a file system without O_DIRECT; choose a place on another one"


def fill(fd: int, start: int, end: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """Write zeros from byte `start` to `end`, whole segments both, to `fd`, which is O_DIRECT.

    `progress` gets the bytes written so far, after each segment. Raises `OSError`.
    """
    assert start % SEGMENT_SIZE == end % SEGMENT_SIZE == 0
    zeros = aligned(SEGMENT_SIZE)
    for offset in range(start, end, SEGMENT_SIZE):
        if os.pwritev(fd, [zeros], offset) != SEGMENT_SIZE:
            raise OSError(errno.EIO, "short write")
        progress(offset + SEGMENT_SIZE - start)


def make_file(path: str, size: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """Make a backing file with room for `size` bytes of segments, rounded up to whole ones.

    `progress` gets the bytes of segments that are done, after each. Raises `UserError`: there
    is something at `path` already, too little room, or a file system that will not do. Whatever
    goes wrong, `KeyboardInterrupt` included, leaves no file.
    """
    if size <= 0:
        raise UserError(f"the size of a backing file must be more than zero, not {size}")
    size = whole_segments(size)
    check_path(path)
    _check_room(path, LABEL_SIZE + size)
    with _new_file(path) as fd:
        try:
            _write_file(path, fd, size, progress)
        except OSError as error:
            raise UserError(f"{path} cannot be filled: {error.strerror}; it is removed") from error


def _check_room(path: str, needed: int) -> None:
    try:
        found = os.statvfs(Path(path).parent)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}") from error
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise UserError(
            f"{path} needs {needed >> 20} MiB, and its file system has {free >> 20} MiB free; "
            "choose a smaller size or another place"
        )


@contextmanager
def _new_file(path: str) -> Iterator[int]:
    """A file that is removed again if the block fails. Locked, or a device could take it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists already; attach it as it is, or remove it first") from None
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    except BaseException:
        with suppress(OSError):
            Path(path).unlink()
        raise
    finally:
        os.close(fd)


def _write_file(path: str, fd: int, size: int, progress: Callable[[int], None]) -> None:
    check_file_system(path, fd)
    os.posix_fallocate(fd, 0, LABEL_SIZE + size)
    _set_direct(path, fd)
    fill(fd, 0, LABEL_SIZE)
    fill(fd, LABEL_SIZE, LABEL_SIZE + size, progress)
    os.fsync(fd)


def _set_direct(path: str, fd: int) -> None:
    """O_DIRECT from now on. open() with O_CREAT can make a file, and fail for O_DIRECT then."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        raise UserError(no_direct(path)) from error
