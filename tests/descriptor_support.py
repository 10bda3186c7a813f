"""Descriptors as /proc shows them: this process's, and those of a device's memory files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["memory_file", "open_descriptors"]


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_file(pid: int, name: str) -> Path:
    """The memory file `vswap-NAME` of a process, of either sort, to be read or looked at."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if link.readlink().name.removeprefix("memfd:") == f"vswap-{name} (deleted)":
                return link
    raise AssertionError(f"process {pid} has no memory file vswap-{name}")
