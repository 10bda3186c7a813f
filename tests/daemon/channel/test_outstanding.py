"""Requests that have left their receive buffers: another worker finds what was not answered."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswapd.channel import Outstanding

PLACE = 512
PLACES = 8
HEADER = struct.Struct("<IIQQIIIHH")
RESENT = 1 << 63


def request(unique: int, size: int = 80) -> bytes:
    """A request of `size` bytes, each of which tells where it comes from."""
    filler = bytes((unique + at) % 251 + 1 for at in range(size - HEADER.size))
    return HEADER.pack(size, 15, unique, 2, 0, 0, 0, 0, 0) + filler


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(PLACES * PLACE))


@pytest.fixture
def outstanding(memory: memoryview) -> Outstanding:
    return Outstanding(memory)


def keep(outstanding: Outstanding, unique: int, size: int = 80) -> bool:
    return outstanding.keep(unique, memoryview(request(unique, size)))


def test_at_first_nothing_is_kept(outstanding: Outstanding) -> None:
    assert outstanding.all() == []
    assert 2 not in outstanding


@pytest.mark.parametrize("unique", [2, RESENT | 6, (1 << 64) - 2])
@pytest.mark.parametrize("size", [40, 80, 511, 512])
def test_what_is_kept_is_found_whole_by_the_next(
    unique: int, size: int, outstanding: Outstanding, memory: memoryview
) -> None:
    assert keep(outstanding, unique, size)
    assert unique in outstanding
    successor = Outstanding(memory)
    assert successor.all() == [request(unique, size)]
    assert unique in successor


@pytest.mark.parametrize("size", [513, 4096, 1 << 20])
def test_of_a_long_request_the_beginning_is_kept(
    size: int, outstanding: Outstanding, memory: memoryview
) -> None:
    """Its length says that there was more, so nobody takes it for a whole one."""
    assert keep(outstanding, 4, size)
    assert keep(outstanding, 6)
    kept, other = Outstanding(memory).all()
    assert kept == request(4, size)[:PLACE]
    assert int.from_bytes(kept[:4], "little") == size
    assert other == request(6)


def test_what_is_answered_is_forgotten(outstanding: Outstanding, memory: memoryview) -> None:
    keep(outstanding, 2)
    keep(outstanding, 4)
    outstanding.answered(2)
    assert (2 in outstanding, 4 in outstanding) == (False, True)
    assert outstanding.all() == Outstanding(memory).all() == [request(4)]


def test_what_was_not_kept_may_be_answered(outstanding: Outstanding, memory: memoryview) -> None:
    keep(outstanding, 2)
    for unique in (0, 4, RESENT | 2):
        outstanding.answered(unique)
    outstanding.answered(2)
    outstanding.answered(2)
    assert Outstanding(memory).all() == []


def test_a_full_table_refuses_and_keeps_what_it_has(
    outstanding: Outstanding, memory: memoryview
) -> None:
    uniques = range(2, 2 * PLACES + 2, 2)
    assert all(keep(outstanding, unique) for unique in uniques)
    assert not keep(outstanding, 100)
    assert 100 not in outstanding
    assert Outstanding(memory).all() == [request(unique) for unique in uniques]
    outstanding.answered(6)
    assert keep(outstanding, 100)
    assert request(100) in Outstanding(memory).all()


def test_a_successor_has_as_many_places(outstanding: Outstanding, memory: memoryview) -> None:
    for unique in (2, 4, 6):
        keep(outstanding, unique)
    successor = Outstanding(memory)
    assert sum(keep(successor, unique) for unique in range(100, 120, 2)) == PLACES - 3
    for unique in (2, 4, 6):
        successor.answered(unique)
    assert sum(keep(successor, unique) for unique in range(200, 220, 2)) == 3


def test_a_place_used_again_shows_nothing_of_what_was_there(
    outstanding: Outstanding, memory: memoryview
) -> None:
    for unique in range(2, 2 * PLACES + 2, 2):
        keep(outstanding, unique, 512)
        outstanding.answered(unique)
    for unique in range(102, 2 * PLACES + 102, 2):
        keep(outstanding, unique, 48)
    assert Outstanding(memory).all() == [
        request(unique, 48) for unique in range(102, 2 * PLACES + 102, 2)
    ]


def test_all_are_in_the_order_of_their_arrival(
    outstanding: Outstanding, memory: memoryview
) -> None:
    """Whatever places they have; the kernel counts `unique` up."""
    for unique in (2, 4, 6):
        keep(outstanding, unique)
    outstanding.answered(2)
    outstanding.answered(4)
    for unique in (8, 10, 12):
        keep(outstanding, unique)
    assert Outstanding(memory).all() == [request(unique) for unique in (6, 8, 10, 12)]


def test_clearing_frees_all_places(outstanding: Outstanding, memory: memoryview) -> None:
    for unique in range(2, 2 * PLACES + 2, 2):
        keep(outstanding, unique)
    outstanding.clear()
    assert outstanding.all() == Outstanding(memory).all() == []
    assert sum(keep(outstanding, unique) for unique in range(100, 140, 2)) == PLACES


def test_who_is_killed_while_keeping_leaves_nothing(memory: memoryview) -> None:
    """The length is written last."""

    class KilledError(Exception):
        pass

    class Memory:
        """Memory whose worker is killed before its second store."""

        stores = 0

        def __len__(self) -> int:
            return len(memory)

        def __getitem__(self, at: slice) -> memoryview:
            return memory[at]

        def __setitem__(self, at: slice, data: bytes) -> None:
            Memory.stores += 1
            if Memory.stores > 1:
                raise KilledError
            memory[at] = data

    outstanding = Outstanding(Memory())  # type: ignore[arg-type]
    with pytest.raises(KilledError):
        keep(outstanding, 2)
    assert any(memory)
    assert Outstanding(memory).all() == []


# --- Any sequence ----------------------------------------------------------------------


@dataclass
class Model:
    """What should be kept, and a table that is handed on from worker to worker."""

    memory: memoryview = field(default_factory=lambda: memoryview(bytearray(PLACES * PLACE)))
    kept: dict[int, bytes] = field(default_factory=dict)
    unique: int = 0

    def __post_init__(self) -> None:
        self.outstanding = Outstanding(self.memory)

    def keep(self, size: int) -> None:
        self.unique += 2
        room = len(self.kept) < PLACES
        assert keep(self.outstanding, self.unique, size) is room
        if room:
            self.kept[self.unique] = request(self.unique, size)[:PLACE]

    def answered(self, which: int) -> None:
        """One of those that are kept, or one that never was."""
        unique = [*self.kept, 1][which % (len(self.kept) + 1)]
        self.outstanding.answered(unique)
        self.kept.pop(unique, None)

    def take_over(self, _: int) -> None:
        self.outstanding = Outstanding(self.memory)


STEP = st.sampled_from([Model.keep, Model.keep, Model.answered, Model.take_over])


@given(st.lists(st.tuples(STEP, st.integers(40, 700)), max_size=60))
def test_another_worker_sees_exactly_what_was_left(
    steps: list[tuple[Callable[[Model, int], None], int]],
) -> None:
    model = Model()
    for step, number in steps:
        step(model, number)
        found = Outstanding(model.memory)
        assert found.all() == model.outstanding.all() == list(model.kept.values())
        assert all(unique in found for unique in model.kept)


def test_any_thread_may_keep_and_answer(memory: memoryview) -> None:
    outstanding = Outstanding(memory)
    failed: list[int] = []

    def use(first: int) -> None:
        for unique in range(first, first + 2000, 2):
            if not keep(outstanding, unique):
                failed.append(unique)
            outstanding.answered(unique)

    threads = [threading.Thread(target=use, args=(10_000 * index,)) for index in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert outstanding.all() == Outstanding(memory).all() == []
    assert sum(keep(outstanding, unique) for unique in range(2, 40, 2)) == PLACES
