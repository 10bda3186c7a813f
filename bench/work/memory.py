"""What storing pages takes.

bytes per page      all the memory that was taken for the pages: data, maps and buffers
beside the pool     what else the serving processes have (PSS); it does not grow with the pages
"""

from __future__ import annotations

from bench.measure import MIB
from bench.peers import Peer
from bench.report import Figures

__all__ = ["BESIDE", "PER_PAGE", "memory"]

PER_PAGE = "bytes per page"
BESIDE = "beside the pool: MiB"


def memory(peer: Peer) -> Figures:
    """Both now; nothing of a peer that cannot say, or that has no pages."""
    stored = peer.stored()
    if stored is None or not stored.pages:
        return {}
    return {
        PER_PAGE: stored.pool / stored.pages,
        BESIDE: stored.beside / MIB,
    }
