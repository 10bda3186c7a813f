"""All peers by name, in the order in which they are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

from bench.build import OUT
from bench.peers.disk import swap_file
from bench.peers.kernel_zram import zram
from bench.peers.kernel_zswap import zswap
from bench.peers.libfuse import memfs, nullfs
from bench.peers.nbd import nbdkit
from bench.peers.ours import vswap
from bench.peers.peer import Peer
from bench.peers.pyfuse import pyfuse3_null
from bench.peers.settings import changed
from bench.peers.swap import PAGE_CLUSTER
from vswapd.tuning import raised

__all__ = ["FUSE_PAGE_CLUSTER", "NOT_TUNED", "PEERS", "Start", "tuned"]

FUSE_PAGE_CLUSTER = 5
"""Readahead of 32 pages, for what is reached through FUSE: a request costs more than a page."""

THREADS = min(len(os.sched_getaffinity(0)), 4)
"""Of the C file systems: as many as vswap's own default."""


NOT_TUNED = ", not tuned"
"""Ends the names of peers that get the kernel as it is."""

Start = Callable[[int], AbstractContextManager[Peer]]
"""Starts a peer of so many bytes."""


@contextmanager
def tuned(start: Start, size: int) -> Iterator[Peer]:
    """A peer in a kernel that is set as `vswap up` sets it, to be fair to all.

    But for vm.page-cluster: that is the peer's own, and set while the kernel swaps on it.
    """
    settings = {path: str(value) for path, value in raised().items() if path != PAGE_CLUSTER}
    with changed(settings), start(size) as peer:
        yield peer


@contextmanager
def _over_fuse(started: AbstractContextManager[Peer], name: str) -> Iterator[Peer]:
    """A peer under that name, with the readahead that suits its transport."""
    with started as peer:
        yield replace(peer, name=name, page_cluster=FUSE_PAGE_CLUSTER)


def _renamed(start: Start, name: str) -> Start:
    @contextmanager
    def renamed(size: int) -> Iterator[Peer]:
        with start(size) as peer:
            yield replace(peer, name=name)

    return renamed


_PEERS: Mapping[str, Start] = {
    "vswap": lambda size: _over_fuse(vswap(size), "vswap"),
    "vswap, lz4": lambda size: _over_fuse(vswap(size, codec="lz4"), "vswap, lz4"),
    "zram lz4": lambda size: zram(size, "lz4"),
    "zram zstd": lambda size: zram(size, "zstd"),
    "zswap": lambda size: zswap(size, OUT),
    "zswap lz4": lambda size: zswap(size, OUT, "lz4"),
    "swap file": lambda size: swap_file(size, OUT),
    "nbdkit zstd": lambda size: _over_fuse(nbdkit(size), "nbdkit zstd"),
    "uncompressed C": lambda size: _over_fuse(memfs(size, THREADS, OUT), "uncompressed C"),
    "do-nothing C": lambda size: nullfs(size, THREADS, OUT),
    "pyfuse3": pyfuse3_null,
}
_AS_THE_KERNEL_IS: Mapping[str, Start] = {
    "vswap": vswap,
    "do-nothing C": lambda size: nullfs(size, THREADS, OUT),
}

PEERS: Mapping[str, Start] = {
    **{name: partial(tuned, start) for name, start in _PEERS.items()},
    **{
        name + NOT_TUNED: _renamed(start, name + NOT_TUNED)
        for name, start in _AS_THE_KERNEL_IS.items()
    },
}
"""Each starts a peer of so many bytes; what the machine lacks is a `PeerError`."""
