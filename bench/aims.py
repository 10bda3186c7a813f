"""What vswap should reach beside its peers: ratios of medians of one run, as data."""

from __future__ import annotations

from dataclasses import dataclass

from bench.record import Record
from bench.report import Aim, median
from bench.shown import OURS, SHOWN

__all__ = ["AIMS", "Claim", "Judged", "judge"]

DO_NOTHING = "do-nothing C"
UNCOMPRESSED = "uncompressed C"
NBDKIT = "nbdkit zstd"
ZRAM = "zram lz4"
SWAP_FILE = "swap file"


@dataclass(frozen=True)
class Claim:
    """An aim for a figure of ours: for its ratio to a peer's, or for itself without a base."""

    figure: str
    aim: Aim
    base: str | None = None

    def words(self) -> str:
        """What is claimed."""
        shown, bound = SHOWN[self.figure], f"{self.aim.bound:g}"
        least = "at most" if self.aim.at_most else "at least"
        what = bound if self.base is None else f"{bound}x {self.base}"
        return f"{shown.heading}, {shown.unit}: {least} {what}"


@dataclass(frozen=True)
class Judged:
    """A claim and what a run says to it. What the run does not have is None."""

    claim: Claim
    ours: float | None
    theirs: float | None
    ratio: float | None
    met: bool | None


AIMS = (
    Claim("4K read, depth 1: mean us", Aim(1.1, at_most=True), DO_NOTHING),
    Claim("4K read, depth 16: reads/s", Aim(2.5), NBDKIT),
    Claim("4K write, depth 16: writes/s", Aim(2.5), NBDKIT),
    Claim("128K write, 2 streams: MB/s", Aim(1.0), ZRAM),
    Claim("bytes per page", Aim(0.70, at_most=True), ZRAM),
    Claim("hog, seq, in all: pages/s", Aim(1.0), ZRAM),
    Claim("hog, random, in all: pages/s", Aim(0.5), ZRAM),
    Claim("hog, random, in all: pages/s", Aim(1.5), SWAP_FILE),
    Claim("hog, seq, in all: pages/s", Aim(1.0), UNCOMPRESSED),
    Claim("hog, random, in all: pages/s", Aim(1.0), UNCOMPRESSED),
    # As `vswap down` does it (bench/work/ending.py).
    Claim("swapoff, s", Aim(2.0, at_most=True), ZRAM),
    Claim("beside the pool: MiB", Aim(64, at_most=True)),
)


def judge(record: Record) -> list[Judged]:
    """All aims against a run."""
    return [_judged(claim, record) for claim in AIMS]


def _judged(claim: Claim, record: Record) -> Judged:
    ours = median(record.results.get(OURS, ()), claim.figure)
    if claim.base is None:
        return Judged(claim, ours, None, None, None if ours is None else claim.aim.met(ours))
    theirs = median(record.results.get(claim.base, ()), claim.figure)
    ratio = ours / theirs if ours is not None and theirs else None
    return Judged(claim, ours, theirs, ratio, None if ratio is None else claim.aim.met(ratio))
