"""Processor time that swapping takes, wherever it is spent, and how much was swapped for it.

A device's work is done in many places: zram compresses in the name of the process that runs
short of memory, a FUSE server in its own, the loop device in a kernel thread, and the kernel
reclaims in either. So all that the machine was busy with is counted (/proc/stat: user, nice,
system, irq, softirq), and only what the hog did for itself is taken off: its user time, and the
time in which it read its source. What an idle machine does is not taken off.

Swapped are the pages that went to swap and came back. Pages that zswap kept are in zswpout and
zswpin alone (mm/page_io.c); one that it wrote to its device later is in pswpout as well, and
in zswpwb (mm/zswap.c).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer
from vswap.geometry import PAGE_SIZE

__all__ = ["Moment", "moment"]

_STAT = Path("/proc/stat")
_VMSTAT = Path("/proc/vmstat")
_TICKS = os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6)  # of the fields of the first line


@dataclass(frozen=True)
class Moment:
    """Counts up to a moment: seconds of all processors and of the peer's, bytes swapped."""

    busy: float
    serving: float
    swapped: int

    def __sub__(self, before: Moment) -> Moment:
        """What came between two moments."""
        return Moment(
            self.busy - before.busy, self.serving - before.serving, self.swapped - before.swapped
        )


def moment(peer: Peer) -> Moment:
    """The counts now."""
    return Moment(_busy_seconds(), peer.cpu_seconds_ever(), _swapped_pages() * PAGE_SIZE)


def _busy_seconds() -> float:
    ticks = _STAT.read_text().partition("\n")[0].split()[1:]
    return sum(int(ticks[field]) for field in _BUSY) / _TICKS


def _swapped_pages() -> int:
    """In both directions."""
    lines = (line.split() for line in _VMSTAT.read_text().splitlines())
    count = {name: int(value) for name, value in lines}
    into_zswap = count.get("zswpout", 0) - count.get("zswpwb", 0)
    return count["pswpin"] + count["pswpout"] + count.get("zswpin", 0) + into_zswap
