"""The budget's note in memory: believed only if it is whole, and of what the label says."""

from __future__ import annotations

import pytest

from vswap.store.note_copy import NoteCopy

LABEL, EXACT = b"in the label, ahead of it.", b"what was used, exactly...."


def memory() -> memoryview:
    return memoryview(bytearray(NoteCopy.SIZE))


def test_in_new_memory_the_label_is_right() -> None:
    assert NoteCopy(memory()).find(LABEL) == LABEL
    assert NoteCopy(memory()).find(b"") == b""
    assert NoteCopy(memory()).find(None) == b""


def test_the_exact_note_is_found_by_the_label_s() -> None:
    copy = NoteCopy(memory())
    copy.keep(EXACT, LABEL)
    assert copy.find(LABEL) == EXACT
    other = LABEL[:-1] + b"!"
    assert copy.find(other) == other


def test_a_backing_without_a_note_has_none() -> None:
    copy = NoteCopy(memory())
    copy.keep(EXACT, b"")
    assert copy.find(b"") == b""


@pytest.mark.parametrize("at", [0, 31, 32, 40, 63, 64, 71])
def test_what_is_torn_is_not_believed(at: int) -> None:
    torn = memory()
    NoteCopy(torn).keep(EXACT, LABEL)
    torn[at] ^= 0x10
    assert NoteCopy(torn).find(LABEL) == LABEL


def test_a_worker_killed_in_the_midst_of_it_leaves_the_old_or_nothing() -> None:
    """Whichever of the bytes have been stored."""
    old, new = memory(), memory()
    NoteCopy(old).keep(EXACT, LABEL)
    NoteCopy(new).keep(EXACT[::-1], LABEL)
    for stored in range(1, NoteCopy.SIZE):
        torn = memoryview(bytearray(bytes(new[:stored]) + bytes(old[stored:])))
        assert NoteCopy(torn).find(LABEL) in (LABEL, EXACT, EXACT[::-1])
        if stored in (10, 68):
            assert NoteCopy(torn).find(LABEL) == LABEL


def test_when_the_label_cannot_be_read_what_is_here_is_believed() -> None:
    copy = NoteCopy(memory())
    copy.keep(EXACT, LABEL)
    assert copy.find(None) == EXACT
