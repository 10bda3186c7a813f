"""zram: the kernel's own compressed block device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.peers.peer import Peer, PeerError, Stored
from vswap.geometry import PAGE_SIZE

__all__ = ["Zram", "zram"]

_CONTROL = Path("/sys/class/zram-control")
_BLOCK = Path("/sys/block")
_NAMES = (
    *("orig_data_size", "compr_data_size", "mem_used_total", "mem_limit"),
    *("mem_used_max", "same_pages"),
)


@dataclass(frozen=True)
class Zram(Peer):
    """One of these devices."""

    def mm_stat(self) -> dict[str, int]:
        """Documentation/admin-guide/blockdev/zram.rst."""
        text = (_BLOCK / Path(self.device).name / "mm_stat").read_text()
        return dict(zip(_NAMES, map(int, text.split()), strict=False))

    def stored(self) -> Stored:
        """Pages of one word count as data there, but lie in the table: they are left out."""
        stat = self.mm_stat()
        pages = stat["orig_data_size"] // PAGE_SIZE - stat["same_pages"]
        return Stored(pages, stat["mem_used_total"], 0)


@contextmanager
def zram(size: int, algorithm: str = "lz4") -> Iterator[Zram]:
    """A zram device of its own. Raises `PeerError` where the kernel has none, or not that codec.

    Its readers bypass readahead, so no vm.page-cluster suits it better than another.
    """
    try:
        number = (_CONTROL / "hot_add").read_text().strip()
    except OSError as error:
        raise PeerError(f"this kernel has no zram: {error.strerror}") from None
    block = _BLOCK / f"zram{number}"
    try:
        _configure(block, size, algorithm)
        yield Zram(f"zram {algorithm}", f"/dev/zram{number}", True, (), None)
    finally:
        _remove(number)


def _configure(block: Path, size: int, algorithm: str) -> None:
    choice = block / "comp_algorithm"
    try:
        choice.write_text(algorithm)
        (block / "disksize").write_text(str(size))
    except OSError as error:
        has = choice.read_text().strip()
        raise PeerError(f"no zram with {algorithm}, of {has}: {error.strerror}") from None


def _remove(number: str) -> None:
    """Whoever looks at new block devices may have it open for a moment."""
    for _ in range(100):
        with suppress(OSError):
            (_CONTROL / "hot_remove").write_text(number)
            return
        time.sleep(0.05)
    raise RuntimeError(f"/dev/zram{number} could not be removed")
