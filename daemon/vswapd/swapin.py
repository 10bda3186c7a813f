"""Reading ahead of swapoff: a program that has the kernel read in bulk what swapoff will want.

    python -m vswapd.swapin [PID ...]       without these processes, nor itself

swapoff goes through the page tables of all processes, and reads what it comes across. Linux
6.18 does not count it as a hit when swapoff finds a page that was read ahead (mm/swapfile.c:
unuse_pte_range), so the readahead closes down to one page or two in a request. Advice of
MADV_WILLNEED on an anonymous mapping instead reads all of its pages into the swap cache
(mm/madvise.c: swapin_walk_pmd_entry), in requests as large as the device takes, and does not
wait for them. swapoff finds them there and has only to map them.

It begins before swapoff does. That is little faster than beside it, where swapoff keeps asking
for single pages just where the large requests are made (1 GiB in 1.84 s, and in 1.96); but until
swapoff begins it can be given up at any moment, and swapoff heeds a signal only between two
processes. When it has got as far ahead as it may, or does not get on, it says so in a line,
`AHEAD`; then it is swapoff's turn, and this goes on as swapoff follows. When all is read it ends.

What must hold:

- It is help and no more: swapoff does all of the work, in its own order, whether or not a page
  is there. So whatever fails is passed over without a word: processes that end, that may not
  be looked into, kernels that do not take such advice. swapoff waits for it only while pages
  do come in.
- It asks for nothing that swapoff would not bring back: memory, of the machine and of each
  cgroup, has been found sufficient for that before.
- On the way it is ahead by at most `_SHARE` of the available memory, and one piece. A page that
  nobody has mapped is the kernel's to take away again when memory is short, and would have to be
  read once more. (Not once swapoff has begun on the only area: when no swap has room, anonymous
  pages stay. mm/vmscan.c: can_reclaim_anon_pages.)
- Only anonymous memory: on a file's mapping the same advice reads the file. Shared memory, and
  changed pages of private files, are left to swapoff.
- It is a process of its own, which whoever started it may kill: advice waits for the device
  when its queue is full, and on a daemon that hangs it waits forever.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from vswap import libc

__all__ = ["AHEAD", "Lead", "bring_back", "main", "parse_maps", "parse_status", "swapped_out"]

AHEAD = "ahead"
_PIECE = 16 << 20
_WHOLE = 1 << 30  # process_madvise takes less than 2 GiB at once
_SHARE = 0.5
_STALLED_SECONDS = 0.2
_PAUSE_SECONDS = 0.02
_LOOK_SECONDS = 0.01  # a piece with nothing to read takes a few microseconds, a look 20
_PROC = Path("/proc")
_NAMES = (b"", b"[heap]", b"[stack]")
_NAMED = b"[anon:"  # by prctl(PR_SET_VMA_ANON_NAME)


def parse_status(text: bytes) -> int:
    """The bytes that a process has in swap, of what /proc/PID/status holds.

    Shared memory is not counted. Kernel threads and zombies say nothing, which is 0.
    """
    for line in text.splitlines():
        if line.startswith(b"VmSwap:"):
            return int(line.split()[1]) << 10
    return 0


def parse_maps(text: bytes) -> Iterator[range]:
    """The addresses of anonymous, private mappings, of what /proc/PID/maps holds.

    Whatever their protection: what cannot be read now may have been written before.
    """
    for line in text.splitlines():
        addresses, access, _offset, _device, inode, *rest = line.split(maxsplit=5)
        name = rest[0] if rest else b""
        anonymous = inode == b"0" and (name in _NAMES or name.startswith(_NAMED))
        if anonymous and access.endswith(b"p"):
            start, end = (int(address, 16) for address in addresses.split(b"-"))
            yield range(start, end)


def swapped_out(apart: Collection[int]) -> dict[int, int]:
    """Processes by their ids, and the bytes that each has in swap: the biggest first."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) not in apart:
            with suppress(OSError):  # it ended
                swapped = parse_status((entry / "status").read_bytes())
                if swapped:
                    found[int(entry.name)] = swapped
    return dict(sorted(found.items(), key=lambda item: -item[1]))


class Lead:
    """How far this is ahead of swapoff: what is in memory, and mapped by nobody yet."""

    def __init__(self, meminfo: int, tell: Callable[[], None]) -> None:
        """Look at /proc/meminfo, open as `meminfo`; `tell` once when swapoff is to begin."""
        self._meminfo = meminfo
        self._tell: Callable[[], None] | None = tell
        self._best = self._bytes(b"SwapCached")
        self._most = int(self._bytes(b"MemAvailable") * _SHARE) + self._best
        self._looked = self._gained = time.monotonic()

    def wait(self) -> None:
        """Return when there may be a piece more: if need be, when swapoff has caught up."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        while not self._look():
            time.sleep(_PAUSE_SECONDS)

    def _look(self) -> bool:
        """Whether there may be a piece more."""
        cached, self._looked = self._bytes(b"SwapCached"), time.monotonic()
        if cached > self._best:
            self._best, self._gained = cached, self._looked
        enough = cached > self._most
        if self._tell and (enough or self._looked - self._gained > _STALLED_SECONDS):
            self._tell()
            self._tell = None
        return not enough

    def _bytes(self, name: bytes) -> int:
        for line in os.pread(self._meminfo, 1 << 16, 0).splitlines():
            key, _colon, value = line.partition(b":")
            if key == name:
                return int(value.split()[0]) << 10
        return 0


def bring_back(pid: int, swapped: int, lead: Lead) -> None:
    """Have all that a process has in swap read, `swapped` bytes, a piece at a time.

    Raises `OSError` when it has ended, or the kernel does not take the advice.
    """
    # No more than is in swap can be read: of a process with little, whole mappings.
    step = _PIECE if swapped > _PIECE else _WHOLE
    pidfd = os.pidfd_open(pid)
    try:
        for mapping in parse_maps((_PROC / str(pid) / "maps").read_bytes()):
            _advise(pidfd, mapping, step, lead)
    finally:
        os.close(pidfd)


def _advise(pidfd: int, mapping: range, step: int, lead: Lead) -> None:
    for start in mapping[::step]:
        lead.wait()
        length = min(step, mapping.stop - start)
        try:
            libc.process_madvise(pidfd, start, length, libc.MADV_WILLNEED)
        except OSError as error:
            if error.errno == errno.ENOMEM:  # the mapping is gone, or smaller now
                return
            raise


def main(words: Collection[str]) -> None:
    """Bring back what all processes have in swap, but these. Ends with its parent."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    apart = {os.getpid(), *map(int, words)}
    processes = swapped_out(apart)
    with (_PROC / "meminfo").open("rb", buffering=0) as meminfo:
        lead = Lead(meminfo.fileno(), lambda: print(AHEAD, flush=True))
        for pid, swapped in processes.items():
            with suppress(OSError):
                bring_back(pid, swapped, lead)


if __name__ == "__main__":
    main(sys.argv[1:])
