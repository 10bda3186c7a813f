"""Swapping on a peer, and how long it takes to end it.

What is undone is undone in the one order that always works: swapoff, losetup -d, umount,
and the server's death. A swapoff that takes too long has the server killed first: what waits
for it fails then, and does not hang.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.kernel_zswap import Zswap, without_zswap
from bench.peers.peer import Peer, PeerError
from bench.peers.processes import kill
from bench.peers.served import program
from bench.peers.settings import changed
from vswapd.cli.ahead import reading_ahead
from vswapd.swapdev import start_swapoff, swap_area, swap_areas

__all__ = ["PAGE_CLUSTER", "Swap", "swapping"]

KERNELS_OWN = 3  # vm.page-cluster as the kernel starts (mm/swap.c: swap_setup)
PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
_SWAPOFF_SECONDS = 300.0
_KILLED_SECONDS = 30.0


@dataclass(frozen=True)
class Swap:
    """A peer that is being swapped on."""

    peer: Peer

    def off(self, *, ahead: bool = False) -> float:
        """End it, for good, and bring every page back; the seconds that took.

        With pages read `ahead` of swapoff, as `vswap down` has them. Raises `RuntimeError` if
        it fails. The peer's processes are dead then if they were what it waited for.
        """
        began = time.monotonic()
        with ExitStack() as helped:
            if ahead:
                helped.enter_context(reading_ahead(self.peer.pids)).leads(_SWAPOFF_SECONDS)
            process = start_swapoff(self.peer.device)
            try:
                _, said = process.communicate(timeout=_SWAPOFF_SECONDS)
            except BaseException:
                kill(self.peer.pids)
                process.communicate(timeout=_KILLED_SECONDS)
                raise
        if process.returncode:
            raise RuntimeError(f"swapoff {self.peer.device}: {said.decode().strip()}")
        return time.monotonic() - began


@contextmanager
def swapping(peer: Peer) -> Iterator[Swap]:
    """Swap on a peer before any other device, with its own vm.page-cluster meanwhile.

    zswap is in front of it only if that is what the peer is. Raises `PeerError`.
    """
    if not peer.keeps:
        raise PeerError(f"{peer.name} does not keep what is written")
    with changed(_settings(peer)):
        program("mkswap", peer.device)
        swap = Swap(peer)
        try:
            discard = ["--discard"] if peer.discard else []
            program("swapon", *discard, "--priority", str(_first_priority()), peer.device)
            yield swap
        finally:
            if swap_area(str(Path(peer.device).resolve())):
                swap.off()


def _first_priority() -> int:
    """More than any other swap area has."""
    return 1 + max([0, *(area.priority for area in swap_areas())])


def _settings(peer: Peer) -> dict[Path, str]:
    """What the kernel is set to while it swaps on a peer."""
    cluster = KERNELS_OWN if peer.page_cluster is None else peer.page_cluster
    zswap = {} if isinstance(peer, Zswap) else without_zswap()
    return {PAGE_CLUSTER: str(cluster), **zswap}
