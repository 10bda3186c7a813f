"""A machine of files, on which every check finds that all is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vswapd.doctor import Machine

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         8388608              8388608              bytes
Max realtime priority     0                    0
"""
MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:50 / /sys/fs/fuse/connections rw - fusectl fusectl rw
3 1 0:51 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
"""
FILES = {
    "dev/fuse": "",
    "dev/loop-control": "",
    "proc/meminfo": "MemTotal:        8000000 kB\nMemFree:         100 kB\n",
    "proc/pressure/memory": "some avg10=1.00 avg60=0.25 avg300=0.00 total=17\nfull avg10=0.00\n",
    "proc/self/cgroup": "0::/user/session\n",
    "proc/self/limits": LIMITS,
    "proc/self/mountinfo": MOUNTS,
    "proc/self/status": "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
    "proc/self/uid_map": "         0          0 4294967295\n",
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    "proc/sys/kernel/osrelease": "6.12.3-test\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/sys/vm/page-cluster": "5\n",
    "proc/sys/vm/swappiness": "100\n",
    "proc/sys/vm/watermark_boost_factor": "0\n",
    "proc/sys/vm/watermark_scale_factor": "1000\n",
    "sys/fs/cgroup/user/memory.max": "max\n",
    "sys/fs/cgroup/user/session/memory.max": "max\n",
    "sys/module/zswap/parameters/enabled": "N\n",
    "usr/bin/fusermount3": "#!",
    "usr/sbin/losetup": "#!",
    "usr/sbin/mkswap": "#!",
    "usr/sbin/swapoff": "#!",
    "usr/sbin/swapon": "#!",
}


def make(root: Path, files: Mapping[str, str | None]) -> Machine:
    for name, text in files.items():
        path = root / name
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o4755 if text == "#!" else 0o644)
    return Machine(root)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[Mapping[str, str | None]], Machine]:
    """Makes a machine that is well but for the files that are given; None is one it lacks."""
    root = tmp_path / "root"
    make(root, FILES)
    (root / "proc/self/ns").mkdir()
    (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    return lambda changed: make(root, changed)
