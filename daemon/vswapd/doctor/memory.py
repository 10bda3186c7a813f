"""How much memory there is, in the machine and for the cgroup that the daemon would be in."""

from __future__ import annotations

from collections.abc import Iterator

from vswapd.config import MANY, default_spares
from vswapd.doctor.finding import Finding, failure, good, warning
from vswapd.doctor.machine import Machine

__all__ = ["cgroup", "spares"]

_NO_LIMIT = 1 << 60  # version 1 writes the highest multiple of a page


def spares(machine: Machine) -> Iterator[Finding]:
    """How many processes are kept for a worker's end (`--spares`)."""
    memory = machine.memory()
    if memory is None:
        yield failure("how much memory there is cannot be told", "mount /proc")
        return
    count, there = default_spares(memory), f"there are {memory >> 20} MiB of memory"
    if count == MANY:
        yield good(f"{there}, enough for all spare processes (--spares {count})")
    elif count:
        yield good(f"{there}: a standby is kept, and nothing that forks the next one (--spares 1)")
    else:
        yield warning(
            f"{there}: no standby is kept (--spares 0), so when a worker ends all wait for seconds",
            "give the machine 300 MiB or more",
        )


def cgroup(machine: Machine) -> Iterator[Finding]:
    """What the cgroup of this process allows, for `up` leaves the daemon in it."""
    limit = _least(machine, "memory.max", "memory.limit_in_bytes")
    if limit is None:
        yield good("this cgroup has no memory limit")
    else:
        yield warning(
            f"this cgroup may take {limit >> 20} MiB, and a daemon that is started from it counts "
            "in full",
            "start it from another one, or as a service",
        )
    swap = _least(machine, "memory.swap.max")
    if swap == 0:
        yield good("this cgroup does not swap (memory.swap.max is 0), which suits the daemon")


def _least(machine: Machine, *names: str) -> int | None:
    """The least limit of our cgroups and those above them, in bytes; None if there is none."""
    found = []
    for mount, path in _own_groups(machine):
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            for name in names:
                place = "/".join([mount.strip("/"), *parts[:depth], name])
                text = machine.text(place)
                if text not in (None, "", "max"):
                    found.append(int(text or 0))
    return min((limit for limit in found if limit < _NO_LIMIT), default=None)


def _own_groups(machine: Machine) -> Iterator[tuple[str, str]]:
    """Where our memory cgroup is: the mount point of its kind, and its path there."""
    mounts = machine.mounts()
    for line in (machine.text("proc/self/cgroup") or "").splitlines():
        _number, kinds, path = line.split(":", 2)
        fstype = "cgroup" if kinds else "cgroup2"
        if kinds and "memory" not in kinds.split(","):
            continue
        for mount in mounts:
            if mount.fstype == fstype and (not kinds or "memory" in mount.options.split(",")):
                yield mount.point, path
