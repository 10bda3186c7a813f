"""What /proc tells of the processes that serve a device."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = [
    "alive",
    "cpu_seconds",
    "cpu_seconds_ever",
    "family",
    "kill",
    "minor_faults",
    "names",
    "pss",
    "resident",
    "threads_of",
]

_PROC = Path("/proc")
_KILL_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> tuple[int, ...]:
    """A process and all that descend from it now, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                parent = int(_stat(entry)[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked
        found += children.get(member, ())
    return tuple(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of all threads that there are, so far, to the nanosecond."""
    tasks = (task for pid in pids for task in (_PROC / str(pid)).glob("task/*/schedstat"))
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def cpu_seconds_ever(pids: Iterable[int]) -> float:
    """Processor time so far, of threads that have ended too, to the clock tick."""
    return sum(sum(map(int, _stat(_PROC / str(pid))[11:13])) for pid in pids) / _TICKS


def pss(pids: Iterable[int]) -> Counter[str]:
    """Bytes of memory by sort, as smaps_rollup names it: `Pss`, and `Pss_Shmem` of it."""
    total: Counter[str] = Counter()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
                name, kib, *_ = line.split()
                total[name.rstrip(":")] += int(kib) << 10
    return total


def resident(pid: int, size: int) -> int:
    """Bytes in memory of the process's mapping of that size, which must be the only one."""
    within = False
    for line in (_PROC / str(pid) / "smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            start, end = (int(address, 16) for address in name.split("-"))
            within = end - start == size
        elif within and name == "Rss:":
            return int(values[0]) << 10
    raise ValueError(f"process {pid} has no mapping of {size} bytes")


def minor_faults(pid: int, thread: int) -> int:
    """Minor page faults of a thread so far."""
    return int(_stat(_PROC / str(pid) / "task" / str(thread))[7])


def names(pids: Iterable[int]) -> list[str]:
    """What each calls itself; nothing for one that has ended."""
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append((_PROC / str(pid) / "comm").read_text().strip())
    return found


def threads_of(pid: int) -> list[int]:
    """The kernel's numbers of a process's threads."""
    return [int(task.name) for task in (_PROC / str(pid) / "task").iterdir()]


def alive(pids: Iterable[int]) -> list[int]:
    """Those that have not ended; one whose parent has not asked yet how it ended has."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if _stat(_PROC / str(pid))[0] != "Z":
                found.append(pid)
    return found


def kill(pids: Iterable[int]) -> None:
    """End them at once, whatever they do. Returns when they have ended, but for a stuck one."""
    ending = []
    for pid in pids:
        with suppress(ProcessLookupError):
            ending.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(ending[-1], signal.SIGKILL)
    until = time.monotonic() + _KILL_SECONDS
    for fd in ending:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(1000 * max(0.0, until - time.monotonic()))
        os.close(fd)


def _stat(entry: Path) -> list[str]:
    """The fields of `stat` from the state on; the name before it may hold anything."""
    return (entry / "stat").read_text().rpartition(")")[2].split()
