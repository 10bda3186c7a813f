"""The worker without a mount: how it tells of its start, and what it does in the background.

What it does as a process is in tests/mount.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from vswapd import channel, mounts
from vswapd import worker as module
from vswapd.config import Settings
from vswapd.memory import Preparation
from vswapd.mounts import Device
from vswapd.worker import Ready, Worker

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


def settings(mount: str) -> Settings:
    return Settings(name="m", mount=mount, size=64 << 20, threads=1)


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[[str], Worker]:
    """Makes workers, which mount nothing yet, for a mount point."""

    def worker(mount: str) -> Worker:
        made = Worker(settings(mount), Preparation(False, False, False))
        request.addfinalizer(lambda: os.close(made._wake_fd))
        request.addfinalizer(made._state.close)
        return made

    return worker


@pytest.fixture
def worker(make: Callable[[str], Worker]) -> Worker:
    return make("/nowhere/m")


class Store:
    """A store whose maintenance the test plays, one call after the other."""

    def __init__(self, *calls: Callable[[], None]) -> None:
        self._calls = list(calls)
        self.called = trio.Event()
        self.threads: list[int] = []

    def maintain(self, *_how: object) -> None:
        self.threads.append(threading.get_ident())
        call = self._calls.pop(0) if self._calls else None
        if not self._calls:
            trio.from_thread.run_sync(self.called.set)
        if call:
            call()


def nothing() -> None:
    pass


def fails(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def maintain(worker: Worker, *calls: Callable[[], None]) -> Store:
    """Run the background until its last call, as often woken as it takes."""
    store: Store | None = None

    async def run() -> None:
        nonlocal store
        store = Store(*calls)
        worker._store = store  # type: ignore[assignment]
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                worker._wake()
                nursery.start_soon(module._keep_going, worker._maintain)
                await store.called.wait()
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert store is not None
    return store


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker waits for in the background is over soon."""
    for name in ("_RETRY_SECONDS", "_QUIET_SECONDS"):
        monkeypatch.setattr(module, name, 0.01, raising=False)


def test_a_wake_has_the_store_maintained_in_another_thread(worker: Worker) -> None:
    store = maintain(worker, nothing)
    assert store.threads
    assert store.threads[0] != threading.get_ident()


def test_no_memory_for_the_reserve_is_told_and_tried_again(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    no_memory = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    maintain(worker, fails(no_memory), nothing)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert os.strerror(errno.ENOMEM) in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_other_shortages_do_not_end_the_device(error: Exception, worker: Worker) -> None:
    """Memory is short: that is when a swap device is needed. Both are what Python raises then."""
    maintain(worker, fails(error), nothing)


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
                nursery.start_soon(module._keep_going, task)
                await again.wait()
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_waking_never_waits(worker: Worker) -> None:
    for _ in range(10_000):
        worker._wake()


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


def mounted(monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
    monkeypatch.setattr(mounts, "devices", lambda: list(devices))


def test_its_own_dead_mount_is_detached(
    worker: Worker, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, Device("m", "/nowhere/m"))
    worker._detach()
    assert unmounted == ["/nowhere/m"]


@pytest.mark.parametrize(
    "other",
    [Device("other", "/nowhere/m"), Device("m", "/nowhere/other")],
    ids=["other name", "other place"],
)
def test_others_mounts_are_let_alone(
    other: Device, worker: Worker, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, other)
    worker._detach()
    assert unmounted == []


def test_a_mount_that_cannot_be_detached_is_no_error(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    mounted(monkeypatch, Device("m", "/nowhere/m"))
    monkeypatch.setattr(channel, "unmount", unmount)
    worker._detach()


@pytest.mark.parametrize("given", ["link/m", "real/m/"])
def test_a_mount_is_known_by_whatever_path_it_was_given(
    given: str,
    tmp_path: Path,
    make: Callable[[str], Worker],
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mountinfo has the path without links and without a slash at its end."""
    (tmp_path / "real" / "m").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    mounted(monkeypatch, Device("m", f"{tmp_path}/real/m"))
    make(f"{tmp_path}/{given}")._detach()
    assert len(unmounted) == 1
