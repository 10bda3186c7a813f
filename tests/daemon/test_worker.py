"""The worker without a mount: how it tells of its start, and what it does in the background.

What it does as a process is in tests/mount.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store.backing import MemoryBacking
from vswapd import channel, mounts
from vswapd import worker as module
from vswapd.config import Settings
from vswapd.memory import Preparation
from vswapd.notify import Ready
from vswapd.worker import Worker

SECONDS = 10


# --- Ready -----------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    for fd in (ours, theirs):
        with suppress(OSError):
            os.close(fd)


def test_a_line_is_told_and_the_pipe_closed(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    Ready(theirs).tell("ready")
    assert os.read(ours, 100) == b"ready\n"
    assert os.read(ours, 100) == b""


def test_only_the_first_line_is_told(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    ready = Ready(theirs)
    ready.tell("ready")
    ready.tell("error something later")
    assert os.read(ours, 100) == b"ready\n"


def test_nobody_need_wait() -> None:
    Ready(None).tell("ready")


def test_who_waited_may_be_gone(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    os.close(ours)
    Ready(theirs).tell("ready")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)


def test_a_path_that_is_no_utf8_can_be_told(pipe: tuple[int, int]) -> None:
    """As bytes, which is how the kernel and os.fsencode have it."""
    ours, theirs = pipe
    Ready(theirs).tell(f"error cannot mount on {os.fsdecode(b'/mnt/' + bytes([255]))}: why")
    assert os.read(ours, 100) == b"error cannot mount on /mnt/\xff: why\n"


def test_a_reason_is_one_line(pipe: tuple[int, int]) -> None:
    """Whoever waits reads one line, and a path may hold line ends."""
    ours, theirs = pipe
    Ready(theirs).tell("error cannot mount on /mnt/a\nready\n: why")
    assert os.read(ours, 100).count(b"\n") == 1


# --- In the background -----------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Without a mount."""
    settings = Settings(name="m", mount="/nowhere/m", size=64 << 20, threads=1)
    made = Worker(settings, Preparation(False, False, False))
    yield made
    made._state.close()
    os.close(made._wake_fd)


class Store:
    """A store whose upkeep the test plays, one call after the other."""

    def __init__(self, *calls: Callable[[], float]) -> None:
        self._calls = list(calls)
        self.called = trio.Event()
        self.threads: list[int] = []

    def maintain(self) -> None:
        self._next()

    def step(self) -> float:
        return self._next()

    def _next(self) -> float:
        self.threads.append(threading.get_ident())
        call = self._calls.pop(0) if self._calls else nothing
        if not self._calls:
            trio.from_thread.run_sync(self.called.set)
        return call()


def nothing() -> float:
    return 0.001


def told() -> Ready:
    """Of a worker that has started."""
    ready = Ready(None)
    ready.tell("ready")
    return ready


def fails(error: Exception) -> Callable[[], float]:
    def call() -> float:
        raise error

    return call


Play = Callable[..., Store]


@pytest.fixture(params=["_keep_ready", "_keep_small"])
def play(request: pytest.FixtureRequest, worker: Worker) -> Play:
    """Run one of the background's tasks until its last call, as often woken as it takes."""

    def run(*calls: Callable[[], float]) -> Store:
        store = Store(*calls)

        async def until_called() -> None:
            worker._store = store  # type: ignore[assignment]
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    task = getattr(worker, request.param)
                    nursery.start_soon(module._keep_going, task, told())
                    while not store.called.is_set():
                        worker._wake()
                        with trio.move_on_after(0.01):
                            await store.called.wait()
                    nursery.cancel_scope.cancel()

        trio.run(until_called)
        return store

    return run


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker waits for in the background is over soon."""
    for name in ("_RETRY_SECONDS", "_QUIET_SECONDS"):
        monkeypatch.setattr(module, name, 0.01, raising=False)


def test_the_store_is_kept_in_another_thread(play: Play) -> None:
    store = play(nothing)
    assert store.threads
    assert store.threads[0] != threading.get_ident()


def test_no_memory_for_the_reserve_is_told_and_tried_again(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    no_memory = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    play(fails(no_memory), nothing)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert os.strerror(errno.ENOMEM) in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_other_shortages_do_not_end_the_device(error: Exception, play: Play) -> None:
    """Memory is short: that is when a swap device is needed. Both are what Python raises then."""
    play(fails(error), nothing)


def test_what_fails_beside_the_data_plane_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[int] = []

    async def run() -> None:
        again = trio.Event()

        async def task() -> None:
            runs.append(1)
            if len(runs) < 3:
                raise ZeroDivisionError
            again.set()

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(module._keep_going, task, told())
                await again.wait()
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_what_fails_before_the_worker_is_ready_fails_the_start() -> None:
    async def task() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trio.run(module._keep_going, task, Ready(None))


@dataclass
class Stepped:
    """A store that asks to be left alone for an hour after each step."""

    detaching: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        self.backing = self
        self.called = trio.Event()

    def step(self) -> float:
        self.steps += 1
        trio.from_thread.run_sync(self.called.set)
        return 3600.0

    async def wait_called(self) -> None:
        await self.called.wait()
        self.called = trio.Event()


def keep_small(
    worker: Worker, store: Stepped, scenario: Callable[[], Awaitable[None]], clean: bool = True
) -> None:
    """Run the scenario beside the background's task, which is never tired of waiting."""
    worker._settings = replace(worker._settings, clean=clean)
    worker._store = store  # type: ignore[assignment]

    async def run() -> None:
        worker._stirred = trio.Event()
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker._keep_small)
                await scenario()
                nursery.cancel_scope.cancel()

    trio.run(run)


def test_what_is_new_to_do_is_begun_at_once(worker: Worker) -> None:
    """However long the store wanted to be left alone; and each time anew."""
    store = Stepped()

    async def scenario() -> None:
        await store.wait_called()
        for _ in range(3):
            worker._stir()
            await store.wait_called()

    keep_small(worker, store, scenario)
    assert store.steps == 4


def test_without_news_the_store_is_left_alone(worker: Worker) -> None:
    store = Stepped()

    async def scenario() -> None:
        await store.wait_called()
        await trio.testing.wait_all_tasks_blocked()

    keep_small(worker, store, scenario)
    assert store.steps == 1


def test_news_of_when_nobody_waits_are_not_lost(worker: Worker) -> None:
    store = Stepped()

    async def stir_first() -> None:
        worker._stir()
        worker._stir()
        await store.wait_called()
        await store.wait_called()

    keep_small(worker, store, stir_first)
    assert store.steps == 2


def test_without_cleaning_only_detaching_is_done(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 3600.0)
    store = Stepped()

    async def scenario() -> None:
        for _ in range(3):
            worker._stir()
            await trio.testing.wait_all_tasks_blocked()
        assert store.steps == 0
        store.detaching = True
        worker._stir()
        await store.wait_called()

    keep_small(worker, store, scenario, clean=False)
    assert store.steps == 1


def test_waking_never_waits(worker: Worker) -> None:
    for _ in range(10_000):
        worker._wake()


# --- The backing -----------------------------------------------------------------------


class Opened:
    """What was opened as a backing, and what was closed."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.closed: list[str] = []

    def open(self, path: str) -> MemoryBacking:
        self.paths.append(path)
        backing = MemoryBacking(8 * SEGMENT_SIZE, path)
        backing.close = lambda: self.closed.append(path)  # type: ignore[method-assign]
        return backing


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """In the place of files."""
    made = Opened()
    monkeypatch.setattr(module, "FileBacking", made)
    return made


@pytest.fixture
def locked(worker: Worker) -> Worker:
    """One whose memory does not get to a disk."""
    worker._preparation = Preparation(True, False, False)
    return worker


def test_a_backing_is_attached_to_the_store(locked: Worker, opened: Opened) -> None:
    locked._attach("/file")
    statistics = locked._store.backing.statistics()
    assert (statistics.backing, statistics.backing_state) == ("/file", "attached")
    assert opened.closed == []
    locked._store.close()
    assert opened.closed == ["/file"]


def test_without_locked_memory_no_backing_is_opened(worker: Worker, opened: Opened) -> None:
    """For its key lies in memory."""
    with pytest.raises(UserError, match="needs locked memory") as refused:
        worker._attach("/file")
    assert "\n" not in str(refused.value)
    assert opened.paths == []
    assert worker._store.backing.statistics().backing_state == "none"


def test_a_backing_that_the_store_does_not_take_is_closed(locked: Worker, opened: Opened) -> None:
    locked._attach("/first")
    with pytest.raises(UserError, match="/first is attached already"):
        locked._attach("/second")
    assert opened.closed == ["/second"]
    assert locked._store.backing.statistics().backing == "/first"


def test_a_backing_that_cannot_be_opened_is_a_user_error(locked: Worker, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        locked._attach(str(tmp_path / "missing"))
    assert locked._store.backing.statistics().backing_state == "none"


def test_what_a_backing_needs_is_warmed_up_before_it_is_opened(
    locked: Worker, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[bool] = []
    monkeypatch.setattr(module, "warm_up_backing", lambda policy: warmed.append(bool(opened.paths)))
    locked._attach("/file")
    assert warmed == [False]


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, (0, False)), (0, (0, False)), (512, (512, True))]
)
def test_a_device_may_have_a_backing_and_a_limit_from_the_start(
    limit: int | None, expected: tuple[int, bool], opened: Opened
) -> None:
    settings = Settings("m", "/nowhere/m", 64 << 20, threads=1, backing="/file")
    settings = replace(settings, writeback_limit=limit)
    made = Worker(settings, Preparation(True, False, False))
    try:
        found = made._store.backing.statistics()
        assert (found.backing, found.backing_state) == ("/file", "attached")
        assert (found.writeback_limit, found.writeback_limit_enable) == expected
    finally:
        made._store.close()
        made._state.close()
        os.close(made._wake_fd)


def test_a_device_without_a_backing_opens_none(worker: Worker, opened: Opened) -> None:
    assert opened.paths == []
    assert worker._store.backing.statistics().backing_state == "none"


# --- Leaving no mount behind -----------------------------------------------------------


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mount points that were detached, instead of detaching them."""
    gone: list[str] = []

    def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
        assert lazy
        gone.append(mount_point)

    monkeypatch.setattr(channel, "unmount", unmount)
    return gone


def mounted(monkeypatch: pytest.MonkeyPatch, device: str | None) -> None:
    monkeypatch.setattr(mounts, "top_mount", {"/nowhere/m": device}.get)


def test_its_own_dead_mount_is_detached(
    worker: Worker, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "0:39")
    worker._detach("/nowhere/m", "0:39")
    assert unmounted == ["/nowhere/m"]


@pytest.mark.parametrize(("there", "mine"), [("0:40", "0:39"), (None, "0:39"), ("0:40", None)])
def test_what_is_not_its_own_is_let_alone(
    there: str | None,
    mine: str | None,
    worker: Worker,
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, there)
    worker._detach("/nowhere/m", mine)
    assert unmounted == []


def test_a_mount_that_cannot_be_detached_is_no_error(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    mounted(monkeypatch, "0:39")
    monkeypatch.setattr(channel, "unmount", unmount)
    worker._detach("/nowhere/m", "0:39")
