"""Taking the backing away from a device that has so many pages on it."""

from __future__ import annotations

import time
from pathlib import Path

from bench.measure import load
from bench.peers import PeerError, Vswap
from bench.report import Figures
from vswap.geometry import PAGE_SIZE

__all__ = ["drain"]

_POLL_SECONDS = 0.005
_SECONDS = 300.0


def drain(peer: Vswap, corpus_file: Path, pages: int) -> Figures:
    """Write so many pages, have all of them written back, detach: seconds, visits and reads.

    Raises `PeerError` if it does not come to its end.
    """
    load(peer.device, corpus_file, pages * PAGE_SIZE)
    peer.command(f"writeback page_indexes=0-{pages - 1}")
    before = peer.stats()
    began = time.monotonic()
    peer.command("backing detach")
    while (stats := peer.stats())["backing_state"] == "detaching":
        if time.monotonic() - began > _SECONDS:
            raise PeerError("detaching does not come to its end")
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - began
    if stats["detach_result"] != "detached":
        raise PeerError(f"detaching has ended: {stats['detach_result']}")
    segments = before["backing_size"] // (1 << 20) - before["backing_segments_free"]
    return {
        "pages on disk": before["backing_pages"],
        "seconds": seconds,
        "pages/s": before["backing_pages"] / seconds,
        "clusters visited": stats["drain_visits"],
        "visits for each cluster used": stats["drain_visits"] / before["clusters_used"],
        "disk segments read": stats["drain_reads"],
        "reads for each disk segment used": stats["drain_reads"] / segments,
    }
