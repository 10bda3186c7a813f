"""What the kernel must have: its version, FUSE, loop devices, swap."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from vswapd.doctor.finding import Finding, failure, good, warning
from vswapd.doctor.machine import Machine

__all__ = ["fuse", "fusectl", "loop", "pressure", "swap", "version"]

_POPULATES = (5, 14)
_NOSWAP = (6, 4)
_RESENDS = (6, 9)
_DENIED = {errno.EACCES, errno.EPERM}


def version(machine: Machine) -> Iterator[Finding]:
    """Whether it has MADV_POPULATE_WRITE, and what makes takeovers safer and quicker.

    What `vswap.memfile` wants of the kernel the unit has by MemorySwapMax=0 too, in cgroups v2.
    """
    name = f"the kernel is Linux {machine.release}"
    if machine.version == (0, 0):
        yield warning("the kernel does not tell its version", "Linux 5.14 or newer is needed")
    elif machine.version < _POPULATES:
        yield failure(f"{name}, which has no MADV_POPULATE_WRITE", "install 5.14 or newer")
    elif machine.version < _NOSWAP:
        yield good(
            f"{name}; before 6.4 only the unit vswap@ keeps what a killed worker has just stored "
            "from being swapped out"
        )
    elif machine.version < _RESENDS:
        yield good(f"{name}; from 6.9 on the end of a worker is noticed sooner")
    else:
        yield good(name)


def fuse(machine: Machine) -> Iterator[Finding]:
    """Whether a connection can be had."""
    refusal = machine.refusal("dev/fuse")
    if not refusal:
        yield good("/dev/fuse can be opened")
    elif refusal in _DENIED:
        who = "root" if machine.is_root else "this user"
        yield failure(f"/dev/fuse may not be opened by {who}", "`ls -l /dev/fuse` tells by whom")
    else:
        yield failure(
            f"/dev/fuse cannot be opened ({errno.errorcode.get(refusal, refusal)})",
            "load the kernel's module with `modprobe fuse`",
        )


def fusectl(machine: Machine) -> Iterator[Finding]:
    """Whether a connection could be ended by hand, which frees whoever waits for it."""
    if any(mount.fstype == "fusectl" for mount in machine.mounts()):
        yield good("FUSE connections can be aborted by hand (fusectl is mounted)")
    else:
        yield warning(
            "fusectl is not mounted: the connection of a daemon that hangs could not be aborted",
            "`mount -t fusectl none /sys/fs/fuse/connections`",
        )


def loop(machine: Machine) -> Iterator[Finding]:
    """Whether a loop device can be had, which swap needs."""
    refusal = machine.refusal("dev/loop-control")
    if not refusal:
        yield good("/dev/loop-control can be opened")
    elif refusal in _DENIED and not machine.is_root:
        yield warning("/dev/loop-control may not be opened by this user", "`up` needs root")
    elif refusal in _DENIED:
        yield failure(
            "/dev/loop-control may not be opened by root",
            "give this container the device, or run `vswap up` on its host",
        )
    else:
        yield failure(
            f"/dev/loop-control cannot be opened ({errno.errorcode.get(refusal, refusal)})",
            "load the kernel's module with `modprobe loop`",
        )


def swap(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel can swap at all."""
    if machine.swaps() is None:
        yield failure(
            "the kernel knows no swap (there is no /proc/swaps)",
            "use one that is built with CONFIG_SWAP",
        )
    else:
        yield good("the kernel can swap")


def pressure(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel tells how much is waited for memory. Nothing of ours needs it."""
    text = machine.text("proc/pressure/memory")
    if text is None:
        yield good("there is no /proc/pressure/memory (the kernel's option psi=1 makes it)")
        return
    some = dict(part.partition("=")[::2] for part in text.splitlines()[0].split()[1:])
    yield good(f"{some['avg60']} % of the last minute something waited for memory")
