"""Memory cgroups that swapoff would burst.

swapoff brings each page back into the cgroup that it came from. One whose limit is too low
for that gets the OOM killer, seen on Linux 6.18: the machine has memory enough, swapoff
fails with ENOMEM, and the processes are dead. So limits are looked at beforehand.

===========  ====================  =============================
             version 2             version 1
===========  ====================  =============================
limit        memory.max            memory.limit_in_bytes
used         memory.current        memory.usage_in_bytes
swapped out  memory.swap.current   memory.stat: total_swap
===========  ====================  =============================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vswapd.mounts import mount_points

__all__ = ["Group", "groups", "tightest"]

_NO_LIMIT = 1 << 60  # version 1 writes the highest multiple of a page


@dataclass(frozen=True)
class Group:
    """A cgroup that has a memory limit. Sizes in bytes.

    `swapped` counts what is on any swap area and not in memory as well; `file` is the page
    cache, which the kernel drops before it kills.
    """

    path: str
    limit: int
    used: int
    file: int
    swapped: int

    def missing(self, elsewhere: int) -> int:
        """By how much the limit is too low if `elsewhere` bytes can stay swapped out."""
        return max(0, self.swapped - elsewhere - (self.limit - self.used + self.file))


def tightest(found: Iterable[Group], elsewhere: int) -> Group | None:
    """The group that misses most, or None if none misses anything.

    `elsewhere` is the size of all other swap areas: a group's pages may all be there. So
    only what is sure is refused, and with a single area that is all there is to know.
    """
    worst = max(found, key=lambda group: group.missing(elsewhere), default=None)
    return worst if worst and worst.missing(elsewhere) else None


def groups() -> Iterator[Group]:
    """All cgroups with a memory limit, of either version."""
    for fstype, names in _FILES.items():
        for root in mount_points(fstype):
            for directory, _directories, files in os.walk(root):
                if names.limit in files:
                    with suppress(OSError):  # it was removed meanwhile
                        yield from _read(Path(directory), root, names)


@dataclass(frozen=True)
class _Names:
    """What a version's files are called; `prefix` marks what includes the groups below."""

    limit: str
    used: str
    swapped: str | None
    prefix: str


_FILES = {
    "cgroup2": _Names("memory.max", "memory.current", "memory.swap.current", ""),
    "cgroup": _Names("memory.limit_in_bytes", "memory.usage_in_bytes", None, "total_"),
}


def _read(directory: Path, root: str, names: _Names) -> Iterator[Group]:
    text = (directory / names.limit).read_text().strip()
    if text == "max" or int(text) >= _NO_LIMIT:
        return
    lines = (line.split() for line in (directory / "memory.stat").read_text().splitlines())
    stat = {key: int(value) for key, value in lines}

    def counted(name: str) -> int:
        return stat.get(names.prefix + name, 0)

    swapped = int((directory / names.swapped).read_text()) if names.swapped else counted("swap")
    yield Group(
        path="/" + str(directory.relative_to(root)),
        limit=int(text),
        used=int((directory / names.used).read_text()),
        file=counted("active_file") + counted("inactive_file"),
        swapped=swapped - counted("swapcached"),
    )
