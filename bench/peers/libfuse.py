"""C programs on libfuse: the limit of the transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.build import BuildError, build
from bench.peers import processes
from bench.peers.peer import Peer, PeerError, Stored
from bench.peers.served import loop, mount_point, served
from vswap.geometry import PAGE_SIZE

__all__ = ["Memfs", "memfs", "nullfs"]


@dataclass(frozen=True)
class Memfs(Peer):
    """A file kept in memory as it is, of `size` bytes."""

    size: int = field(kw_only=True)

    def stored(self) -> Stored:
        """The pages that were written and not given back."""
        pool = processes.resident(self.pids[0], self.size)
        return Stored(pool // PAGE_SIZE, pool, max(0, self.pss()["Pss"] - pool))


@contextmanager
def _c_file_system(
    name: str, size: int, threads: int, programs: Path
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A program of bench/c, serving: the device, and its processes. Raises `PeerError`."""
    try:
        program = build(name, programs)
    except BuildError as error:
        raise PeerError(str(error)) from None
    argv = [str(program), "--size", str(size), "--threads", str(threads)]
    with (
        mount_point() as mount,
        served([*argv, str(mount)], mount) as pids,
        loop(mount / "swap") as device,
    ):
        yield device, pids


@contextmanager
def nullfs(size: int, threads: int, programs: Path) -> Iterator[Peer]:
    """The file system that does nothing: no store can be faster. Raises `PeerError`."""
    with _c_file_system("nullfs", size, threads, programs) as (device, pids):
        yield Peer("do-nothing C", device, True, pids, None, keeps=False)


@contextmanager
def memfs(size: int, threads: int, programs: Path) -> Iterator[Memfs]:
    """The file system that keeps pages as they are. Raises `PeerError`."""
    with _c_file_system("memfs", size, threads, programs) as (device, pids):
        yield Memfs("uncompressed C", device, True, pids, None, size=size)
