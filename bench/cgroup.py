"""A memory limit for a process and its children: one memory cgroup, version 1 or 2.

    with MemoryCgroup(256 << 20, "hog") as group:
        done = group.run(["hog", "--size", "512M", "--source", "corpus"], timeout=300)
        print(group.swap_bytes())

Needs root. Both hierarchies of memory controllers are handled, because a machine has the
controller in one of them only:

==============  ==========================  =====================================
what            version 1                   version 2
==============  ==========================  =====================================
limit           memory.limit_in_bytes       memory.max
in use          memory.usage_in_bytes       memory.current
in swap         memory.stat, `swap`         memory.swap.current
OOM kills       memory.oom_control          memory.events
swappiness      memory.swappiness           none (the system's vm.swappiness)
==============  ==========================  =====================================

Memory and swap together (version 1's memsw, version 2's memory.swap.max) stay unlimited:
what does not fit the limit is meant to be swapped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["CgroupError", "MemoryCgroup"]

MOUNTS = Path("/proc/self/mountinfo")
REMOVE_TRIES = 100
REMOVE_PAUSE = 0.05  # seconds: a killed process leaves its group when it has been torn down
KILL_TIMEOUT = 10.0

# The shell enters the group and becomes the program, so that nothing is allocated outside
# and no Python runs between fork and exec (preexec_fn is not safe beside threads).
_ENTER = 'echo $$ > "$0" && exec "$@"'


class CgroupError(Exception):
    """There is no memory cgroup to be had here, or it cannot be removed."""


class MemoryCgroup:
    """A context manager: a group with a limit, which takes its processes with it at exit.

    The group lies at the top of the hierarchy, since in version 2 a group that has
    processes, such as our own, cannot have limited children. `swappiness` is for version
    1, where every group has its own; at 100 anonymous memory and page cache are reclaimed
    alike. Raises `CgroupError`.
    """

    def __init__(self, limit_bytes: int, name: str, swappiness: int = 100) -> None:
        """Look for the controller. The group is made on entry."""
        self._root, self._unified = _find_controller()
        self._limit_bytes = limit_bytes
        self._swappiness = swappiness
        self._started: list[subprocess.Popen[str]] = []
        self.path = self._root / name

    def __enter__(self) -> MemoryCgroup:
        """Make the group and set its limit."""
        try:
            if self._unified:
                (self._root / "cgroup.subtree_control").write_text("+memory")
            self._make()
            self._configure()
        except OSError as error:
            raise CgroupError(f"no memory cgroup to be had: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill what is left inside and remove the group."""
        self._remove()

    def start(
        self, argv: Sequence[str], *, capture: bool = False, talk: bool = False
    ) -> subprocess.Popen[str]:
        """Start a program inside and do not wait for it. At exit at the latest it is killed.

        `capture` gives pipes for what it prints, `talk` one for its input.
        """
        pipe = subprocess.PIPE if capture else None
        spoken = subprocess.PIPE if talk else None
        command = ["sh", "-c", _ENTER, str(self.path / "cgroup.procs"), *argv]
        process = subprocess.Popen(command, stdin=spoken, stdout=pipe, stderr=pipe, text=True)
        self._started.append(process)
        return process

    def run(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a program inside and return its status and output.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds. All of the group is
        killed then, since a grandchild that holds the pipes would be waited for.
        """
        process = self.start(argv, capture=True)
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            self.kill()
            process.kill()  # in case it is still on its way into the group
            process.communicate(timeout=KILL_TIMEOUT)
            raise
        return subprocess.CompletedProcess(argv, process.returncode, output, errors)

    def kill(self) -> bool:
        """Send SIGKILL to every process inside. Tells whether there were any."""
        pids = [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return bool(pids)

    def set_limit(self, limit_bytes: int) -> None:
        """Another limit. Raises `CgroupError` if what is charged cannot be made to fit it."""
        try:
            self._write_limit(limit_bytes)
        except OSError as error:
            raise CgroupError(f"the limit cannot be {limit_bytes} bytes: {error}") from error

    def memory_bytes(self) -> int:
        """Memory charged to the group now, page cache included."""
        return self._number("memory.current" if self._unified else "memory.usage_in_bytes")

    def memory_peak_bytes(self) -> int:
        """The most that was ever charged (version 2: from Linux 5.19)."""
        return self._number("memory.peak" if self._unified else "memory.max_usage_in_bytes")

    def swap_bytes(self) -> int:
        """Memory of the group that is in swap now."""
        if self._unified:
            return self._number("memory.swap.current")
        return self._field("memory.stat", "swap")

    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed for want of memory."""
        return self._field("memory.events" if self._unified else "memory.oom_control", "oom_kill")

    def _make(self) -> None:
        """An empty group of the same name is what a run that was killed leaves behind."""
        if self.path.is_dir():
            self.path.rmdir()
        self.path.mkdir()

    def _configure(self) -> None:
        self._write_limit(self._limit_bytes)
        swappiness = self.path / "memory.swappiness"
        if swappiness.exists():
            swappiness.write_text(str(self._swappiness))

    def _write_limit(self, limit_bytes: int) -> None:
        limit = "memory.max" if self._unified else "memory.limit_in_bytes"
        (self.path / limit).write_text(str(limit_bytes))

    def _number(self, name: str) -> int:
        return int((self.path / name).read_text())

    def _field(self, name: str, key: str) -> int:
        lines = (line.split() for line in (self.path / name).read_text().splitlines())
        return next(int(value) for field, value in lines if field == key)

    def _remove(self) -> None:
        """A process in uninterruptible sleep cannot be killed: hence the end to the tries."""
        for _ in range(REMOVE_TRIES):
            alive = self.kill()
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(REMOVE_PAUSE)
            else:
                self._reap()
                return
        state = "has processes that do not die" if alive else "is busy"
        raise CgroupError(f"{self.path} {state}: it was left behind")

    def _reap(self) -> None:
        for process in self._started:
            process.wait(timeout=KILL_TIMEOUT)


def _find_controller() -> tuple[Path, bool]:
    """Where the memory controller is mounted, and whether that is the unified hierarchy."""
    for line in MOUNTS.read_text().splitlines():
        fields, _, source = line.partition(" - ")
        mount, (kind, _, options) = Path(fields.split()[4]), source.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            return mount, False
        if kind == "cgroup2" and "memory" in (mount / "cgroup.controllers").read_text().split():
            return mount, True
    raise CgroupError("no memory cgroup controller is mounted")
