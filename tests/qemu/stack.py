"""The whole stack in a guest: a device that is swapped on, and programs that need it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from qemu.guest import Done, Guest, Job

__all__ = [
    "GROUP",
    "MIB",
    "PASSES",
    "Stack",
    "beats",
    "cut_off",
    "hog_command",
    "judged",
    "wait_filled",
    "within",
]

MIB = 1 << 20
UP_SECONDS = 120.0
DOWN_SECONDS = 180.0
FILL_SECONDS = 280.0
PASSES = 64


@dataclass(frozen=True)
class Stack:
    """vswap in a guest."""

    guest: Guest

    def up(self, *options: str) -> str:
        """Bring a device up; the loop device's name."""
        return self.guest.run("vswap", "up", *options, seconds=UP_SECONDS).ok().strip()

    def down(self) -> None:
        """Swap off, and the end of the daemon."""
        self.guest.run("vswap", "down", seconds=DOWN_SECONDS).ok()

    def status(self) -> dict[str, Any]:
        """Its part of `vswap status --json`."""
        done = self.guest.run("vswap", "status", "--json", seconds=UP_SECONDS).ok()
        (device,) = json.loads(done)["devices"]
        assert isinstance(device, dict)
        return device

    def stats(self) -> dict[str, Any]:
        """Its statistics; nothing must have gone wrong by itself."""
        stats = self.status()["stats"]
        assert isinstance(stats, dict)
        assert stats["internal_errors"] == stats["protocol_errors"] == 0
        return stats

    def used_mib(self) -> int:
        """What lies on the device, by the kernel's count."""
        return int(self.guest.sh("awk '/loop/ { print int($4 / 1024) }' /proc/swaps"))

    def check(self) -> None:
        """All that is stored is readable, and all that is counted is right."""
        done = self.guest.run("vswap", "ctl", "check", seconds=UP_SECONDS).ok()
        assert done.startswith("ok: "), done

    def hog(self, mib: int, *options: str) -> Job:
        """Start a hog."""
        return self.guest.start(*hog_command(mib, *options))

    def hog_within(self, limit: int, mib: int, *options: str) -> Job:
        """Start one of which no more than so many MiB stay in memory: see `within`."""
        command = shlex.join(hog_command(mib, *options))
        return self.guest.start("sh", "-ec", f"{within(limit)} && exec {command}")


def hog_command(mib: int, *options: str) -> list[str]:
    """A hog. Its pages are of real processes, and looked at again and again."""
    return [
        *("/opt/test/hog", "--size", f"{mib}M", "--source", "/opt/test/corpus"),
        *("--rewrite", "0.5", "--heartbeat", "3", "--json", *options),
    ]


def wait_filled(hog: Job) -> None:
    """Wait until a hog has filled its memory, and looks at it."""
    while "verify" not in hog.text(2):
        assert hog.poll(), hog.wait()
        hog.guest.run("sleep", "1", seconds=FILL_SECONDS)


GROUP = "/sys/fs/cgroup/limited"


def within(mib: int) -> str:
    """What a shell runs to go on in `GROUP`, with so much memory: what is more is swapped out."""
    return f"mkdir -p {GROUP} && echo {mib}M >{GROUP}/memory.max && echo $$ >{GROUP}/cgroup.procs"


def cut_off(line: str) -> bool:
    """What udev reads ahead on the loop device, when that is detached: it is not told of it."""
    return "I/O error, dev loop0" in line and "(READ) flags 0x80700" in line


def judged(hog: Done) -> dict[str, Any]:
    """What a hog reports; each page must have been as it was written."""
    assert hog.returncode == 0, str(hog)
    report = json.loads(hog.stdout.splitlines()[-1])
    assert (report["result"], report["mismatches"]) == ("ok", 0), report
    assert isinstance(report, dict)
    return report


def beats(hog: Done) -> list[float]:
    """When a hog said that it goes on, in seconds since its start, by its own clock."""
    return [float(found[1]) for found in re.finditer(r"^([\d.]+) s: ", hog.stderr, re.MULTILINE)]
