"""The place of a backing: what kind of disk is it on, and who else could put something there.

These look at the place itself, so they may wait for its disk. That it can be a backing at all is
looked at before (vswapd/cli/backing_look.py): nothing here is done for what is on FUSE.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vswap.geometry import SEGMENT_SIZE
from vswapd.doctor.finding import Finding, failure, good, warning
from vswapd.doctor.machine import Machine

__all__ = ["direct", "folder", "layers", "room", "rotation"]


def rotation(machine: Machine, path: Path) -> Iterator[Finding]:
    """Whether the disk has to turn to what is read."""
    found = _nearest(path).stat()
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    device = f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    # A partition's queue is its disk's.
    values = [machine.number(f"{device}/{up}queue/rotational") for up in ("", "../")]
    turns = next((value for value in values if value is not None), None)
    if turns is None:
        yield good(f"whether the disk of {path} rotates cannot be told")
    elif turns:
        yield warning(
            f"the disk of {path} says that it rotates: then each page that is read back costs some "
            "10 ms",
            "choose a place on a solid-state disk (this may be one: virtual disks say so too)",
        )
    else:
        yield good(f"{path} is on a disk that does not rotate")


def layers(machine: Machine, path: Path) -> Iterator[Finding]:
    """Whether the file system is one over others."""
    inside = [mount for mount in machine.mounts() if path.is_relative_to(mount.point)]
    top = max(inside, key=lambda mount: len(mount.point), default=None)
    if top is not None and top.fstype == "overlay":
        yield warning(
            f"{path} is on overlay, a file system over others, and may go with its container",
            "choose a place on the disk itself",
        )


def room(path: Path, size: int | None) -> Iterator[Finding]:
    """How much there is for a file that is to be made, with `size` bytes of segments at least."""
    if path.exists():
        return
    found = os.statvfs(_nearest(path))
    free = found.f_bavail * found.f_frsize
    needed = SEGMENT_SIZE + (size or SEGMENT_SIZE)  # the first is for its label
    if needed > free:
        yield failure(
            f"{free >> 20} MiB are free for {path}, and {needed >> 20} are needed",
            "choose a smaller size or another place",
        )
    else:
        yield good(f"{free >> 20} MiB are free for {path}")


def folder(path: Path) -> Iterator[Finding]:
    """Whether others could put another file in its place."""
    mode = _nearest(path.parent).stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield warning(
            f"everybody may write to {path.parent}, and take the file away",
            f"`chmod o-w {path.parent}`",
        )


def direct(path: Path) -> Iterator[Finding]:
    """Whether a file that is to be made could be had without the page cache."""
    if path.exists():
        return
    flags = os.O_TMPFILE | os.O_DIRECT | os.O_RDWR | os.O_CLOEXEC
    try:
        os.close(os.open(path.parent, flags, 0o600))
    except FileNotFoundError:
        yield failure(f"{path.parent} does not exist", f"`mkdir {path.parent}`")
    except OSError as error:
        if error.errno == errno.EINVAL:
            yield failure(
                f"{path} is on a file system without O_DIRECT", "choose a place on another one"
            )
        elif error.errno != errno.EOPNOTSUPP:  # it has no files without names
            yield failure(f"{path} cannot be made: {error.strerror}", "choose another place")
    else:
        yield good(f"{path} can be made, and had without the page cache (O_DIRECT)")


def _nearest(path: Path) -> Path:
    """The path, or what is there above it."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
