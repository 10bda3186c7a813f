"""zswap: the kernel's compressed cache in front of a swap device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.disk import swap_file
from bench.peers.peer import Peer, PeerError, Stored
from bench.peers.settings import changed
from vswap.geometry import PAGE_SIZE

__all__ = ["Zswap", "without_zswap", "zswap"]

_PAGE_CLUSTER = 0
"""No readahead: with the kernel's default a small cgroup is often killed for want of memory, and
what is read ahead costs zswap as much as what is asked for."""

MAX_POOL_PERCENT = 20  # of the machine's memory: the kernel's default
_PARAMETERS = Path("/sys/module/zswap/parameters")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Zswap(Peer):
    """zswap in front of a swap file. `before` is what it held for others."""

    before: Stored = field(kw_only=True)

    def stored(self) -> Stored:
        """Pages in zswap's pool, not those it has written to the file.

        The pool is what the kernel takes for their data; its entries, some 60 bytes for each
        page, it does not count.
        """
        now = _held()
        return Stored(now.pages - self.before.pages, now.pool - self.before.pool, 0)


def _held() -> Stored:
    """What zswap holds for all devices. Raises `PeerError` before Linux 5.19."""
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    kib = {name: int(value) for name, value, *_ in lines}
    if "Zswapped:" not in kib:
        raise PeerError("this kernel does not tell what zswap holds (Linux 5.19 does)")
    return Stored((kib["Zswapped:"] << 10) // PAGE_SIZE, kib["Zswap:"] << 10, 0)


def without_zswap() -> dict[Path, str]:
    """Settings in which zswap takes nothing in."""
    enabled = _PARAMETERS / "enabled"
    return {enabled: "N"} if enabled.exists() else {}


@contextmanager
def zswap(
    size: int,
    directory: Path,
    compressor: str | None = None,
    pool_percent: int = MAX_POOL_PERCENT,
) -> Iterator[Zswap]:
    """zswap in front of a swap file in that directory.

    Without a compressor it is the one that the machine is set to. Its pool may take
    `pool_percent` of the machine's memory. Raises `PeerError` where the
    kernel has no zswap, or not that compressor, or what `swap_file` raises.
    """
    if not _PARAMETERS.is_dir():
        raise PeerError("this kernel has no zswap")
    choice = _PARAMETERS / "compressor"
    wanted = compressor or choice.read_text().strip()
    settings = {
        choice: wanted,
        _PARAMETERS / "max_pool_percent": str(pool_percent),
        _PARAMETERS / "enabled": "Y",
    }
    with swap_file(size, directory) as file, changed(settings):
        # Set before zswap was first enabled, a name is only looked up, and replaced, by that.
        if (has := choice.read_text().strip()) != wanted:
            raise PeerError(f"no zswap with {wanted}, only with {has}")
        name = f"zswap {compressor}" if compressor else "zswap"
        yield Zswap(name, file.device, False, (), _PAGE_CLUSTER, discard=False, before=_held())
