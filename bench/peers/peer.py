"""What every peer is: a device, who serves it, how to swap on it, and what it holds."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from bench.peers import processes

__all__ = ["CommandError", "Peer", "PeerError", "Stored"]


class PeerError(Exception):
    """This machine has no such device. One line that says why."""


class CommandError(Exception):
    """What a daemon says to a command that it refuses."""


@dataclass(frozen=True)
class Stored:
    """What a peer holds now, and in how much memory.

    `pages` lie in its memory. `pool` is what was taken for them, in bytes: data, maps and
    buffers. `beside` is the rest of the serving processes' PSS, and 0 for the kernel's own.
    """

    pages: int
    pool: int
    beside: int


@dataclass(frozen=True)
class Peer:
    """A device that the kernel can swap on.

    `device` is what swapon is given. `block` says whether it is a block device of its own,
    which may be written to from end to end. `pids` are the processes that serve it, and none
    for the kernel's own. `page_cluster` is what vm.page-cluster is while the kernel swaps on
    it, and None the kernel's default. `discard` says whether it is told of slots that become
    free. A peer that does not `keep` what is written cannot be swapped on.
    """

    name: str
    device: str
    block: bool
    pids: tuple[int, ...]
    page_cluster: int | None
    _: KW_ONLY
    discard: bool = True
    keeps: bool = True

    def stored(self) -> Stored | None:
        """What it holds, or None if it cannot say."""
        return None

    def cpu_seconds(self) -> float:
        """Processor time of its processes' threads so far, to the nanosecond."""
        return processes.cpu_seconds(self.pids)

    def cpu_seconds_ever(self) -> float:
        """Processor time so far, of threads that have ended too, to the clock tick."""
        return processes.cpu_seconds_ever(self.pids)

    def pss(self) -> dict[str, int]:
        """Bytes of its processes' memory by sort: `Pss`, and `Pss_Shmem` of it."""
        return processes.pss(self.pids)
