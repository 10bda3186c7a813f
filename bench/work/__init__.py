"""What is done to the peers, by name. Each sort of work starts on a new peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.measure import MIB
from bench.peers import Peer
from bench.report import Figures
from bench.work.ending import end_swap
from bench.work.hogging import press_memory
from bench.work.plan import PLAN, QUICK, Plan
from bench.work.requests import make_requests
from bench.work.source import in_memory

__all__ = ["PLAN", "QUICK", "SORTS", "Plan", "Work", "in_memory", "works"]

SORTS = ("fio", "hog", "swapoff")


@dataclass(frozen=True)
class Work:
    """Something that is measured: on a new peer of `size` bytes, with the corpus in a file.

    It is of one of the `SORTS`, and wants a block device of its own, or to swap.
    """

    name: str
    sort: str
    size: int
    swaps: bool
    measure: Callable[[Peer, Path], Figures]

    def suits(self, peer: Peer) -> bool:
        """Whether such a peer can be measured so."""
        return peer.keeps if self.swaps else peer.block


def works(plan: Plan) -> tuple[Work, ...]:
    """All there are, in that extent. There is room on a swap device beside the pages' own."""
    hogs = (
        Work(
            f"hog, {order}",
            "hog",
            2 * plan.hog_mib * MIB,
            True,
            partial(press_memory, hog=plan.hog(order)),
        )
        for order in ("seq", "random")
    )
    return (
        Work("fio", "fio", plan.requests_mib * MIB, False, partial(make_requests, plan=plan)),
        *hogs,
        Work(
            "swapoff",
            "swapoff",
            plan.held_mib * MIB * 5 // 4,
            True,
            partial(end_swap, hog=plan.held()),
        ),
    )
