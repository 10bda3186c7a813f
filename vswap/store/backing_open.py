"""Opening what is to be a backing, or saying why it cannot be one.

A file is refused unless its room is there already, because what needs memory to be written
cannot be what memory is freed with. It is also refused unless it is nobody else's: pages of
other people's processes will lie in it, and what it holds will be overwritten.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import label
from vswap.store.backing import BLOCK, aligned
from vswap.store.backing_make import (
    LABEL_SIZE,
    check_file_system,
    check_path,
    is_fuse,
    no_direct,
)

__all__ = ["check_size", "length_of", "open_checked", "room_in"]


def open_checked(path: str, size: int | None) -> int:
    """A descriptor of the file or block device at `path`, for the caller alone.

    With room for `size` bytes of segments if that is given. Raises `UserError` with the reason
    why it cannot be used, and has changed nothing then.
    """
    target, found = _find(path)
    fd = _open(path, target, found)
    try:
        with _told(path):
            _check_file(path, fd, found)
            _lock(path, fd)
            check_size(path, fd, size)
            _check_head(path, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def length_of(fd: int) -> int:
    """Bytes in a file or device. Its position is moved, which nothing here uses."""
    return os.lseek(fd, 0, os.SEEK_END)


def room_in(length: int) -> int:
    """Bytes for whole segments in a file of `length` bytes."""
    return max(0, length - LABEL_SIZE) // SEGMENT_SIZE * SEGMENT_SIZE


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Make a `UserError` of what the system says in the block."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot back memory: {error.strerror}") from error


def _find(path: str) -> tuple[str, os.stat_result]:
    """What to open for `path`, and what it is. Only links to devices are followed."""
    if is_fuse(path):
        check_path(path)
    try:
        found = os.lstat(path)
        if not stat.S_ISLNK(found.st_mode):
            return path, found
        target = os.path.realpath(path)
        found = Path(target).stat()
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; `vswap backing attach FILE --size SIZE` or `--backing-size` "
            "makes it"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise UserError(f"{path} is a symbolic link; name the file itself: {target}")
    return target, found


def _open(path: str, target: str, found: os.stat_result) -> int:
    """A descriptor of `target`. A fifo and the like are never opened: that alone can act."""
    flags = os.O_RDWR | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if stat.S_ISBLK(found.st_mode):
        _check_loop(path, found.st_rdev)
        flags |= os.O_EXCL
    elif not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is neither a regular file nor a block device; name one of these")
    try:
        return os.open(target, flags)
    except OSError as error:
        if error.errno == errno.EINVAL:
            reason = no_direct(path)
        elif error.errno == errno.EBUSY:
            reason = f"{path} is in use (mounted, or part of something)"
        else:
            reason = f"{path} cannot be opened: {error.strerror}"
        raise UserError(reason) from error


def _check_loop(path: str, number: int) -> None:
    """Refuse a loop device, or a partition of one, over a file that would be refused."""
    for attribute in ("loop/backing_file", "../loop/backing_file"):
        below = _attribute(number, attribute)
        if below:
            check_path(below, f"{path} (over {below})")


def _check_writable(path: str, number: int) -> None:
    """Opening a device for writing does not tell: only its writes fail if it is read-only."""
    if _attribute(number, "ro") == "1":
        raise UserError(f"{path} is read-only; `blockdev --setrw {path}`, or choose another device")


def _attribute(number: int, name: str) -> str:
    """What sysfs says of the block device with a number; empty if it has no such attribute."""
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    try:
        return os.fsdecode((folder / name).read_bytes()).removesuffix("\n")
    except OSError:
        return ""


def _check_file(path: str, fd: int, found: os.stat_result) -> None:
    """Refuse what anyone else can read or write, what has holes, and what lies in memory."""
    now = os.fstat(fd)
    if not os.path.samestat(found, now):
        raise UserError(f"{path} was replaced while it was looked at; try again")
    if stat.S_ISBLK(now.st_mode):
        _check_writable(path, now.st_rdev)
        return
    if now.st_uid != os.geteuid():
        raise UserError(
            f"{path} belongs to user {now.st_uid} and vswap runs as user {os.geteuid()}; "
            f"`chown {os.geteuid()} {path}`"
        )
    if now.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{path} can be read or written by other users; `chmod 600 {path}`")
    check_file_system(path, fd)
    if now.st_blocks * 512 < now.st_size:
        raise UserError(
            f"{path} is sparse: its room may be gone when it is needed; "
            f"`fallocate -l {now.st_size} {path}`"
        )


def _lock(path: str, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is used by another device") from None


def check_size(path: str, fd: int, size: int | None) -> None:
    """Raise `UserError` unless there is room for a segment, and for `size` bytes of them."""
    length = length_of(fd)
    needed = LABEL_SIZE + max(SEGMENT_SIZE, size or 0)
    if needed > length:
        raise UserError(
            f"{path} is too small: it has {length} bytes and {needed} are needed, of which "
            f"{LABEL_SIZE} are vswap's own; enlarge it or ask for less"
        )


def _check_head(path: str, fd: int) -> None:
    """Refuse what holds something. All of the first MiB counts.

    The superblocks of some file systems (btrfs, bcachefs, ZFS) and of md come behind a block
    of zeros.
    """
    head = aligned(LABEL_SIZE)
    if os.preadv(fd, [head], 0) != LABEL_SIZE:
        raise OSError(errno.EIO, "short read", path)
    ours = label.unpack(bytes(head[:BLOCK])) is not None
    if not ours or bytes(head[BLOCK:]).count(0) != LABEL_SIZE - BLOCK:
        raise UserError(
            f"{path} holds something else; vswap does not overwrite it "
            "(zero its first 1 MiB if it is not needed)"
        )
