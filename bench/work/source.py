"""The corpus, held in memory.

Programs that are measured read it around their cgroup's limit: its pages are charged to who
wrote them. And they read it without a disk in between. While a hog waits for a disk, a device
that works in the background gets on with what it was given before; the time that it has then
would be subtracted as the source's, and a device that works within the writer's own call has
no such time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["in_memory"]


@contextmanager
def in_memory(file: Path) -> Iterator[Path]:
    """A copy of a file in memory, by a path that every program of ours can open."""
    handle = os.memfd_create(file.name, os.MFD_CLOEXEC)
    try:
        with file.open("rb") as original, open(handle, "wb", closefd=False) as copy:
            shutil.copyfileobj(original, copy)
        yield Path(f"/proc/{os.getpid()}/fd/{handle}")
    finally:
        os.close(handle)
