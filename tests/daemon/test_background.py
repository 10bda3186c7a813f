"""Background work: done in other threads, which stand back."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from vswap import libc
from vswapd import background
from vswapd.background import in_background

USUAL = 3e-3


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio keeps its threads, and what they were told with them."""
    monkeypatch.setattr(background, "_prepared", threading.local())


def test_the_answer_is_that_of_the_work() -> None:
    async def main() -> None:
        assert await in_background(lambda: threading.current_thread().name) != "MainThread"

    trio.run(main)


def test_what_the_work_raises_is_raised() -> None:
    def fail() -> None:
        raise OSError(errno.ENOMEM, "scripted")

    async def main() -> None:
        with pytest.raises(OSError, match="scripted"):
            await in_background(fail)

    trio.run(main)
    assert sys.getswitchinterval() == pytest.approx(USUAL)


def test_threads_are_changed_sooner_while_any_work_is_done() -> None:
    seen: list[float] = []
    first_is_done, second_has_begun = threading.Event(), threading.Event()

    def first() -> None:
        seen.append(sys.getswitchinterval())
        assert second_has_begun.wait(10)

    def second() -> None:
        second_has_begun.set()
        assert first_is_done.wait(10)
        seen.append(sys.getswitchinterval())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_background, second)
            await in_background(first)
            first_is_done.set()

    trio.run(main)
    assert seen == pytest.approx([background._SHORT_SWITCH_SECONDS] * 2)
    assert sys.getswitchinterval() == pytest.approx(USUAL)


def test_each_thread_asks_once_for_long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(libc, "set_slice", asked.append)

    async def main() -> None:
        for _ in range(3):
            await in_background(lambda: None)

    trio.run(main)
    assert asked == [background._LONGEST_SLICE_NS]


def test_its_thread_is_an_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the one is that has started it."""
    gave: list[int] = []
    monkeypatch.setattr(background, "give_precedence", lambda: gave.append(threading.get_ident()))

    async def main() -> int:
        return await in_background(threading.get_ident)

    assert trio.run(main) == gave[0] != threading.get_ident()
    assert len(gave) == 1


def test_it_is_done_without_long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_nanoseconds: int) -> None:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(libc, "set_slice", refuse)

    async def main() -> None:
        assert await in_background(lambda: 7) == 7

    trio.run(main)


def test_a_slice_can_be_asked_for() -> None:
    """Of the real kernel, for a thread that ends then."""
    failed: list[OSError] = []

    def ask() -> None:
        try:
            libc.set_slice(background._LONGEST_SLICE_NS)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(10)
    assert [error.errno for error in failed] in ([], [errno.ENOSYS])
