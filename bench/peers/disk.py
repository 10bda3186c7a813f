"""A swap file on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.peer import Peer, PeerError
from bench.peers.served import program

__all__ = ["swap_file"]


@contextmanager
def swap_file(size: int, directory: Path) -> Iterator[Peer]:
    """A file without holes, which only root can read.

    The kernel maps it to the disk's blocks once, and writes to those: no file system is in
    between. Raises `PeerError` where there is no room, or the file system has no swap files.
    """
    directory.mkdir(exist_ok=True)
    # By the name that /proc/swaps will have: without symbolic links.
    with tempfile.NamedTemporaryFile(dir=directory.resolve(), prefix="swap-") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise PeerError(f"no swap file of {size >> 20} MiB: {error.strerror}") from None
        _try_out(file.name)
        yield Peer("swap file", file.name, False, (), None, discard=False)


def _try_out(path: str) -> None:
    """Only swapon tells whether the file system can."""
    program("mkswap", path)
    program("swapon", path)
    program("swapoff", path)
