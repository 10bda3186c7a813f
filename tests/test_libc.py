"""The C calls that are tried nowhere else by themselves."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vswap import libc

SIZE = 16 * mmap.PAGESIZE


@pytest.fixture
def own() -> Iterator[int]:
    """A pidfd of this process, in a kernel that takes advice by one."""
    pidfd = os.pidfd_open(os.getpid())
    with mmap.mmap(-1, SIZE) as mapping:
        try:
            libc.process_madvise(pidfd, libc.address_of(mapping), SIZE, libc.MADV_WILLNEED)
        except OSError as error:
            pytest.skip(f"process_madvise: {error.strerror}")
        yield pidfd
    os.close(pidfd)


def test_process_madvise_tells_how_much_it_advised(own: int) -> None:
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        mapping[:] = b"x" * SIZE
        address = libc.address_of(mapping)
        assert libc.process_madvise(own, address, SIZE, libc.MADV_WILLNEED) == SIZE
        assert mapping[:] == b"x" * SIZE


@pytest.mark.parametrize(
    ("address", "advice", "code"),
    [(0, libc.MADV_WILLNEED, errno.ENOMEM), (0, 9999, errno.EINVAL)],
)
def test_process_madvise_says_what_is_wrong(own: int, address: int, advice: int, code: int) -> None:
    with pytest.raises(OSError) as caught:
        libc.process_madvise(own, address, SIZE, advice)
    assert caught.value.errno == code


@pytest.mark.usefixtures("own")
def test_process_madvise_of_a_process_that_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pidfd = os.pidfd_open(process.pid)
    try:
        with pytest.raises(ProcessLookupError):
            libc.process_madvise(pidfd, 0, SIZE, libc.MADV_WILLNEED)
    finally:
        os.close(pidfd)


def test_a_call_that_the_machine_has_no_number_for() -> None:
    call = libc._system_call({f"not {platform.machine()}": 1}, ctypes.c_int)
    with pytest.raises(OSError) as caught:
        libc._check(call(1))
    assert caught.value.errno == errno.ENOSYS


def test_two_system_calls_have_arguments_of_their_own() -> None:
    number = libc._PROCESS_MADVISE[platform.machine()]
    one = libc._system_call({platform.machine(): number}, ctypes.c_int)
    two = libc._system_call({platform.machine(): number}, ctypes.c_char_p)
    assert one.func.argtypes == (ctypes.c_long, ctypes.c_int)
    assert two.func.argtypes == (ctypes.c_long, ctypes.c_char_p)
