"""Reads of a device at rest, and while it is being cleaned.

Half of the device is discarded, in pieces of 4 to 28 KiB: each group of 8 pages keeps its
first ones. Reads go to the first page of a group, so all of them find data, and all of it is
in segments that are half dead.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.build import build
from bench.measure import OUT, load, read_4k, wait_for_rest
from bench.peers import Vswap
from bench.report import Figures
from bench.sampler import sampling
from vswap.geometry import PAGE_SIZE

__all__ = ["AT_REST", "CLEANING", "Reading", "dead_ranges", "read_disturbed"]

GROUP_PAGES = 8
KEPT_PAGES = (1, 2, 4, 6, 7)  # of each group, in turn: half on average
BLKDISCARD = 0x1277
LOOK_SECONDS = 0.25
READER_SECONDS = 10.0
AT_REST = "at rest"
BACKGROUND, PRESSING = "in the background", "memory pressing"
CLEANING = (BACKGROUND, "compact", PRESSING, "recompress")
SCARCE = 1.02  # of what is used: cleaning does not pause from nine tenths of the limit on
MOVED_DOWN = "at rest, moved down"
WORK = ("segments_cleaned", "pages_compacted", "pages_recompressed")


@dataclass(frozen=True)
class Reading:
    """How much is on the device, and for how long it is read."""

    size: int
    seconds: float

    def figures(self, peer: Vswap) -> Figures:
        """Reads of the groups' first pages, and how much of the time the cleaner worked."""
        with sampling(lambda: {n: int(peer.stats()[n]) for n in WORK}, LOOK_SECONDS) as samples:
            align = f"--blockalign={GROUP_PAGES * PAGE_SIZE}"
            found = read_4k(peer, 1, self.seconds, self.size, align)
        return {**found, "cleaning, share of the time": samples.share_changing(*WORK)}


def dead_ranges(size: int) -> Iterator[tuple[int, int]]:
    """What to discard, as (offset, length): the end of each group of pages."""
    group = GROUP_PAGES * PAGE_SIZE
    for number in range(size // group):
        kept = KEPT_PAGES[number % len(KEPT_PAGES)] * PAGE_SIZE
        yield number * group + kept, group - kept


def discard_half(peer: Vswap, size: int) -> None:
    """Discard all dead ranges beside reads, so that the cleaner has not much time for them yet."""
    handle = os.open(peer.device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        with reads(peer, size):
            for offset, length in dead_ranges(size):
                fcntl.ioctl(handle, BLKDISCARD, struct.pack("=QQ", offset, length))
    finally:
        os.close(handle)


@contextmanager
def reads(peer: Vswap, size: int) -> Iterator[None]:
    """Read during the block."""
    program = str(build("blkload", OUT))
    argv = [program, "--device", peer.device, "--rw", "randread", "--block", "4K", "--json"]
    process = subprocess.Popen([*argv, "--bytes", str(16 * size)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(READER_SECONDS)


def read_disturbed(peer: Vswap, source: Path, reading: Reading) -> dict[str, Figures]:
    """Figures of all cases, on one new device, as {case: figures}."""
    load(peer.device, source, reading.size)
    found = {AT_REST: reading.figures(peer)}
    for case in CLEANING:
        load(peer.device, source, reading.size)
        if case in (BACKGROUND, "compact"):
            discard_half(peer, reading.size)
        with cleaned(peer, case):
            found[case] = reading.figures(peer)
    wait_for_rest(peer)
    found[MOVED_DOWN] = reading.figures(peer)
    return found


def cleaned(peer: Vswap, case: str) -> AbstractContextManager[None]:
    """What makes the cleaner work during the block, besides dead space."""
    if case == BACKGROUND:
        return nullcontext()
    return pressed(peer) if case == PRESSING else commanded(peer, case)


@contextmanager
def pressed(peer: Vswap) -> Iterator[None]:
    """Leave the device hardly more memory than it uses, during the block."""
    peer.command(f"memory_limit {int(peer.stats()['mem_used_total'] * SCARCE)}")
    try:
        yield
    finally:
        peer.command("memory_limit none")


@contextmanager
def commanded(peer: Vswap, command: str) -> Iterator[None]:
    """Have the device carry out a command during the block, and wait for its end.

    Raises `CommandError` if it refuses.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(peer.command, command)
        yield
        running.result()
