"""Find vswap's mounts, and touch them without being caught by a daemon that hangs.

A process that waits for an answer over FUSE cannot even be killed once the daemon has taken
its request. So no command opens or stats anything on a mount itself: mounts are found in
mountinfo, loop devices in sysfs, and files are read by a child that is killed when its time
is up, and not waited for if it does not go.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vswap.errors import UserError
from vswapd.paths import absolute, target
from vswapd.swapdev import Ended, run_program, unescape

__all__ = [
    "ANSWER_SECONDS",
    "FSTYPE",
    "Device",
    "devices",
    "failure",
    "find_device",
    "holders",
    "is_mount_point",
    "is_of_root",
    "loop_devices",
    "loops_of",
    "mount_points",
    "parse_mountinfo",
    "read_file",
    "resolve",
    "says",
    "top_mount",
]

FSTYPE = "fuse.vswap"
ANSWER_SECONDS = 5.0
_MOUNTINFO = Path("/proc/self/mountinfo")
_SYS_BLOCK = Path("/sys/block")
_MAX_LINKS = 40


@dataclass(frozen=True)
class Device:
    """A vswap device that is mounted, whether or not its daemon still answers."""

    name: str
    mount: str


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. `device` is the "major:minor" that tells mounts of one thing.

    `options` are the file system's own.
    """

    device: str
    root: str
    point: str
    fstype: str
    source: str
    options: str


def parse_mountinfo(text: bytes) -> Iterator[Mount]:
    """The mounts in `text`, proc(5)'s mountinfo: a later one may cover an earlier one."""
    for line in text.splitlines():
        mount, separator, origin = line.partition(b" - ")
        fields, origins = mount.split(b" "), origin.split(b" ")
        if separator and len(fields) >= 6 and len(origins) >= 3:
            named = (fields[2], fields[3], fields[4], *origins[:3])
            yield Mount(*map(unescape, named))


def devices() -> list[Device]:
    """The vswap devices mounted here, in the order of mounting; bind mounts are left out.

    So are those of other users than ourselves and root: nobody but they can use them, and
    they could take any name.
    """
    trusted = {f"user_id={user}" for user in (0, os.geteuid())}
    found: dict[str, Device] = {}
    for mount in parse_mountinfo(_MOUNTINFO.read_bytes()):
        ours = trusted.intersection(mount.options.split(","))
        if mount.fstype == FSTYPE and mount.root == "/" and ours:
            found.setdefault(mount.device, Device(mount.source, mount.point))
    return list(found.values())


def is_of_root(device: Device) -> bool:
    """Whether root has mounted a device: then nobody else can take it down."""
    mounts = parse_mountinfo(_MOUNTINFO.read_bytes())
    return any(m.point == device.mount and "user_id=0" in m.options.split(",") for m in mounts)


def mount_points(fstype: str) -> list[str]:
    """Where file systems of a type are mounted."""
    return [m.point for m in parse_mountinfo(_MOUNTINFO.read_bytes()) if m.fstype == fstype]


def top_mount(path: str) -> str | None:
    """What tells the mount that is seen at `path` from all others; None if nothing is."""
    mounts = parse_mountinfo(_MOUNTINFO.read_bytes())
    found = [mount.device for mount in mounts if mount.point == path]
    return found[-1] if found else None


def is_mount_point(path: str) -> bool:
    """Whether anything is mounted at `path`, an absolute path as `resolve` returns it."""
    return any(mount.point == path for mount in parse_mountinfo(_MOUNTINFO.read_bytes()))


def resolve(path: str) -> str:
    """`path` as mountinfo has it: absolute, and without symbolic links.

    Unlike `os.path.realpath` it does not touch what is mounted at the path itself. Raises
    `UserError` for what cannot be a path here.
    """
    point = absolute(path)
    for _ in range(_MAX_LINKS):
        if point.name in ("", ".."):
            return os.path.realpath(point)
        point = Path(os.path.realpath(point.parent)) / point.name
        link = None if is_mount_point(str(point)) else target(point)
        if link is None:
            return str(point)
        point = point.parent / link
    raise UserError(f"{path} leads through too many symbolic links")


def find_device(selector: str | None) -> Device:
    """The device with this name or mount point; without either, the only one there is.

    Raises `UserError`, which tells what is there.
    """
    present = devices()
    if selector is None:
        matching = present
    elif "/" in selector:
        point = resolve(selector)
        matching = [device for device in present if device.mount == point]
    else:
        matching = [device for device in present if device.name == selector]
    if len(matching) == 1:
        return matching[0]
    raise UserError(_why_not_one(selector, present, matching))


def _why_not_one(selector: str | None, present: list[Device], matching: list[Device]) -> str:
    if not present:
        return "no vswap device is here; `vswap up` makes one"
    there = ", ".join(f"{device.name} at {device.mount}" for device in matching or present)
    if matching and selector is not None:
        return f"several devices are called {selector}; give the mount point of one: {there}"
    if matching:
        return f"there are several devices; name one of: {there}"
    return f"no device {selector}; there is: {there}"


def loop_devices(device: Device) -> list[str]:
    """The loop devices (`/dev/loopN`) that are attached to the device's swap file."""
    return loops_of(device.mount)


def loops_of(mount: str) -> list[str]:
    """`loop_devices` of what is mounted there."""
    swap_file = os.fsencode(mount) + b"/swap"
    found = []
    for entry in sorted(_SYS_BLOCK.glob("loop*")):
        with suppress(FileNotFoundError):  # detached ones have no such directory
            backing = (entry / "loop/backing_file").read_bytes()
            if backing.removesuffix(b"\n") == swap_file:
                found.append(f"/dev/{entry.name}")
    return found


def holders(mount: str) -> list[str]:
    """Processes with a file on the mount open or in it, as `name (pid)`, for messages.

    Reads links in /proc only, which does not touch the mount.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is not ours to look at
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(_lies_in(str(link.readlink()), mount) for link in links):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def _lies_in(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def read_file(device: Device, name: str, timeout: float = ANSWER_SECONDS) -> bytes:
    """The contents of a small file in the mount, at most `timeout` seconds from now.

    Raises `UserError` when the daemon does not answer, is gone, or answers with an error.
    """
    ended = _on_mount(device, ["cat", "--", f"{device.mount}/{name}"], timeout)
    if ended.code:
        raise UserError(failure(device, ended))
    return ended.stdout


def _on_mount(device: Device, argv: list[str], timeout: float, stdin: bytes = b"") -> Ended:
    try:
        return run_program(argv, timeout, stdin)
    except TimeoutError:
        raise UserError(
            f"the daemon of {device.name} does not answer (waited {timeout:g} s)"
        ) from None


def failure(device: Device, ended: Ended) -> str:
    """Why a program could not do what it was to do in the mount, in one line."""
    if says(ended, errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV):
        return f"the daemon of {device.name} is gone; `vswap down {device.name}` clears the rest"
    return f"the daemon of {device.name} cannot be asked: {ended.last_line}"


def says(ended: Ended, *codes: int) -> bool:
    """Whether the last that a program said was the system's text for one of these errnos."""
    return any(ended.last_line.endswith(os.strerror(code)) for code in codes)
