"""Make this process fit to serve reclaim.

Reclaim waits for the daemon, so the daemon must not wait for reclaim: not for a page of its
own that was taken away (mlockall), not for the write-back of somebody's dirty pages when it
allocates (PR_SET_IO_FLUSHER), not for memory that the allocator had and gave back. It must
not be the one that is killed when memory runs out (oom_score_adj), for the contents of the
swap die with it. And those contents must not get to a disk in a core dump, or to a debugger
of the same user (PR_SET_DUMPABLE).

Some of this takes privileges. What is missing is said once, with what it means and what to
do about it; the daemon goes on without.
"""

from __future__ import annotations

import mmap
import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vswap import libc

__all__ = [
    "Preparation",
    "give_precedence",
    "give_precedence_to",
    "has_spare",
    "prepare_fork",
    "prepare_process",
    "prepare_thread",
    "take_precedence",
]

Log = Callable[[str], None]

_MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")
_OOM_SCORE_ADJ = Path("/proc/self/oom_score_adj")
_MMAP_THRESHOLD = 32 << 20  # the most that glibc accepts
_LIMIT_NOBODY_REACHES = 1 << 45  # and still less than an address space, so it can be tried
_said: set[str] = set()
_said_lock = threading.Lock()


@dataclass(frozen=True)
class Preparation:
    """What the machine allowed; shown in the statistics."""

    memory_locked: bool
    io_flusher: bool
    oom_protected: bool
    realtime: bool = False


def prepare_process(log: Log) -> Preparation:
    """Prepare the calling process, and the calling thread as `prepare_thread` does.

    To be called once and early: before other threads exist, so that they share the one
    arena, and before memory is mapped that is to be locked. `log` gets one line for each
    thing that could not be had. A fork keeps all of it but the locked memory; an exec
    loses that and the dumpable flag.
    """
    _keep_heap(log)
    _keep_pages_still()
    preparation = Preparation(
        memory_locked=_lock_memory(log),
        io_flusher=prepare_thread(log),
        oom_protected=_protect_from_oom_killer(log),
        realtime=_try_precedence(log),
    )
    # Last: it makes root the owner of a user's /proc/self, whose files were needed above.
    _keep_out_of_dumps()
    return preparation


def prepare_fork(log: Log) -> None:
    """Prepare a fork of a process that `prepare_process` has prepared."""
    _lock_memory(log)


def prepare_thread(log: Log) -> bool:
    """Let the calling thread allocate without waiting for I/O. Returns whether it may.

    For every thread that touches a request. Threads started by a prepared one inherit it.
    A refusal is logged for the first thread only.
    """
    try:
        libc.prctl(libc.PR_SET_IO_FLUSHER, 1)
    except OSError as error:
        _say_once(
            log,
            f"PR_SET_IO_FLUSHER cannot be set ({error.strerror}): when memory is short the "
            "daemon may wait for pages that wait for the daemon; give it CAP_SYS_RESOURCE",
        )
        return False
    return True


def take_precedence(*, inherited: bool = True) -> None:
    """Let the calling thread, and all that it starts if that is to be `inherited`, go first.

    Before all ordinary programs, as a real-time task of the least priority. To such the kernel
    also gives of the memory that it keeps back when all others wait for reclaim (mm/page_alloc.c,
    ALLOC_HARDER up to 6.3, ALLOC_MIN_RESERVE since), and reclaim waits for us. Nothing happens
    if it is not allowed.
    """
    with suppress(OSError):
        _go_first(0 if inherited else os.SCHED_RESET_ON_FORK)


def give_precedence() -> None:
    """Let the calling thread be an ordinary one (again)."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def give_precedence_to(pid: int) -> None:
    """Let another process, all of its threads, go first. Nothing happens if it is not allowed."""
    with suppress(OSError):
        threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        for thread in threads:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))


def has_spare(size: int) -> Callable[[], bool]:
    """Whether that much is free above what the kernel keeps back. sysinfo(2), which asks nobody."""
    try:
        kept = int(_MIN_FREE.read_text()) << 10
    except OSError:
        kept = 0
    return lambda: os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE >= kept + size


def _go_first(flags: int = 0) -> None:
    os.sched_setscheduler(0, os.SCHED_RR | flags, os.sched_param(1))


def _try_precedence(log: Log) -> bool:
    try:
        _go_first()
    except OSError as error:
        _say_once(
            log,
            f"SCHED_RR cannot be had ({error.strerror}): when memory is short the daemon gets none "
            "of what the kernel keeps back; give it CAP_SYS_NICE or LimitRTPRIO=1",
        )
        return False
    give_precedence()
    return True


def _keep_heap(log: Log) -> None:
    """Keep what the allocator has: faulting it in again would happen under pressure."""
    try:
        libc.mallopt(libc.M_ARENA_MAX, 1)
        libc.mallopt(libc.M_TRIM_THRESHOLD, -1)
        libc.mallopt(libc.M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
    except OSError as error:
        _say_once(
            log,
            f"the allocator cannot be tuned ({error.strerror}): it may give memory back and "
            "page faults follow; run on a system with glibc",
        )


def _keep_pages_still() -> None:
    """Have nobody take pages out of the page tables, not even to make large or near ones of them.

    See REPLY-PRESENT in docs/concurrency.md.
    """
    for still in (partial(libc.prctl, libc.PR_SET_THP_DISABLE, 1), libc.set_local_memory):
        with suppress(OSError):
            still()


def _lock_memory(log: Log) -> bool:
    """Lock what is mapped and what will be, each page from its first touch.

    Without MCL_ONFAULT all that is mapped becomes resident, three times what is used.
    """
    _raise_memlock_limit()
    try:
        libc.mlockall(libc.MCL_CURRENT | libc.MCL_FUTURE | libc.MCL_ONFAULT)
        _probe_locked_mapping()
    except OSError as error:
        libc.munlockall()
        _say_once(
            log,
            f"memory cannot be locked ({error.strerror}): the daemon may wait for pages of its "
            "own that were taken away; give it CAP_IPC_LOCK or LimitMEMLOCK=infinity",
        )
        return False
    return True


def _raise_memlock_limit() -> None:
    """Take as much of RLIMIT_MEMLOCK as is allowed; irrelevant with CAP_IPC_LOCK."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in (resource.RLIM_INFINITY, hard):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        except (ValueError, OSError):  # ValueError is what Python makes of EPERM here
            continue
        return


def _probe_locked_mapping() -> None:
    """Raise `OSError` if a finite limit applies to this process.

    MCL_FUTURE then turns it into a limit on everything mapped from now on: the daemon would
    start, and die of a failed mmap when the store has grown. Mapping more than the limit,
    inaccessible and so for free, tells beforehand.
    """
    limit, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and limit < _LIMIT_NOBODY_REACHES:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mmap.mmap(-1, limit + mmap.PAGESIZE, flags=flags, prot=0).close()


def _protect_from_oom_killer(log: Log) -> bool:
    try:
        _OOM_SCORE_ADJ.write_text("-1000")
    except OSError as error:
        _say_once(
            log,
            f"oom_score_adj cannot be set to -1000 ({error.strerror}): the kernel may kill the "
            "daemon, and lose what is swapped out, when memory runs out; give it "
            "CAP_SYS_RESOURCE or OOMScoreAdjust=-1000",
        )
        return False
    return True


def _keep_out_of_dumps() -> None:
    """Allowed to everyone. The limit alone is not heeded when cores are piped to a program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(libc.PR_SET_DUMPABLE, 0)


def _say_once(log: Log, line: str) -> None:
    with _said_lock:
        if line in _said:
            return
        _said.add(line)
    log(f"warning: {line}")
