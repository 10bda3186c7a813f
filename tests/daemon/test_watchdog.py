"""Whether a worker hangs, as the receive buffers and the connection show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from vswapd.watchdog import Watchdog

PATIENCE = 30.0
FREE = bytes(16)


def sign(unique: int, length: int = 80) -> bytes:
    """The beginning of a request in a receive buffer."""
    return length.to_bytes(4, "little") + bytes(4) + unique.to_bytes(8, "little")


@dataclass
class Worker:
    """What a worker's buffers show, and whether requests wait for it."""

    signs: list[bytes] = field(default_factory=lambda: [FREE, FREE])
    waiting: bool = False
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.patience, lambda: tuple(self.signs), lambda: self.waiting)

    def look(self, *times: float) -> list[bool]:
        """What it says at these times. It looks each second between them, too."""
        said = []
        for before, now in pairwise([times[0], *times]):
            for second in range(int(before) + 1, int(now)):
                self.watchdog.look(second)
            said.append(self.watchdog.look(now))
        return said


def test_an_idle_worker_does_not_hang() -> None:
    assert Worker().look(0, 1000, 2000) == [False] * 3


@pytest.mark.parametrize(
    "worker",
    [
        pytest.param(Worker(waiting=True), id="nobody receives"),
        pytest.param(Worker([sign(2), FREE]), id="one is not answered"),
        pytest.param(Worker([sign(2), sign(4)], waiting=True), id="none is answered"),
    ],
)
def test_without_any_change_it_hangs_when_patience_ends(worker: Worker) -> None:
    times = (100, 100 + PATIENCE - 1, 100 + PATIENCE, 100 + PATIENCE + 1)
    assert worker.look(*times) == [False, False, True, True]


def test_a_worker_that_answers_does_not_hang_however_much_waits() -> None:
    worker = Worker(waiting=True)
    for number in range(10):
        worker.signs = [sign(2 * number + 2), FREE]
        assert worker.look(number * PATIENCE) == [False]


def test_one_buffer_that_changes_is_enough() -> None:
    """A thread that compresses for long stands beside one that serves."""
    worker = Worker([sign(2), FREE])
    for number in range(10):
        worker.signs[1] = sign(2 * number + 4)
        assert worker.look(number * PATIENCE) == [False]


def test_the_same_length_with_another_unique_is_a_change() -> None:
    worker = Worker([sign(2), FREE])
    assert worker.look(0, PATIENCE - 1) == [False, False]
    worker.signs[0] = sign(4)
    assert worker.look(PATIENCE, 2 * PATIENCE - 1, 2 * PATIENCE) == [False, False, True]


def test_rest_in_between_begins_anew() -> None:
    worker = Worker([sign(2), FREE])
    worker.look(0)
    worker.signs[0] = FREE
    worker.look(PATIENCE - 1)
    worker.signs[0] = sign(2)
    assert worker.look(PATIENCE, 2 * PATIENCE - 1) == [False, False]


def test_what_lay_in_the_buffer_before_is_no_request() -> None:
    """All but its length stays there when it has been answered."""
    answered = bytes(4) + sign(2)[4:]
    assert Worker([answered, answered]).look(0, PATIENCE, 2 * PATIENCE) == [False] * 3


def test_the_time_nobody_looked_at_is_no_time_it_hung() -> None:
    """Who looks may have had to wait himself, for memory say; what waits has just come."""
    worker = Worker()
    worker.look(0)
    worker.waiting = True
    assert worker.look(1000, 1000 + PATIENCE) == [False, True]


def test_a_pause_of_both_is_no_time_it_hung() -> None:
    """All of us may be suspended, each in the middle of what it does."""
    worker = Worker([sign(2), FREE])
    assert worker.look(0, PATIENCE - 3) == [False, False]
    assert worker.look(1000) == [False]
    assert worker.look(1001) == [True]


def test_another_worker_is_given_all_the_time_again() -> None:
    worker = Worker(waiting=True)
    assert worker.look(0, PATIENCE) == [False, True]
    worker.watchdog.forgive()
    assert worker.look(PATIENCE + 1, 2 * PATIENCE) == [False, False]
    assert worker.look(2 * PATIENCE + 1) == [True]


def test_no_patience_is_endless() -> None:
    worker = Worker(waiting=True, patience=0)
    assert worker.look(0, 1, 10**6) == [False] * 3
