"""The machine that a benchmark runs on, in words."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import lz4
import lz4.block
import zstandard

from vswapd.swapdev import parse_meminfo, swap_areas

__all__ = ["describe", "other_swaps"]

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_SECONDS = 10.0
_MISSING = "not installed"


def describe() -> dict[str, str]:
    """Processor, memory, kernel, and the versions of what takes part."""
    return {
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{parse_meminfo(_MEMINFO.read_text(), 'MemTotal') / (1 << 30):.1f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "fio": _version("fio", "--version"),
        "nbdkit": _version("nbdkit", "--version"),
        "nbdfuse": _version("nbdfuse", "--version"),
        "lz4": f"{lz4.VERSION}, library {lz4.library_version_string()}",
        "zstandard": f"{zstandard.__version__}, library {'.'.join(map(str, _zstd()))}",
        "other swap": ", ".join(other_swaps()) or "none",
    }


def other_swaps() -> list[str]:
    """The swap devices that there are now."""
    return [area.path for area in swap_areas()]


def _processor() -> str:
    """The model, and whether it is a hypervisor's; of machines that name none, the architecture."""
    fields: dict[str, str] = {}
    for line in _CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    virtual = " (virtual)" if "hypervisor" in fields.get("flags", "").split() else ""
    return fields.get("model name", platform.machine()) + virtual


def _zstd() -> tuple[int, int, int]:
    found: tuple[int, int, int] = zstandard.ZSTD_VERSION
    return found


def _version(*argv: str) -> str:
    """The first line that a program prints, without its own name."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _MISSING
    said = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
    return said.removeprefix(argv[0]).strip(" -") or "unknown"
