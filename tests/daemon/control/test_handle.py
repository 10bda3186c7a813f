"""File handles that tell what they were given for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswapd.control.handle import Handle

GENERATIONS = 1 << 16


@given(
    st.integers(0, (1 << 8) - 1),
    st.integers(0, (1 << 16) - 1),
    st.integers(0, (1 << 16) - 1),
    st.integers(0, (1 << 24) - 1),
)
def test_a_handle_says_what_it_was_made_of(
    inode: int, generation: int, counter: int, size: int
) -> None:
    handle = Handle.make(inode, generation, counter, size)
    assert handle == (inode, generation, counter, size)
    assert 0 <= handle.packed < 1 << 64
    assert Handle.of(handle.packed) == handle


@given(st.integers(0, (1 << 64) - 1))
def test_any_number_is_a_handle(packed: int) -> None:
    assert Handle.of(packed).packed == packed


def test_its_parts_lie_where_it_is_said() -> None:
    """Another version of us may read it."""
    assert Handle.make(0x11, 0x2233, 0x4455, 0x667788).packed == 0x6677882233114455


@pytest.mark.parametrize(
    ("given_", "made"),
    [
        ((256 + 4, 1, 2, 3), (4, 1, 2, 3)),
        ((4, GENERATIONS + 1, 2, 3), (4, 1, 2, 3)),
        ((4, 1, 65536 + 2, 3), (4, 1, 2, 3)),
        ((4, 1, 2, (1 << 24) + 3), (4, 1, 2, 3)),
    ],
)
def test_what_does_not_fit_is_cut_off_and_touches_nothing_else(
    given_: tuple[int, int, int, int], made: tuple[int, int, int, int]
) -> None:
    assert Handle.make(*given_) == made
    assert Handle.of(Handle.make(*given_).packed) == made


@pytest.mark.parametrize("generation", [0, 1, 7, GENERATIONS - 1, GENERATIONS, GENERATIONS + 7])
def test_it_is_of_the_worker_that_gave_it(generation: int) -> None:
    handle = Handle.of(Handle.make(4, generation, 1, 100).packed)
    assert handle.is_of(generation)
    assert not handle.is_of(generation + 1)
    assert not handle.is_of(generation - 1)
