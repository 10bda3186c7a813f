"""The backing that lies in memory, and memory for direct I/O."""

from __future__ import annotations

import errno

import pytest

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.libc import address_of
from vswap.store.backing import BLOCK, NOTE_SIZE, Backing, MemoryBacking, aligned


def test_aligned_memory_begins_at_a_page_and_is_zeros() -> None:
    for size in (BLOCK, 3 * BLOCK, SEGMENT_SIZE):
        memory = aligned(size)
        assert address_of(memory) % BLOCK == 0
        assert len(memory) == size
        assert bytes(memory) == bytes(size)


def test_aligned_memory_can_be_written() -> None:
    memory = aligned(BLOCK)
    memory[:4] = b"data"
    assert bytes(memory[:5]) == b"data\0"


def test_what_was_written_is_read() -> None:
    backing: Backing = MemoryBacking(2 * SEGMENT_SIZE)
    data, found = aligned(BLOCK), aligned(2 * BLOCK)
    data[:] = b"x" * BLOCK
    backing.write(SEGMENT_SIZE + BLOCK, data)
    backing.read(SEGMENT_SIZE, found)
    assert bytes(found) == bytes(BLOCK) + b"x" * BLOCK


def test_beyond_the_end_is_an_error_and_nothing_is_written() -> None:
    backing = MemoryBacking(SEGMENT_SIZE)
    data = aligned(2 * BLOCK)
    data[:] = b"x" * len(data)
    for call in (backing.write, backing.read):
        with pytest.raises(OSError) as failed:
            call(SEGMENT_SIZE - BLOCK, data)
        assert failed.value.errno == errno.EIO
    assert backing.data.count(0) == SEGMENT_SIZE


def test_it_grows_with_zeros_and_keeps_what_it_has() -> None:
    backing = MemoryBacking(SEGMENT_SIZE)
    backing.data[:] = b"x" * SEGMENT_SIZE
    backing.grow(2 * SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    assert backing.data == b"x" * SEGMENT_SIZE + bytes(SEGMENT_SIZE)


def test_it_does_not_shrink() -> None:
    backing = MemoryBacking(2 * SEGMENT_SIZE)
    with pytest.raises(UserError, match="does not shrink"):
        backing.grow(SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE


def test_it_keeps_the_last_note() -> None:
    backing = MemoryBacking(SEGMENT_SIZE)
    assert backing.load_note() == b""
    backing.save_note(b"first, and longer")
    backing.save_note(b"last")
    assert backing.load_note() == b"last"


def test_a_note_that_is_too_long_is_not_kept() -> None:
    with pytest.raises(AssertionError):
        MemoryBacking(SEGMENT_SIZE).save_note(bytes(NOTE_SIZE + 1))


def test_a_size_in_between_segments_is_refused() -> None:
    with pytest.raises(AssertionError):
        MemoryBacking(SEGMENT_SIZE + BLOCK)
