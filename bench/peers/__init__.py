"""What is measured side by side: each peer is a context manager that gives one to swap on.

`catalogue.PEERS` has all of them by name.
"""

from __future__ import annotations

from bench.peers.kernel_zram import Zram, zram
from bench.peers.libfuse import nullfs
from bench.peers.ours import Vswap, vswap
from bench.peers.peer import CommandError, Peer, PeerError, Stored
from bench.peers.swap import Swap, swapping

__all__ = [
    "CommandError",
    "Peer",
    "PeerError",
    "Stored",
    "Swap",
    "Vswap",
    "Zram",
    "nullfs",
    "swapping",
    "vswap",
    "zram",
]
