"""How long a process runs, and how that looks to a person."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["age", "seconds"]

_PROC = Path("/proc")
_START = 19  # of the fields behind the name: starttime, see proc(5)


def seconds(pid: int) -> int | None:
    """For how many seconds a process runs; None if that cannot be told."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        since_boot = float((_PROC / "uptime").read_text().split()[0])
        started = int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return max(0, int(since_boot - started))


def age(value: int | None) -> str:
    """A time in seconds, short: `7s`, `5m07s`, `3h05m`, `12d03h`. `-` for None."""
    if value is None:
        return "-"
    for unit, size, less, part in _UNITS:
        if value >= size:
            return f"{value // size}{unit}{value % size // part:02}{less}"
    return f"{value}s"


_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))
