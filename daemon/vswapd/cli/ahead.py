"""Having pages read ahead of swapoff (vswapd/swapin.py)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from vswapd.swapdev import SwapArea, give_up, start_program, swap_areas

__all__ = ["Reader", "reading_ahead", "worthwhile"]

_LITTLE = 16 << 20  # swapoff has done that when the program has started


def worthwhile(area: SwapArea) -> bool:
    """Whether swapoff of `area` is to be helped.

    Not if there are other areas: nobody can tell who has pages where, and those would be brought
    back as well; or, when memory is short, what is brought back would go there at once.
    """
    others = any(other.path != area.path for other in swap_areas())
    return area.used > _LITTLE and not others


class Reader:
    """The program that reads ahead, while it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """As `reading_ahead` has started it."""
        assert process.stdout is not None
        self._poll = select.poll()
        self._poll.register(process.stdout, select.POLLIN)

    def leads(self, seconds: float) -> bool:
        """Whether it is swapoff's turn, at the latest when that time is over.

        The program has said so then, or has ended.
        """
        return bool(self._poll.poll(seconds * 1000))


@contextmanager
def reading_ahead(apart: Collection[int]) -> Iterator[Reader]:
    """Read ahead while the block runs, but nothing of the processes `apart`.

    Those that serve the area belong there: they are to have no page on it, and must not be
    waited for. Our own process is always left alone. Raises `OSError` if it cannot be started.
    """
    pids = map(str, {os.getpid(), *apart})
    # By our own path, which need not be what PYTHONPATH says; and not (-P) by what lies in the
    # directory that somebody happens to be in: this runs as root.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = start_program([sys.executable, "-P", "-m", "vswapd.swapin", *pids], environment=paths)
    try:
        yield Reader(process)
    finally:
        give_up(process)
