"""What `vswap doctor` looks at: is this machine fit, and are its devices well?

A check is a function that yields findings, of a `Machine`, a device's statistics, or a path. None
changes anything. One that cannot see what it wants to see has found that: nothing a machine does
raises out of `examine`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vswapd.doctor import kernel, memory, neighbours, rights, settings
from vswapd.doctor.finding import Finding, Level, worst
from vswapd.doctor.machine import Machine

__all__ = ["CHECKS", "Finding", "Level", "Machine", "examine", "guarded", "worst"]

Check = Callable[[Machine], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "kernel": kernel.version,
    "fuse": kernel.fuse,
    "fusectl": kernel.fusectl,
    "loop": kernel.loop,
    "swap": kernel.swap,
    "pressure": kernel.pressure,
    "root": rights.root,
    "capabilities": rights.capabilities,
    "locked-memory": rights.locked_memory,
    "precedence": rights.precedence,
    "files": rights.files,
    "container": rights.container,
    "programs": rights.programs,
    "zswap": neighbours.zswap,
    "other-swap": neighbours.other_swap,
    "tuning": settings.tuned,
    "swappiness": settings.swappiness,
    "overcommit": settings.overcommit,
    "memory": memory.spares,
    "cgroup": memory.cgroup,
}
"""What is looked at on every machine, in the order in which it is told."""


def examine(machine: Machine) -> Iterator[Finding]:
    """All findings of all checks."""
    for name, check in CHECKS.items():
        yield from guarded(name, check(machine))


def guarded(name: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of the check `name`, the last of which may be that it could not go on."""
    try:
        for finding in found:
            yield replace(finding, check=name)
    except Exception as error:  # whatever a machine may say, the other checks are still of use
        remedy = "" if os.geteuid() == 0 else "look again as root"
        yield Finding(Level.WARNING, f"{name} cannot be checked: {_reason(error)}", remedy, name)


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
