"""The machine as the checks see it: files below a root, and nothing else.

So a check is a function of a tree, and a test can make one. What is not there is None; what is
there and cannot be read is an `OSError`, which `vswapd.doctor.examine` makes a finding of.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vswapd.mounts import FSTYPE, Mount, parse_mountinfo
from vswapd.swapdev import SwapArea, parse_meminfo, parse_swaps

__all__ = ["Machine"]

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP}
_PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_COLUMNS = re.compile(r"\s{2,}")


@dataclass(frozen=True)
class Machine:
    """A machine whose files begin at `root`. Every method may raise `OSError` and `ValueError`."""

    root: Path = Path("/")

    def text(self, path: str) -> str | None:
        """What a file holds, without the blanks around it; None if there is none."""
        try:
            return os.fsdecode((self.root / path).read_bytes()).strip()
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def number(self, path: str) -> int | None:
        """The number in a file."""
        text = self.text(path)
        return None if text is None else int(text)

    def link(self, path: str) -> str | None:
        """Where a symbolic link leads; None if there is none."""
        try:
            return str((self.root / path).readlink())
        except FileNotFoundError:
            return None

    def refusal(self, path: str) -> int:
        """The errno of opening a device for reading and writing; 0 if that can be done."""
        try:
            os.close(os.open(self.root / path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def program(self, name: str) -> Path | None:
        """Where a program is, on the PATH or where the administrator's are."""
        places = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_PROGRAMS]
        path = os.pathsep.join(str(self.root / place.lstrip("/")) for place in places if place)
        found = shutil.which(name, path=path)
        return None if found is None else Path(found)

    @property
    def release(self) -> str:
        """The kernel's, such as `6.1.0-38-cloud-amd64`; empty if it does not tell."""
        return self.text("proc/sys/kernel/osrelease") or ""

    @property
    def version(self) -> tuple[int, int]:
        """The kernel's first two numbers; zeros if it does not tell."""
        match = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def is_root(self) -> bool:
        """Whether this process is the superuser, be it of a container."""
        return (self.status("Uid").split() or ["", ""])[1] == "0"

    def status(self, name: str) -> str:
        """A line of this process's status, see proc(5)."""
        for line in (self.text("proc/self/status") or "").splitlines():
            key, _colon, value = line.partition(":")
            if key == name:
                return value.strip()
        raise ValueError(f"/proc/self/status has no {name}")

    def has_capability(self, number: int) -> bool:
        """Whether this process has a capability, see capabilities(7)."""
        return bool(int(self.status("CapEff"), 16) >> number & 1)

    def limits(self, name: str) -> tuple[float, float]:
        """The soft and the hard limit with this name in /proc/self/limits."""
        for line in (self.text("proc/self/limits") or "").splitlines():
            key, *values = _COLUMNS.split(line.strip())
            if key == name:
                soft, hard = (math.inf if v == "unlimited" else float(v) for v in values[:2])
                return soft, hard
        raise ValueError(f"/proc/self/limits has no {name!r}")

    def memory(self) -> int | None:
        """Bytes of memory, as the kernel counts it."""
        text = self.text("proc/meminfo")
        return None if text is None else parse_meminfo(text, "MemTotal")

    def mounts(self) -> list[Mount]:
        """All that is mounted."""
        return list(parse_mountinfo(os.fsencode(self.text("proc/self/mountinfo") or "")))

    def swaps(self) -> list[SwapArea] | None:
        """All swap areas; None if the kernel knows no swap."""
        text = self.text("proc/swaps")
        return None if text is None else parse_swaps(os.fsencode(text))

    def own_loops(self) -> Iterator[str]:
        """The loop devices that are attached to a device of ours."""
        files = {f"{mount.point}/swap" for mount in self.mounts() if mount.fstype == FSTYPE}
        for entry in sorted((self.root / "sys/block").glob("loop*")):
            if self.text(f"sys/block/{entry.name}/loop/backing_file") in files:
                yield f"/dev/{entry.name}"
