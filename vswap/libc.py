"""The C calls that Python has no name for, typed.

Called through ctypes, which gives up the GIL for the time of the call. `mmap.madvise` and
`mmap.flush` keep it: populating a segment that way would stop every data thread for as long
as the kernel takes to zero a megabyte. So even calls Python does have are made from here
when they can take long.

Each function raises `OSError` with the call's errno. The layouts are those of 64-bit Linux
(off_t and long are 64 bits).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

__all__ = [
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "MADV_DONTDUMP",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE",
    "MADV_WILLNEED",
    "MCL_CURRENT",
    "MCL_FUTURE",
    "MCL_ONFAULT",
    "MNT_DETACH",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "M_ARENA_MAX",
    "M_MMAP_MAX",
    "M_MMAP_THRESHOLD",
    "M_TRIM_THRESHOLD",
    "PR_GET_DUMPABLE",
    "PR_SET_CHILD_SUBREAPER",
    "PR_SET_DUMPABLE",
    "PR_SET_IO_FLUSHER",
    "PR_SET_NAME",
    "PR_SET_PDEATHSIG",
    "PR_SET_THP_DISABLE",
    "UMOUNT_NOFOLLOW",
    "address_of",
    "fsconfig",
    "fsmount",
    "fsopen",
    "madvise",
    "mallopt",
    "mlockall",
    "mount",
    "munlockall",
    "prctl",
    "process_madvise",
    "punch_hole",
    "set_local_memory",
    "set_slice",
    "thread_stack",
    "umount2",
]

# sys/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# linux/falloc.h
_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2

# asm-generic/mman-common.h; the populating pair is of kernel 5.14
MADV_WILLNEED = 3
MADV_DONTDUMP = 16
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23

# sys/mman.h
MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_THP_DISABLE = 41
PR_SET_IO_FLUSHER = 57

# asm/unistd.h
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}

# Those that came after 5.0 have the same number on both machines
_MACHINES = ("x86_64", "aarch64")
_FSOPEN = dict.fromkeys(_MACHINES, 430)
_FSCONFIG = dict.fromkeys(_MACHINES, 431)
_FSMOUNT = dict.fromkeys(_MACHINES, 432)
_PROCESS_MADVISE = dict.fromkeys(_MACHINES, 440)

# linux/mount.h
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOEXEC = 2, 4, 8

# linux/mempolicy.h
_MPOL_LOCAL = 4

# linux/sched/types.h (the first version of the structure) and linux/uio.h
_SCHED_ATTR = struct.Struct("<IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, ...
_IOVEC = struct.Struct("PN")  # address, length

# bits/pthreadtypes-arch.h: at least as long as any machine's
_PTHREAD_ATTR_SIZE = 64

# malloc.h (glibc)
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
M_ARENA_MAX = -8

_LIBC = ctypes.CDLL(None, use_errno=True)

_Function = Any  # ctypes gives its function pointers no public type


def _function(name: str, *argtypes: Any) -> _Function:  # noqa: ANN401
    """The int function `name` of the C library, or one that fails with ENOSYS."""
    function = getattr(_LIBC, name, None)
    if function is None:  # mallopt on a C library other than glibc
        return lambda *_args: _missing()
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function


def _system_call(numbers: Mapping[str, int], *argtypes: Any) -> _Function:  # noqa: ANN401
    """The system call with a number on each machine, or one that fails with ENOSYS."""
    number = numbers.get(platform.machine())
    if number is None:
        return lambda *_args: _missing()
    function = _LIBC["syscall"]  # unlike an attribute, an object of its own each time
    function.argtypes = (ctypes.c_long, *argtypes)
    function.restype = ctypes.c_long
    return partial(function, number)


def _missing() -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1


_mount = _function(
    "mount",
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_umount2 = _function("umount2", ctypes.c_char_p, ctypes.c_int)
_fallocate = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_madvise = _function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_mlockall = _function("mlockall", ctypes.c_int)
_munlockall = _function("munlockall")
_mallopt = _function("mallopt", ctypes.c_int, ctypes.c_int)
_prctl = _function(
    "prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong
)
_pthread_getattr_np = _function("pthread_getattr_np", ctypes.c_ulong, ctypes.c_char_p)
_pthread_attr_getstack = _function(
    "pthread_attr_getstack", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p
)
_pthread_attr_destroy = _function("pthread_attr_destroy", ctypes.c_char_p)
_sched_setattr = _system_call(_SCHED_SETATTR, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_set_mempolicy = _system_call(_SET_MEMPOLICY, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong)
_process_madvise = _system_call(
    _PROCESS_MADVISE,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_uint,
)
_fsopen = _system_call(_FSOPEN, ctypes.c_char_p, ctypes.c_uint)
_fsconfig = _system_call(
    _FSCONFIG, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int
)
_fsmount = _system_call(_FSMOUNT, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)


def _check(result: int, *about: str) -> int:
    """Return `result`, or raise what errno says when it is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *about)
    return result


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2). `flags` is made of MS_*; `data` holds the file system's own options."""
    encode = os.fsencode
    _check(_mount(encode(source), encode(target), encode(fstype), flags, encode(data)), target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). EBUSY while something has a file of the mount open."""
    _check(_umount2(os.fsencode(target), flags), target)


def fsopen(fstype: str) -> int:
    """fsopen(2): a descriptor to make a file system of this type with.

    EPERM without CAP_SYS_ADMIN, ENOSYS before 5.2.
    """
    return _check(_fsopen(fstype.encode(), _FSOPEN_CLOEXEC))


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """fsconfig(2), `command` of FSCONFIG_*. EINVAL for an option that the file system has not."""
    encoded = (None if text is None else text.encode() for text in (key, value))
    _check(_fsconfig(fd, command, *encoded, 0))


def fsmount(fd: int) -> int:
    """fsmount(2): the root of what `fsopen` began, mounted nowhere; closed, only files keep it.

    Without programs, devices, and other users' rights in it.
    """
    attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_NOEXEC
    return _check(_fsmount(fd, _FSMOUNT_CLOEXEC, attributes))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back the memory or disk behind `length` bytes at `offset`; the size stays.

    Pages that lie wholly in the range are freed, the rest of it is zeroed.
    """
    _check(_fallocate(fd, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length))


def madvise(address: int, length: int, advice: int) -> None:
    """madvise(2) on `length` bytes at `address`, a multiple of the page size."""
    _check(_madvise(address, length, advice))


def process_madvise(pidfd: int, address: int, length: int, advice: int) -> int:
    """process_madvise(2) on `length` bytes at `address` in the process behind a pidfd.

    Returns how many bytes were advised, fewer than 2 GiB at once. ESRCH when the process has
    ended, ENOMEM when something of the range is not mapped, EPERM without CAP_SYS_NICE and leave
    to look into the process, EINVAL for advice that the kernel takes only for its own process
    (MADV_WILLNEED before 5.13), ENOSYS before 5.10.
    """
    return _check(_process_madvise(pidfd, _IOVEC.pack(address, length), 1, advice, 0))


def address_of(buffer: mmap.mmap | bytearray | memoryview) -> int:
    """Where a writable buffer lies in memory. Valid for as long as the buffer is open.

    Raises `TypeError` for a buffer that is read-only.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def thread_stack() -> tuple[int, int]:
    """Where the calling thread's stack lies: its lowest address, and its length in bytes."""
    attributes = ctypes.create_string_buffer(_PTHREAD_ATTR_SIZE)
    start, length = ctypes.c_void_p(), ctypes.c_size_t()
    _check(-_pthread_getattr_np(threading.get_ident(), attributes))
    _pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(length))
    _pthread_attr_destroy(attributes)
    return start.value or 0, length.value


def mlockall(flags: int) -> None:
    """mlockall(2), `flags` of MCL_*.

    EPERM without CAP_IPC_LOCK when RLIMIT_MEMLOCK is zero, ENOMEM when it is too small.
    """
    _check(_mlockall(flags))


def munlockall() -> None:
    """munlockall(2): undo `mlockall`, for what is mapped and for what will be."""
    _check(_munlockall())


def prctl(option: int, arg: int | bytes) -> int:
    """prctl(2) with one argument, a number or (PR_SET_NAME) a string. Returns its result."""
    if isinstance(arg, bytes):
        text = ctypes.create_string_buffer(arg)  # must outlive the call
        return _check(_prctl(option, ctypes.addressof(text), 0, 0, 0))
    return _check(_prctl(option, arg, 0, 0, 0))


def set_local_memory() -> None:
    """Have the calling thread's memory near it, by a policy of its own (MPOL_LOCAL).

    That is the default, but for what a policy of one's own is not subject to: automatic NUMA
    balancing, which makes pages inaccessible now and then to see who uses them. Inherited by
    fork and by exec. ENOSYS without NUMA in the kernel.
    """
    _check(_set_mempolicy(_MPOL_LOCAL, None, 0))


def set_slice(nanoseconds: int) -> None:
    """Ask for longer or shorter time slices for the calling thread; its share stays the same.

    From kernel 6.12 on (100 us to 100 ms; older ones take no notice) a thread that wakes up
    preempts one that has longer slices. ENOSYS on a machine whose call number is not known.
    """
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.sched_getscheduler(0), 0, nice, 0, nanoseconds, 0, 0
    )
    _check(_sched_setattr(0, attributes, 0))


def mallopt(param: int, value: int) -> None:
    """Tune glibc's allocator. EINVAL for what it refuses, ENOSYS where there is no glibc.

    Unlike the rest of the C library, mallopt(3) returns 1 for success and sets no errno.
    """
    result = _mallopt(param, value)
    if result == 0:
        raise OSError(errno.EINVAL, f"mallopt({param}, {value}) was refused")
    _check(result)
