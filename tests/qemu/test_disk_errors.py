"""Writeback in a guest to a disk on which the host makes some sectors fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from qemu.conftest import Boot, Tell
from qemu.guest import Drive
from qemu.stack import MIB, Stack, hog_command, judged

DISK_MIB = 384
MEMORY = 288
SECTOR = 512
EVERY = 4 * MIB
SECONDS = 250.0
EIO = 5
READ_ERROR = 3  # how a hog ends that could not have a page


def failing(path: Path, kind: str) -> dict[str, Any]:
    """A disk of which one sector in `EVERY` bytes cannot be read, or written; not in the first."""
    path.touch()
    os.truncate(path, DISK_MIB * MIB)
    sectors = range((2 * MIB + MIB // 2) // SECTOR, DISK_MIB * MIB // SECTOR, EVERY // SECTOR)
    return {
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": str(path)},
        "inject-error": [
            {"event": "none", "iotype": kind, "errno": EIO, "sector": sector} for sector in sectors
        ],
    }


def told(line: str) -> bool:
    """What the kernel says of a disk that fails, and of a device that cannot read."""
    return "I/O error" in line and ("vdb" in line or "WRITE" not in line)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_failing_disk_loses_no_page_silently(
    kind: str, boot: Boot, tmp_path: Path, tell: Tell
) -> None:
    node = failing(tmp_path / "disk", kind)
    guest = boot(memory=MEMORY, drives=[Drive(node)], expected=told, seconds=400.0)
    stack = Stack(guest)
    stack.up("--size", "768M", "--memory-limit", "32M", "--backing", "/dev/vdb")
    hog = guest.run(*hog_command(MEMORY, "--passes", "1"), seconds=SECONDS)
    stats = stack.status()["stats"]
    assert stats["writeback_pages"] > 0
    assert stats["failed_writes"] == 0
    assert stats["internal_errors"] == 0
    if kind == "write":
        judged(hog)
        assert stats["backing_failed_writes"] > 0
        assert stats["failed_reads"] == 0
        stack.check()
        stack.down()
    else:
        assert hog.returncode in (0, READ_ERROR), str(hog)
        assert json.loads(hog.stdout.splitlines()[-1])["mismatches"] == 0
        assert stats["backing_failed_reads"] > 0
        assert hog.returncode == 0 or stats["failed_reads"] > 0
    tell(
        f"disk that fails to {kind}: { ({name: stats[name] for name in stats if 'fail' in name}) }"
    )
