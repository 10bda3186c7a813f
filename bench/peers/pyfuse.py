"""A do-nothing pyfuse3 file system: what Python's own FUSE library can do at best."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.peer import Peer
from bench.peers.served import loop, mount_point, served

__all__ = ["pyfuse3_null"]


@contextmanager
def pyfuse3_null(size: int) -> Iterator[Peer]:
    """bench/pyfuse3_null.py, serving. Raises `PeerError`."""
    argv = [sys.executable, "-m", "bench.pyfuse3_null", "--size", str(size)]
    with (
        mount_point() as mount,
        served([*argv, str(mount)], mount) as pids,
        loop(mount / "swap") as device,
    ):
        yield Peer("pyfuse3", device, True, pids, None, discard=False, keeps=False)
