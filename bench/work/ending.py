"""How long it takes to end swap on a peer that has nearly all the pages of a process.

The process fills its memory in a small cgroup and waits. Then the cgroup's limit is raised, so
that all pages fit; swapoff brings them back; and the process checks every one of them.

On vswap that is done twice: as `vswap down` does it, which has pages read ahead of swapoff, and
with swapoff alone, as on all other peers. What a person waits for is its figure `swapoff`.
"""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cgroup import MemoryCgroup
from bench.hog import Hog, HogError, judged
from bench.measure import MIB
from bench.peers import Peer, PeerError, Vswap, swapping
from bench.report import Figures
from bench.work.memory import memory
from vswap.geometry import PAGE_SIZE
from vswapd.cli.ahead import worthwhile
from vswapd.swapdev import SwapArea, room_for_swapoff, swap_area

__all__ = ["end_swap"]

KILL_SECONDS = 10.0


def end_swap(peer: Peer, source: Path, hog: Hog) -> Figures:
    """Fill, end swap, check. The memory of the pages is taken before the end.

    Raises `HogError` for a wrong page, and `PeerError` where there is no room to bring them back.
    """
    ours = isinstance(peer, Vswap)
    found = _ended(peer, source, hog, ahead=ours)
    figures = {f"swapoff, {name}": value for name, value in found.items()}
    if ours:
        figures["swapoff alone, s"] = _ended(peer, source, hog, ahead=False)["s"]
    return figures


def _ended(peer: Peer, source: Path, hog: Hog, *, ahead: bool) -> Figures:
    with swapping(peer) as swap, hog.group() as group, _held(group, source, hog) as process:
        area = _area(peer)
        stored = memory(peer)
        group.set_limit(2 * hog.mib * MIB)
        seconds = swap.off(ahead=ahead and worthwhile(area))
        output, errors = process.communicate("\n", timeout=hog.seconds)
        done = subprocess.CompletedProcess(hog.command(source), process.returncode, output, errors)
        if judged(done, group.oom_kills() > 0).killed:
            raise HogError("the hog was killed after the end of swap")
    return {
        "s": seconds,
        "pages/s": area.used / PAGE_SIZE / seconds,
        "MiB": area.used / MIB,
        **stored,
    }


def _area(peer: Peer) -> SwapArea:
    """What is on the peer. Raises `PeerError` when that would not fit the machine's memory."""
    area = swap_area(peer.device)
    if area is None:
        raise PeerError(f"{peer.device} is not swapped on")
    if missing := room_for_swapoff(area):
        raise PeerError(f"swapoff wants {missing >> 20} MiB more than this machine has")
    return area


@contextmanager
def _held(group: MemoryCgroup, source: Path, hog: Hog) -> Iterator[subprocess.Popen[str]]:
    """A hog that has filled its memory and waits. Raises `HogError` if it does not get there."""
    process = group.start(hog.command(source), capture=True, talk=True)
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], hog.seconds)
        if not readable or process.stdout.readline() != "filled\n":
            raise HogError("the hog did not fill its memory")
        yield process
    finally:
        process.kill()
        process.communicate(timeout=KILL_SECONDS)
