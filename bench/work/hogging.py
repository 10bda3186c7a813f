"""The memory hog on a peer: how fast it gets on, and the processor time that swapping takes."""

from __future__ import annotations

from pathlib import Path

from bench.hog import Hog, HogError, run_in, speeds
from bench.peers import Peer, swapping
from bench.report import Figures
from bench.work.processor import Moment, moment

__all__ = ["press_memory"]

_GIB = 1 << 30


def press_memory(peer: Peer, source: Path, hog: Hog) -> Figures:
    """Let it run to its end on a new peer.

    Raises `HogError` for a wrong page, and when it comes to no end.
    """
    with swapping(peer), hog.group() as group:
        before = moment(peer)
        ended = run_in(group, source, hog)
        used, no_memory = moment(peer) - before, group.oom_kills() > 0
    if no_memory:
        raise HogError("the kernel killed the hog for want of memory")
    if ended.killed:
        raise HogError(f"the hog was killed, or took more than {hog.seconds:.0f} s")
    phases = ended.printed["phases"]
    own = ended.printed["user_seconds"] + sum(phase["source_seconds"] for phase in phases)
    found = {**speeds(ended.printed), **processor_time(used, own)}
    return {f"hog, {hog.order}, {name}": value for name, value in found.items()}


def processor_time(used: Moment, own: float) -> Figures:
    """For each GiB that was swapped, less the seconds that were the hog's own."""
    if not used.swapped:
        raise HogError("the hog did not have to swap: nothing to be measured")
    gib = used.swapped / _GIB
    return {
        "swapped: GiB": gib,
        "CPU: s/GiB": (used.busy - own) / gib,
        "CPU of the serving processes: s/GiB": used.serving / gib,
    }
