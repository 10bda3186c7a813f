"""The mark of a request that is done: what another worker finds in the same memory."""

from __future__ import annotations

import errno
import struct

import pytest

from vswapd.channel import BUFFER_SIZE, receive_buffer
from vswapd.channel.done import MARK_SIZE, Done

RESENT = 1 << 63


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(MARK_SIZE))


def test_at_first_nothing_is_done(memory: memoryview) -> None:
    assert Done(memory).outcome_of(2) is None


@pytest.mark.parametrize("unique", [2, RESENT | 6, (1 << 64) - 2])
def test_what_succeeded_is_known_to_the_next(unique: int, memory: memoryview) -> None:
    Done(memory).succeeded(unique)
    assert Done(memory).outcome_of(unique) == 0
    assert Done(memory).outcome_of(unique ^ 4) is None


@pytest.mark.parametrize("unique", [2, RESENT | 6, (1 << 64) - 2])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EOPNOTSUPP])
def test_what_failed_is_known_with_its_errno(unique: int, code: int, memory: memoryview) -> None:
    Done(memory).failed(unique, code)
    assert Done(memory).outcome_of(unique) == code
    assert Done(memory).outcome_of(unique ^ 4) is None


def test_only_the_last_of_each_kind_is_known(memory: memoryview) -> None:
    done = Done(memory)
    done.succeeded(2)
    done.failed(4, errno.EIO)
    done.succeeded(6)
    done.failed(8, errno.ENOSPC)
    assert [done.outcome_of(unique) for unique in (2, 4, 6, 8)] == [None, None, 0, errno.ENOSPC]


def test_one_kind_leaves_the_other_alone(memory: memoryview) -> None:
    done = Done(memory)
    done.failed(2, errno.EIO)
    done.succeeded(4)
    assert (done.outcome_of(2), done.outcome_of(4)) == (errno.EIO, 0)


def test_the_mark_is_laid_out_as_it_is_said(memory: memoryview) -> None:
    """Another version may read it."""
    done = Done(memory)
    done.succeeded(0x0102030405060708)
    done.failed(0x1112131415161718, errno.ENOSPC)
    assert struct.unpack("<QQQ", memory) == (0x0102030405060708, 0x1112131415161718, errno.ENOSPC)


def test_who_is_killed_while_marking_a_failure_leaves_no_wrong_one(
    memory: memoryview,
) -> None:
    """The errno is there first, beside the `unique` of an earlier one that is long answered."""
    Done(memory).failed(2, errno.EIO)
    Done(memory).succeeded(4)
    struct.pack_into("<Q", memory, 16, errno.ENOSPC)  # and then it was killed
    assert Done(memory).outcome_of(6) is None
    assert Done(memory).outcome_of(4) == 0


def test_the_mark_lies_beside_the_request_and_not_in_it() -> None:
    whole = memoryview(bytearray(BUFFER_SIZE))
    request = receive_buffer(whole)
    request[:] = bytes([0xFF]) * len(request)
    done = Done(whole)
    assert done.outcome_of((1 << 64) - 1) is None
    done.succeeded(2)
    done.failed(4, errno.EIO)
    assert request == bytes([0xFF]) * len(request)


def test_more_memory_than_the_mark_takes_is_left_alone() -> None:
    memory = memoryview(bytearray(4096))
    done = Done(memory)
    done.succeeded((1 << 64) - 1)
    done.failed((1 << 64) - 1, errno.EIO)
    assert not any(memory[MARK_SIZE:])
