"""The worker without a mount: what it makes of a state, and what it does in the background.

What it does as a process is in tests/mount.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswap.proto import negotiate
from vswap.proto.abi import InitFlag
from vswap.proto.requests import Init
from vswap.store import Selection, State
from vswapd import worker as module
from vswapd.channel import Handshake
from vswapd.config import Settings
from vswapd.control import Rings
from vswapd.lockholder import lock_holders
from vswapd.memory import Preparation
from vswapd.messages import Link
from vswapd.office import Office
from vswapd.standby import shape_of
from vswapd.worker import Charge, Worker

if TYPE_CHECKING:
    from daemon.conftest import Keeping, MakeBacking

SECONDS = 10


# --- In the background -----------------------------------------------------------------


NOT_LOCKED = Preparation(memory_locked=False, io_flusher=False, oom_protected=False)
LOCKED = replace(NOT_LOCKED, memory_locked=True)
SETTINGS = Settings(name="m", mount="/nowhere/m", size=64 << 20, threads=1)


@dataclass
class Making:
    """Makes workers on one state, each as if the one before had been killed."""

    link: Link
    state: State
    rings: Rings
    made: list[Worker] = field(default_factory=list)

    def __call__(
        self,
        settings: Settings = SETTINGS,
        preparation: Preparation = NOT_LOCKED,
        agreed: Handshake | None = None,
        backing: tuple[int, str] | None = None,
    ) -> Worker:
        charge = Charge(-1, agreed, backing, restarts=0, supervisor=os.getpid())
        self.made.append(
            Worker(settings, preparation, self.state, Office(self.link), charge, self.rings)
        )
        return self.made[-1]


@pytest.fixture
def making(keeping: Keeping) -> Iterator[Making]:
    link, state = Link(keeping.end), State.create(shape_of(SETTINGS))
    making = Making(link, state, Rings.create())
    yield making
    making.rings.close()
    for worker in making.made:
        worker._store.close()
        os.close(worker._wake_fd)
    state.close()
    link.close()


@pytest.fixture
def worker(making: Making) -> Worker:
    """Of a new device, without a mount."""
    return making()


def agreed() -> Handshake:
    """What a predecessor has left of the handshake."""
    flags = InitFlag.ASYNC_DIO | InitFlag.BIG_WRITES | InitFlag.MAX_PAGES | InitFlag.DO_READDIRPLUS
    return Handshake(b"", negotiate(Init(2, 7, 40, 1 << 17, int(flags))))


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
            worker._serving = True
            worker._store = store  # type: ignore[assignment]
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    task = getattr(worker, request.param)
                    nursery.start_soon(worker._keep_going, task)
                    while not store.called.is_set():
                        worker._wake()
                        with trio.move_on_after(0.01):
                            await store.called.wait()
                    nursery.cancel_scope.cancel()

        real = worker._store
        trio.run(until_called)
        worker._store = real
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
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []
    worker._serving = True

    async def run() -> None:
        again = trio.Event()

        async def task() -> None:
            runs.append(1)
            if len(runs) < 3:
                raise ZeroDivisionError
            again.set()

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker._keep_going, task)
                await again.wait()
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_what_fails_before_the_worker_serves_fails_the_start(worker: Worker) -> None:
    async def task() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trio.run(worker._keep_going, task)


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
    real = worker._store
    worker._store = store  # type: ignore[assignment]

    async def run() -> None:
        worker._stirred = trio.Event()
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker._keep_small)
                await scenario()
                nursery.cancel_scope.cancel()

    trio.run(run)
    worker._store = real


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


def backing_of(worker: Worker) -> tuple[str | None, str]:
    statistics = worker._store.backing.statistics()
    return statistics.backing, statistics.backing_state


def test_a_backing_is_attached_to_the_store_and_held(
    making: Making, keeping: Keeping, make_backing: MakeBacking
) -> None:
    worker = making(preparation=LOCKED)
    path = make_backing("file")
    worker._attach(path)
    assert backing_of(worker) == (path, "attached")
    assert keeping.held == path


def test_a_backing_that_the_store_lets_go_is_dropped(
    making: Making, keeping: Keeping, make_backing: MakeBacking
) -> None:
    worker = making(preparation=LOCKED)
    worker._attach(make_backing("file"))
    worker._store.backing.begin_detach()
    while worker._store.backing.detaching:
        worker._store.step()
    keeping.hear_all(making.link)
    assert (keeping.told, keeping.held) == (["hold", "drop"], None)


def test_without_locked_memory_no_backing_is_opened(
    worker: Worker, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """For its key lies in memory."""
    with pytest.raises(UserError, match="needs locked memory") as refused:
        worker._attach(make_backing("file"))
    assert "\n" not in str(refused.value)
    assert keeping.told == []
    assert worker._store.backing.statistics().backing_state == "none"


def test_a_backing_that_the_store_does_not_take_is_closed_and_the_first_is_held_on(
    making: Making, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """If only the worker had the first, what is on it would die with the worker."""
    worker = making(preparation=LOCKED)
    first, second = make_backing("first"), make_backing("second")
    worker._attach(first)
    with pytest.raises(UserError, match="first is attached already"):
        worker._attach(second)
    assert backing_of(worker) == (first, "attached")
    keeping.hear_all(making.link)
    assert (keeping.held, [*keeping.files]) == (first, [first])
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert second not in links


def test_a_backing_that_cannot_be_opened_is_a_user_error(making: Making, tmp_path: Path) -> None:
    worker = making(preparation=LOCKED)
    with pytest.raises(UserError):
        worker._attach(str(tmp_path / "missing"))
    assert worker._store.backing.statistics().backing_state == "none"


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, (0, False)), (0, (0, False)), (512, (512, True))]
)
def test_a_device_may_have_a_backing_and_a_limit_from_the_start(
    limit: int | None, expected: tuple[int, bool], making: Making, make_backing: MakeBacking
) -> None:
    path = make_backing("file")
    settings = replace(SETTINGS, backing=path, writeback_limit=limit)
    worker = making(settings, LOCKED)
    assert backing_of(worker) == (path, "attached")
    found = worker._store.backing.statistics()
    assert (found.writeback_limit, found.writeback_limit_enable) == expected


def test_a_device_without_a_backing_opens_none(worker: Worker, keeping: Keeping) -> None:
    assert keeping.told == []
    assert worker._store.backing.statistics().backing_state == "none"


def test_a_successor_has_the_backing_that_was_attached_and_not_the_settings_s(
    making: Making, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """It may have been exchanged since; and what the settings name may be no more."""
    first, second = make_backing("first"), make_backing("second")
    settings = replace(SETTINGS, backing=first, writeback_limit=512)
    before = making(settings, LOCKED)
    before._store.backing.begin_detach()
    while before._store.backing.detaching:
        before._store.step()
    before._attach(second)
    before._store.backing.set_writeback_limit(100)
    page = memoryview(os.urandom(PAGE_SIZE))
    lane = before._store.lane()
    lane.write(0, page)
    assert before._store.backing.write_back(Selection(huge=None, cold=None)) == 1
    Path(first).unlink()
    after = making(settings, LOCKED, agreed(), (os.dup(keeping.files[second]), second))
    assert backing_of(after) == (second, "attached")
    assert after._store.backing.statistics().writeback_limit == 100
    assert b"".join(after._store.lane().read(0, PAGE_SIZE)) == page
    making.made.remove(before)
    os.close(before._wake_fd)


def test_a_successor_of_a_device_without_a_backing_opens_none(
    making: Making, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """Also if it began with one, which has been detached."""
    settings = replace(SETTINGS, backing=make_backing("file"))
    after = making(settings, LOCKED, agreed())
    assert after._store.backing.statistics().backing_state == "none"
    assert keeping.told == []


# --- One worker at a time ---------------------------------------------------------------


def test_a_worker_holds_the_lock_of_its_state(worker: Worker) -> None:
    """Seen from another process, for one's own lock is no obstacle."""
    pid = os.fork()
    if not pid:
        os._exit(lock_holders(worker._state.header.fd) != [os.getppid()])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_worker_waits_until_its_predecessor_has_ended(making: Making) -> None:
    """One that is being killed has its last system calls to finish, and they write to the state."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        fcntl.lockf(making.state.header.fd, fcntl.LOCK_EX)
        os.write(theirs, b"locked")
        signal.pause()
        os._exit(1)
    assert os.read(ours, 10) == b"locked"
    order: list[str] = []

    def make() -> None:
        making()
        order.append("made")

    thread = threading.Thread(target=make)
    thread.start()
    # It waits for the lock, which the kernel tells.
    while not waits_for_lock(pid):
        assert thread.is_alive()
    order.append("killed")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    thread.join(SECONDS)
    assert order == ["killed", "made"]
    os.close(ours)
    os.close(theirs)


def waits_for_lock(holder: int) -> bool:
    """Whether this process waits for a lock that `holder` has."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    held = {fields[0] for fields in lines if fields[1] == "POSIX" and int(fields[4]) == holder}
    return any(
        fields[0] in held and fields[1] == "->" and int(fields[5]) == os.getpid()
        for fields in lines
    )
