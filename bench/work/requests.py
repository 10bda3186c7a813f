"""Requests to a block device that hold real process memory, and what storing it takes.

In this order, on a new device:

    128K write        the whole device once, which is what fills it; then the memory is looked at
    4K read           random, with one and with 16 requests in flight, by fio
    128K, 1M read     in order
    4K write          random pages of the corpus to random places
    1M write          in order
    128K overwrite    the whole device once: neighbours are neighbours again

What is in order comes in two streams. vswap is then told to move all of it down and to
compact. The memory is looked at once more; of what lies beside the pool the most counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.build import OUT, build
from bench.measure import MIB, load, read_4k, run_json
from bench.peers import Peer, PeerError, Vswap
from bench.report import Figures
from bench.work.memory import BESIDE, PER_PAGE, memory
from bench.work.plan import Plan

__all__ = ["make_requests"]

STREAMS = 2
DEPTHS = (1, 16)
SIZES = ("128K", "1M")
MOVING_DOWN = ("recompress", "compact")
ENDLESS = 16 << 30  # bytes: more than any device transfers in the seconds it is given


def make_requests(peer: Peer, source: Path, plan: Plan) -> Figures:
    """All figures of a new device. Raises `PeerError` for one that is not its own block device."""
    if not peer.block:
        raise PeerError(f"{peer.name} is not a block device of its own: it would be overwritten")
    size = plan.requests_mib * MIB
    found = {**_whole(peer, source, size, "128K write"), **memory(peer)}
    for depth in DEPTHS:
        found |= read_4k(peer, depth, plan.seconds, size)
    for block in SIZES:
        found |= _in_order(peer, source, plan.seconds, "read", block)
    for depth in DEPTHS:
        found |= _write_4k(peer, source, plan.seconds, depth)
    found |= _in_order(peer, source, plan.seconds, "write", "1M")
    found |= _whole(peer, source, size, "128K overwrite")
    if isinstance(peer, Vswap):
        for command in MOVING_DOWN:
            peer.command(command)
        found["moved down, bytes per page"] = memory(peer)[PER_PAGE]
    if BESIDE in found:
        found[BESIDE] = max(found[BESIDE], memory(peer)[BESIDE])
    return found


def _whole(peer: Peer, source: Path, size: int, name: str) -> Figures:
    wrote = load(peer.device, source, size, STREAMS)
    return {f"{name}, {STREAMS} streams: MB/s": wrote["mb_per_second"]}


def _in_order(peer: Peer, source: Path, seconds: float, mode: str, block: str) -> Figures:
    done = _blkload(peer, source, seconds, mode, block, STREAMS)
    return {f"{block} {mode}, {STREAMS} streams: MB/s": done["mb_per_second"]}


def _write_4k(peer: Peer, source: Path, seconds: float, depth: int) -> Figures:
    """Named as `read_4k` names its figures."""
    done = _blkload(peer, source, seconds, "randwrite", "4K", depth)
    return {
        f"4K write, depth {depth}: mean us": done["latency_us"]["mean"],
        f"4K write, depth {depth}: p99 us": done["latency_us"]["p99"],
        f"4K write, depth {depth}: writes/s": done["iops"],
    }


def _blkload(
    peer: Peer, source: Path, seconds: float, mode: str, block: str, streams: int
) -> dict[str, Any]:
    """For so long; each stream goes round in its part of the device."""
    return run_json(
        *(str(build("blkload", OUT)), "--device", peer.device, "--source", str(source)),
        *("--bytes", str(ENDLESS), "--seconds", str(seconds), "--rw", mode, "--block", block),
        *("--streams", str(streams), "--json"),
    )
