"""More time from systemd, for as long as something takes."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from vswapd.cli import grace
from vswapd.cli.grace import asking_for_time

if TYPE_CHECKING:
    from daemon.conftest import Systemd

LINE = ["EXTEND_TIMEOUT_USEC=30000000"]


@pytest.fixture
def unit(systemd: Systemd, address: str, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """Whose time runs."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(grace, "_EVERY_SECONDS", 0.001)
    return systemd


class Left:
    """What is left to be done, as it is looked at: then the last for ever."""

    def __init__(self, *amounts: int) -> None:
        self._amounts = list(amounts)
        self.looks = 0
        self.enough = threading.Event()

    def __call__(self) -> int:
        self.looks += 1
        if self.looks > len(self._amounts) + 2:
            self.enough.set()
        return self._amounts[min(self.looks, len(self._amounts)) - 1]


def test_it_is_asked_at_once_and_again(unit: Systemd) -> None:
    told: list[list[str]] = []
    with asking_for_time(lambda: 1):
        while len(told) < 3:
            told += unit.hear()
    unit.hear()
    assert told[:3] == [LINE] * 3
    assert unit.hear() == []  # and not when it is over


@pytest.mark.parametrize(
    ("amounts", "times"),
    [
        pytest.param([5], 1, id="hangs"),
        pytest.param([5, 4, 3, 2], 4, id="gets on, then hangs"),
        pytest.param([5, 6, 5], 1, id="more is no progress"),
        pytest.param([5, 5, 5, 4], 2, id="gets on after all"),
    ],
)
def test_what_does_not_get_on_is_given_no_more(
    amounts: list[int], times: int, unit: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "_IDLE_SECONDS", 0.5)
    clock = itertools.count()  # a second later each time that it is looked at
    monkeypatch.setattr(grace, "monotonic", lambda: next(clock))
    left = Left(*amounts)
    with asking_for_time(left):
        assert left.enough.wait(10)
    assert unit.hear() == [LINE] * times


def test_nobody_is_asked_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    left = Left(1)
    with asking_for_time(left):
        pass
    assert not left.looks


def test_an_error_in_the_block_is_passed_on(unit: Systemd) -> None:
    looked = threading.Event()

    def left() -> int:
        looked.set()
        return 1

    with pytest.raises(KeyError), asking_for_time(left):
        assert looked.wait(10)
        raise KeyError
    assert unit.hear()[0] == LINE
