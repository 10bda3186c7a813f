"""Windows: who reads in order is noticed, and what was read ahead is never taken for another."""

from __future__ import annotations

import threading

import pytest
from model.threads import run_threads

from vswap.store.entry import Extent
from vswap.store.windows import WINDOW_SIZE, WINDOWS, Window, Windows

SIZE = 4160
NEAR = 32 << 10


@pytest.fixture
def windows() -> Windows:
    made = Windows()
    made.prepare()
    return made


def at(offset: int, segment: int = 3, size: int = SIZE) -> Extent:
    return Extent(segment, offset, size, 1)


def fill(windows: Windows, start: int, segment: int = 3, sequence: int = 7, mark: int = 1) -> None:
    """Read a window of bytes that are all `mark`."""
    window = begin(windows, start, segment, sequence)
    window.memory[:] = bytes([mark]) * WINDOW_SIZE
    windows.end(window, filled=True)


def begin(
    windows: Windows,
    start: int = 0,
    segment: int = 3,
    sequence: int = 7,
    size: int = WINDOW_SIZE,
) -> Window:
    """Begin to read one."""
    window = windows.begin(at(start, segment), sequence, start, size)
    assert window is not None
    return window


# --- What follows -----------------------------------------------------------------------


def test_the_first_unit_follows_none(windows: Windows) -> None:
    assert not windows.follows(at(0), 7)


@pytest.mark.parametrize("gap", [0, 64, NEAR])
def test_a_unit_shortly_behind_another_follows_it(windows: Windows, gap: int) -> None:
    windows.follows(at(0), 7)
    assert windows.follows(at(SIZE + gap), 7)
    assert windows.follows(at(2 * SIZE + 2 * gap), 7)


@pytest.mark.parametrize(
    ("extent", "sequence"),
    [
        (at(SIZE + NEAR + 64), 7),  # too far
        (at(8192 - 64), 7),  # before its end
        (at(0), 7),  # itself
        (at(8192 + SIZE, segment=4), 7),
        (at(8192 + SIZE), 8),  # the segment has been filled anew
    ],
)
def test_no_other_unit_does(windows: Windows, extent: Extent, sequence: int) -> None:
    offset = 0 if extent.offset == SIZE + NEAR + 64 else 8192
    windows.follows(at(offset), 7)
    assert not windows.follows(extent, sequence)


def test_two_readers_are_told_apart(windows: Windows) -> None:
    windows.follows(at(0), 7)
    windows.follows(at(0, segment=5), 9)
    for number in range(1, 20):
        assert windows.follows(at(number * SIZE), 7)
        assert windows.follows(at(number * SIZE, segment=5), 9)


def test_a_reader_in_order_is_remembered_among_some_that_are_not(windows: Windows) -> None:
    windows.follows(at(0), 7)
    for number in range(1, 8):
        assert not windows.follows(at(number * 99 * SIZE, segment=8), 11)
    assert windows.follows(at(SIZE), 7)


# --- What is found ----------------------------------------------------------------------


def test_nothing_is_found_before_anything_is_read(windows: Windows) -> None:
    for sequence in (0, 7):
        assert windows.find(Extent(0, 0, SIZE, 1), sequence) is None


def test_there_is_no_window_before_a_backing_comes() -> None:
    windows = Windows()
    assert windows.begin(at(0), 7, 0, WINDOW_SIZE) is None
    assert windows.find(at(0), 7) is None


def test_units_within_a_window_are_found(windows: Windows) -> None:
    window = begin(windows, 4096)
    window.memory[:] = bytes(range(256)) * (WINDOW_SIZE // 256)
    windows.end(window, filled=True)
    for offset in (4096, 4096 + 64, 9 * 4096, 4096 + WINDOW_SIZE - SIZE):
        start = (offset - 4096) % 256
        right = (bytes(range(256)) * 20)[start : start + SIZE]
        assert windows.find(at(offset), 7) == right


@pytest.mark.parametrize(
    ("extent", "sequence"),
    [
        (at(4096 - 64), 7),  # it begins before
        (at(4096 + WINDOW_SIZE - SIZE + 64), 7),  # it ends behind
        (at(4096 + WINDOW_SIZE), 7),
        (at(0), 7),
        (at(8192, segment=4), 7),
        (at(8192), 6),
        (at(8192), 8),
        (at(8192), 0),
    ],
)
def test_what_a_window_does_not_hold_is_not_found(
    windows: Windows, extent: Extent, sequence: int
) -> None:
    """Least of all what is of another filling: a stale window is never found."""
    fill(windows, 4096)
    assert windows.find(at(8192), 7) is not None
    assert windows.find(extent, sequence) is None


def test_a_window_read_in_part_holds_that_part(windows: Windows) -> None:
    windows.end(begin(windows, size=8192), filled=True)
    assert windows.find(at(8192 - SIZE), 7) is not None
    assert windows.find(at(8192 - SIZE + 64), 7) is None


def test_a_window_that_could_not_be_read_holds_nothing(windows: Windows) -> None:
    windows.end(begin(windows), filled=False)
    assert windows.find(at(0), 7) is None


# --- Memory -----------------------------------------------------------------------------


def test_the_memory_that_is_filled_holds_nothing_of_before(windows: Windows) -> None:
    """It may be a part of the old and a part of the new."""
    for number in range(WINDOWS):
        fill(windows, number * WINDOW_SIZE)
    window = begin(windows, 9 * WINDOW_SIZE)
    assert windows.find(at(0), 7) is None
    assert windows.find(at(WINDOW_SIZE), 7) is not None
    windows.end(window, filled=True)
    assert windows.find(at(0), 7) is None
    assert windows.find(at(9 * WINDOW_SIZE), 7) is not None


@pytest.mark.parametrize("filled", [True, False])
def test_who_wants_what_is_being_read_waits_for_it(windows: Windows, filled: bool) -> None:
    window = begin(windows)
    window.memory[:] = b"x" * WINDOW_SIZE
    found: list[bytes | None] = []
    wanting = threading.Event()

    def want() -> None:
        wanting.set()
        found.append(windows.find(at(0), 7))

    def end() -> None:
        assert wanting.wait(20)
        assert not found
        windows.end(window, filled=filled)

    run_threads([want, end])
    assert found == [b"x" * SIZE if filled else None]


def test_the_oldest_is_used_again(windows: Windows) -> None:
    for number in range(WINDOWS + 2):
        fill(windows, number * WINDOW_SIZE, mark=number)
    found = [windows.find(at(number * WINDOW_SIZE), 7) for number in range(WINDOWS + 2)]
    assert found == [None] * 2 + [bytes([number]) * SIZE for number in range(2, WINDOWS + 2)]


def test_memory_is_used_again_only_when_nobody_fills_it(windows: Windows) -> None:
    busy = [begin(windows, number * WINDOW_SIZE) for number in range(WINDOWS)]
    assert len({id(window) for window in busy}) == WINDOWS
    assert windows.begin(at(9 * WINDOW_SIZE), 7, 9 * WINDOW_SIZE, WINDOW_SIZE) is None
    windows.end(busy[2], filled=True)
    assert begin(windows, 9 * WINDOW_SIZE) is busy[2]
    assert windows.begin(at(8 * WINDOW_SIZE), 7, 8 * WINDOW_SIZE, WINDOW_SIZE) is None
    assert windows.find(at(2 * WINDOW_SIZE), 7) is None


def test_memory_is_taken_once(windows: Windows) -> None:
    fill(windows, 0)
    windows.prepare()
    assert windows.find(at(0), 7) is not None
    for number in range(WINDOWS):
        begin(windows, number * WINDOW_SIZE, sequence=8)
    assert windows.begin(at(0), 9, 0, WINDOW_SIZE) is None


def test_what_was_found_stays_when_the_window_is_used_again(windows: Windows) -> None:
    fill(windows, 0, mark=1)
    found = windows.find(at(0), 7)
    for number in range(WINDOWS):
        fill(windows, number * WINDOW_SIZE, mark=9, sequence=8)
    assert found == bytes([1]) * SIZE


def test_nothing_is_read_twice(windows: Windows) -> None:
    """What a window holds, or is about to hold, is not read again."""
    window = begin(windows)
    assert windows.begin(at(SIZE), 7, 0, WINDOW_SIZE) is None
    windows.end(window, filled=True)
    assert windows.begin(at(SIZE), 7, 0, WINDOW_SIZE) is None
    assert windows.begin(at(SIZE), 8, 0, WINDOW_SIZE) is not None
    fill(windows, WINDOW_SIZE)


def test_who_does_not_wait_finds_what_is_there(windows: Windows) -> None:
    window = begin(windows)
    assert windows.find(at(0), 7, wait=False) is None
    windows.end(window, filled=True)
    assert windows.find(at(0), 7, wait=False) is not None
