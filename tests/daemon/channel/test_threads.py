"""The data threads: one receives, the others serve, and all end together."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vswap.errors import RangeError
from vswap.proto import Request
from vswap.store import Lane, Parked
from vswapd.channel.done import MARK_SIZE, Done
from vswapd.channel.outstanding import Outstanding
from vswapd.channel.receiver import Receiver
from vswapd.channel.router import Router
from vswapd.channel.threads import DataThread, Turn

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel

SECONDS = 10
PAGE = 4096
LONG = 64 << 10
OUT = struct.Struct("<IiQ")


def ok(unique: int, body: bytes) -> bytes:
    return OUT.pack(OUT.size + len(body), 0, unique) + body


def eventually(true: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.001)
    return False


@dataclass
class SlowLane:
    """Reads are answered at once; everything else takes until `go`.

    `ahead` is what reading ahead does; as a rule there is nothing to do.
    """

    size: int = 4 << 20
    ahead: Callable[[], bool] = lambda: False
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Event = field(default_factory=threading.Event)

    def look(self, offset: int, size: int) -> list[bytes]:
        if size >= LONG:
            self._wait()
        return [bytes(size)]

    def read_ahead(self) -> bool:
        return self.ahead()

    def write(self, offset: int, data: memoryview) -> None:
        self._wait()

    def discard(self, offset: int, length: int) -> None:
        self._wait()

    def seek(self, offset: int, whence: int) -> int:
        self._wait()
        return offset

    def _wait(self) -> None:
        self.entered.release()
        if not self.go.wait(SECONDS):
            raise RangeError("nobody said go")

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=SECONDS)


@dataclass
class Served:
    """A connection with two data threads on one lane."""

    kernel: Kernel
    lane: SlowLane
    turn: Turn
    buffers: list[memoryview]
    threads: list[DataThread]
    ended: list[str]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            if thread.native_id:
                thread.join(SECONDS)

    def alive(self) -> list[bool]:
        return [thread._thread.is_alive() for thread in self.threads]


def nothing() -> None:
    pass


def nobody(unique: int, read: Parked, received_ns: int) -> None:
    pytest.fail("nothing here is on disk")


@contextmanager
def prepared(kernel: Kernel, prepare: Callable[[], None] = nothing) -> Iterator[Served]:
    """Two data threads that have not begun yet."""
    turn, slow = Turn(), SlowLane()
    outstanding = Outstanding(memoryview(bytearray(8 << 10)))
    lane: Lane = slow  # type: ignore[assignment]
    buffers = [memoryview(bytearray(80 + (1 << 20))) for _ in range(2)]
    ended: list[str] = []
    threads = []
    for index, buffer in enumerate(buffers):
        receiver = Receiver(kernel.fd, buffer, 0)
        done = Done(memoryview(bytearray(MARK_SIZE)))
        router = Router(kernel.fd, buffer, lane, done, outstanding, lambda request: True, nobody)
        on_end = lambda: ended.append(threading.current_thread().name)  # noqa: E731
        threads.append(DataThread(index, receiver, router, turn, prepare, on_end))
    served = Served(kernel, slow, turn, buffers, threads, ended)
    try:
        yield served
    finally:
        slow.go.set()
        kernel.hang_up()
        served.join()


@contextmanager
def serving(kernel: Kernel, prepare: Callable[[], None] = nothing) -> Iterator[Served]:
    """The same, begun."""
    with prepared(kernel, prepare) as served:
        served.start()
        yield served


@pytest.fixture
def waiting(kernel: Kernel) -> Iterator[Served]:
    """Threads that begin when the test says so, with all requests there already."""
    with prepared(kernel) as made:
        yield made
    assert made.alive() == [False, False]


@pytest.fixture
def served(kernel: Kernel) -> Iterator[Served]:
    with serving(kernel) as made:
        yield made
    assert made.alive() == [False, False]


def long_requests(kernel: Kernel) -> dict[str, bytes]:
    return {
        "READ": kernel.read(0, LONG),
        "WRITE": kernel.write(0, bytes(LONG)),
        "FALLOCATE": kernel.fallocate(0, PAGE, 3),
        "LSEEK": kernel.lseek(0, os.SEEK_DATA),
    }


def test_requests_are_answered(served: Served, kernel: Kernel) -> None:
    for unique in range(2, 22, 2):
        kernel.send(kernel.read(0, PAGE, unique=unique))
        assert kernel.reply() == ok(unique, bytes(PAGE))


@pytest.mark.parametrize("name", ["READ", "WRITE", "FALLOCATE", "LSEEK"])
def test_a_long_request_does_not_stop_one_that_waits(
    name: str, waiting: Served, kernel: Kernel
) -> None:
    kernel.send(long_requests(kernel)[name])
    kernel.send(kernel.read(0, PAGE, unique=7))
    waiting.start()
    waiting.lane.wait_entered()
    assert kernel.reply() == ok(7, bytes(PAGE))


@pytest.mark.parametrize("name", ["FALLOCATE", "LSEEK"])
def test_a_request_of_any_length_does_not_stop_one_that_comes_later(
    name: str, served: Served, kernel: Kernel
) -> None:
    """A write is over after a megabyte, but a discard can be of a whole device."""
    kernel.send(long_requests(kernel)[name])
    served.lane.wait_entered()
    kernel.send(kernel.read(0, PAGE, unique=7))
    assert eventually(kernel.has_reply, 2)
    assert kernel.reply() == ok(7, bytes(PAGE))


def test_a_long_request_is_answered_when_it_is_done(served: Served, kernel: Kernel) -> None:
    kernel.send(kernel.write(0, bytes(LONG), unique=9))
    served.lane.wait_entered()
    served.lane.go.set()
    assert kernel.reply() == ok(9, struct.pack("<II", LONG, 0))


def test_two_long_requests_are_served_side_by_side(waiting: Served, kernel: Kernel) -> None:
    kernel.send(kernel.write(0, bytes(LONG)))
    kernel.send(kernel.write(LONG, bytes(LONG)))
    waiting.start()
    waiting.lane.wait_entered()
    waiting.lane.wait_entered()


def test_a_short_request_keeps_the_turn(served: Served, kernel: Kernel) -> None:
    kernel.send(kernel.write(0, bytes(PAGE)))
    served.lane.wait_entered()
    assert served.turn._lock.locked()


def test_a_short_request_that_gives_up_the_turn_is_answered_before_it_has_it_again(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread keeps the turn and receives nothing: the kernel waits for this answer."""
    given_up: list[bool] = []

    def write(offset: int, data: memoryview) -> None:
        served.turn.serve_without()
        served.turn.serve_without()
        assert eventually(served.turn._lock.locked)  # by the thread that waits for requests
        given_up.append(True)

    monkeypatch.setattr(served.lane, "write", write)
    for unique in range(2, 12, 2):
        kernel.send(kernel.write(0, bytes(PAGE), unique=unique))
        assert eventually(kernel.has_reply, 2)
        assert kernel.reply() == ok(unique, struct.pack("<II", PAGE, 0))
    assert len(given_up) == 5
    assert eventually(lambda: served.turn.serving == 0)  # a little after the answer


def test_after_a_long_request_a_thread_receives_again(served: Served, kernel: Kernel) -> None:
    served.lane.go.set()
    for unique in range(2, 42, 2):
        kernel.send(kernel.write(0, bytes(LONG), unique=unique))
        assert kernel.reply() == ok(unique, struct.pack("<II", LONG, 0))


def test_an_error_in_a_long_request_does_not_lose_the_turn(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(offset: int, data: memoryview) -> None:
        raise RangeError("scripted")

    monkeypatch.setattr(served.lane, "write", write)
    for unique in range(2, 42, 2):
        kernel.send(kernel.write(0, bytes(LONG), unique=unique))
        assert kernel.reply() == OUT.pack(OUT.size, -errno.EINVAL, unique)


def test_an_answered_request_is_no_more_in_its_buffer(waiting: Served, kernel: Kernel) -> None:
    """Or a successor would serve it again, over what was written since.

    One thread has served a long request and waits for the turn, which the other keeps.
    """
    kernel.send(kernel.write(0, bytes(LONG)))
    kernel.send(kernel.read(0, PAGE, unique=7))
    waiting.start()
    waiting.lane.wait_entered()
    assert kernel.reply() == ok(7, bytes(PAGE))  # so the other thread has the turn now
    waiting.lane.go.set()
    kernel.reply()
    empty = bytes(4)
    assert eventually(lambda: all(bytes(buffer[:4]) == empty for buffer in waiting.buffers), 2)


def test_a_thread_that_waits_for_its_turn_is_not_one_that_serves(
    waiting: Served, kernel: Kernel
) -> None:
    """Or the thread that receives would never ask before it sleeps, when all have nothing to do."""
    kernel.send(kernel.write(0, bytes(LONG)))
    kernel.send(kernel.read(0, PAGE, unique=7))
    waiting.start()
    waiting.lane.wait_entered()
    assert kernel.reply() == ok(7, bytes(PAGE))
    turn = waiting.threads[0]._turn
    assert turn.serving == 1
    waiting.lane.go.set()
    kernel.reply()
    assert eventually(lambda: turn.serving == 0)


# --- The turn ---------------------------------------------------------------------------


class Other:
    """Another thread that waits for the turn; it has it until `go`, and then gives it up."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.has = threading.Event()
        self.go = threading.Event()
        self.done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._turn.take()
        self.has.set()
        if self.go.wait(SECONDS):
            self.done = True
            self._turn.give_up()

    def end(self) -> None:
        self.go.set()
        self._thread.join(SECONDS)
        assert self.done


def test_the_turn_is_kept_when_nothing_is_pending() -> None:
    turn = Turn()
    turn.take()
    turn.offer(lambda: False)
    assert turn.serving == 0
    other = Other(turn)
    turn.take_back()
    assert not other.has.is_set()
    turn.give_up()
    other.end()


def test_the_turn_is_given_up_when_a_request_is_pending_and_taken_back() -> None:
    """Which waits until whoever has it meanwhile gives it up."""
    turn = Turn()
    turn.take()
    other = Other(turn)
    turn.offer(lambda: True)
    assert other.has.wait(SECONDS)
    assert turn.serving == 1
    other.go.set()
    turn.take_back()
    assert other.done
    assert turn.serving == 0
    other.end()
    other = Other(turn)
    assert not other.has.is_set()  # the turn is this thread's again
    turn.give_up()
    other.end()


def test_what_has_been_given_up_cannot_be_offered_again() -> None:
    """However often it is, while others have the turn: it is not the offering thread's."""
    turn = Turn()
    turn.take()
    other = Other(turn)
    for _ in range(3):
        turn.offer(lambda: True)
    assert other.has.wait(SECONDS)
    turn.offer(lambda: True)
    assert turn.serving == 1
    owner = turn._owner
    assert owner not in (0, threading.get_ident())
    other.go.set()
    turn.take_back()
    assert turn.serving == 0
    turn.give_up()
    other.end()


def test_who_never_had_the_turn_does_not_offer_it() -> None:
    turn = Turn()
    other = Other(turn)
    assert other.has.wait(SECONDS)
    turn.offer(lambda: True)
    assert turn.serving == 0
    assert turn._lock.locked()
    other.end()


def test_a_request_that_comes_while_a_short_one_is_served_is_answered_first(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the other thread, if the first offers its turn; each time anew."""
    answered: list[bytes] = []
    written = threading.Semaphore(0)

    def write(offset: int, data: memoryview) -> None:
        pending = served.threads[0].receiver.pending  # they ask about the same connection
        served.turn.offer(pending)
        assert served.turn._owner == threading.get_ident()
        kernel.send(kernel.read(0, PAGE, unique=7))
        served.turn.offer(pending)
        answered.append(kernel.reply())
        served.turn.offer(pending)
        written.release()

    monkeypatch.setattr(served.lane, "write", write)
    for unique in range(12, 22, 2):
        kernel.send(kernel.write(0, bytes(2 * PAGE), unique=unique))
        assert written.acquire(timeout=SECONDS)
        assert kernel.reply() == ok(unique, struct.pack("<II", 2 * PAGE, 0))
    assert answered == [ok(7, bytes(PAGE))] * 5
    assert eventually(lambda: served.turn.serving == 0)


# --- Between requests -------------------------------------------------------------------


@dataclass
class Ahead:
    """So much to prepare; tells what was done, in order, and when all of it is."""

    left: int
    steps: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def attach(self, monkeypatch: pytest.MonkeyPatch, lane: SlowLane) -> None:
        look = lane.look

        def noted(offset: int, size: int) -> list[bytes]:
            self.steps.append("read")
            return look(offset, size)

        monkeypatch.setattr(lane, "look", noted)
        monkeypatch.setattr(lane, "ahead", self.once)

    def once(self) -> bool:
        self.steps.append("ahead")
        if self.left:
            self.left -= 1
            return True
        self.done.set()
        return False

    def wait(self) -> None:
        assert self.done.wait(SECONDS)
        self.done.clear()


def test_what_there_is_to_prepare_is_prepared_between_requests(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Ahead(left=5)
    ahead.attach(monkeypatch, served.lane)
    for unique in (2, 4):
        kernel.send(kernel.read(0, PAGE, unique=unique))
        assert kernel.reply() == ok(unique, bytes(PAGE))
        ahead.wait()
    assert ahead.steps == ["read"] + ["ahead"] * 6 + ["read", "ahead"]


@pytest.mark.parametrize("nodeid", [2, 3], ids=["served here", "passed on"])
def test_any_request_is_followed_by_a_look_for_what_to_prepare(
    nodeid: int, served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Ahead(left=2)
    ahead.attach(monkeypatch, served.lane)
    served.lane.go.set()
    kernel.send(kernel.write(0, bytes(PAGE), nodeid=nodeid))
    ahead.wait()
    assert ahead.steps == ["ahead"] * 3


def test_a_request_is_answered_and_forgotten_before_anything_is_prepared(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the turn is kept: whoever takes it receives, and has something else to prepare."""
    found: list[tuple[bool, list[bytes], bool]] = []

    def look() -> bool:
        buffers = [bytes(buffer[:4]) for buffer in served.buffers]
        mine = served.turn._owner == threading.get_ident()
        found.append((kernel.has_reply(), buffers, mine))
        done.set()
        return False

    done = threading.Event()
    monkeypatch.setattr(served.lane, "ahead", look)
    kernel.send(kernel.read(0, PAGE))
    assert done.wait(SECONDS)
    assert found == [(True, [bytes(4), bytes(4)], True)]
    kernel.reply()


def test_preparing_stops_when_a_request_is_there(
    waiting: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is to prepare: after one piece, the request is served."""
    ahead = Ahead(left=1 << 60)
    ahead.attach(monkeypatch, waiting.lane)
    for unique in (2, 4, 6):
        kernel.send(kernel.read(0, PAGE, unique=unique))
    waiting.start()
    for unique in (2, 4, 6):
        assert kernel.reply() == ok(unique, bytes(PAGE))
    assert ahead.steps[:5] == ["read", "ahead", "read", "ahead", "read"]


def test_preparing_stops_when_a_request_comes(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Ahead(left=1 << 60)
    ahead.attach(monkeypatch, served.lane)
    for unique in range(2, 12, 2):
        kernel.send(kernel.read(0, PAGE, unique=unique))
        assert kernel.reply() == ok(unique, bytes(PAGE))


def test_preparing_stops_when_the_connection_ends(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Ahead(left=1 << 60)
    ahead.attach(monkeypatch, served.lane)
    kernel.send(kernel.read(0, PAGE))
    kernel.reply()
    kernel.hang_up()
    served.join()
    assert served.alive() == [False, False]
    assert len(served.ended) == 1


def test_a_failure_to_prepare_for_a_request_ends_no_thread(
    served: Served, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for what could not be prepared is told, and the others are served."""

    def fail() -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(served.lane, "ahead", fail)
    for unique in range(2, 12, 2):
        kernel.send(kernel.read(0, PAGE, unique=unique))
        assert kernel.reply() == ok(unique, bytes(PAGE))
    assert served.alive() == [True, True]


# --- The end ----------------------------------------------------------------------------


def test_all_threads_end_with_the_connection(served: Served, kernel: Kernel) -> None:
    kernel.hang_up()
    served.join()
    assert served.alive() == [False, False]


def test_the_end_is_told_once(served: Served, kernel: Kernel) -> None:
    kernel.hang_up()
    served.join()
    assert len(served.ended) == 1


def test_the_end_is_quiet(served: Served, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.hang_up()
    served.join()
    assert not caplog.records


def test_a_thread_that_serves_when_the_connection_ends_finishes_first(
    waiting: Served, kernel: Kernel
) -> None:
    kernel.send(kernel.write(0, bytes(LONG)))
    kernel.send(kernel.read(0, PAGE))
    waiting.start()
    waiting.lane.wait_entered()
    kernel.reply()  # so the other thread waits for requests
    kernel.hang_up()
    assert eventually(lambda: sorted(waiting.alive()) == [False, True])
    assert waiting.ended == []
    waiting.lane.go.set()
    waiting.join()
    assert waiting.alive() == [False, False]
    assert len(waiting.ended) == 1


def test_an_unforeseen_failure_ends_one_thread_and_the_others_go_on(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode = Router.decode
    failures = iter([ZeroDivisionError()])

    def failing_once(router: Router, length: int) -> Request | None:
        for failure in failures:
            raise failure
        return decode(router, length)

    monkeypatch.setattr(Router, "decode", failing_once)
    with serving(kernel) as served:
        kernel.send(kernel.read(0, PAGE))
        assert eventually(lambda: sorted(served.alive()) == [False, True])
        assert served.ended == []
        kernel.send(kernel.read(0, PAGE, unique=7))
        assert kernel.reply() == ok(7, bytes(PAGE))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_to_prepare_is_told(kernel: Kernel) -> None:
    """Or the file system would be mounted with nobody to serve it."""

    def prepare() -> None:
        raise OSError("scripted")

    with serving(kernel, prepare) as served:
        assert eventually(lambda: not any(served.alive()))
        assert len(served.ended) == 1


def test_each_thread_prepares_itself(kernel: Kernel) -> None:
    prepared: list[str] = []
    with serving(kernel, lambda: prepared.append(threading.current_thread().name)):
        assert eventually(lambda: len(prepared) == 2)
    assert sorted(prepared) == ["vswap-data-0", "vswap-data-1"]


def test_threads_have_the_kernel_s_numbers(served: Served) -> None:
    assert eventually(lambda: all(thread.native_id for thread in served.threads))
    assert len({thread.native_id for thread in served.threads}) == 2
