"""Receiving: one thread waits for one request, asking for a while before it sleeps."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from vswapd.channel import receiver as module
from vswapd.channel.receiver import ConnectionClosedError, Receiver, ReceiverStatistics

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel

REQUEST = (44).to_bytes(4, "little") + bytes(range(40))
SPIN_US = 50
US = 1000


class Clock:
    """Nanoseconds that pass only when told to, or by `step` at each look."""

    def __init__(self) -> None:
        self.now = 0
        self.step = 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


class Poll:
    """A `select.poll` whose waiting is an action of the test's."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.poll = wait

    def register(self, fd: int, events: int) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "perf_counter_ns", fake)
    return fake


@pytest.fixture
def buffer() -> memoryview:
    """Full of what an earlier request left."""
    return memoryview(bytearray(b"\xaa" * 4096))


def errors_first(monkeypatch: pytest.MonkeyPatch, *codes: int) -> None:
    """Let the device fail with `codes`, one read after the other, before it works."""
    left = list(codes)
    real = os.readv

    def readv(fd: int, buffers: list[memoryview]) -> int:
        if left:
            raise OSError(left.pop(0), "scripted")
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)


def test_a_waiting_request_is_received_whole(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(REQUEST)
    assert Receiver(kernel.fd, buffer, SPIN_US).receive() == len(REQUEST)
    assert buffer[: len(REQUEST)] == REQUEST


def test_one_receive_takes_one_request(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(REQUEST)
    kernel.send(REQUEST + bytes(4))
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert [receiver.receive(), receiver.receive()] == [44, 48]


def test_a_request_that_was_there_counts_as_at_once(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(REQUEST)
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    receiver.receive()
    assert receiver.statistics() == ReceiverStatistics(at_once=1, spinning=0, sleeping=0)


def test_length_word_is_zero_while_waiting(
    kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def wait() -> None:
        seen.append(bytes(buffer[:4]))
        kernel.send(REQUEST)

    monkeypatch.setattr(select, "poll", lambda: Poll(wait))
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    kernel.send(REQUEST)
    receiver.receive()
    receiver.forget()
    receiver.receive()
    assert seen == [bytes(4)]


def test_what_a_predecessor_left_in_the_buffer_stays_until_it_is_dealt_with(
    kernel: Kernel, buffer: memoryview
) -> None:
    """Or nobody would answer it."""
    left = bytes(buffer)
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert bytes(buffer) == left
    receiver.forget()
    assert bytes(buffer) == bytes(4) + left[4:]


def test_length_word_is_set_when_a_request_lies_in_the_buffer(
    kernel: Kernel, buffer: memoryview
) -> None:
    kernel.send(REQUEST)
    Receiver(kernel.fd, buffer, SPIN_US).receive()
    assert buffer[:4] == REQUEST[:4]


def test_length_word_is_zero_again_once_the_request_is_dealt_with(
    kernel: Kernel, buffer: memoryview
) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    kernel.send(REQUEST)
    receiver.receive()
    receiver.forget()
    assert bytes(buffer[:4]) == bytes(4)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EAGAIN, errno.EINTR])
def test_nothing_there_yet_is_asked_again(
    code: int, kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors_first(monkeypatch, code, code)
    kernel.send(REQUEST)
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert receiver.receive() == len(REQUEST)
    assert receiver.statistics().sleeping == 1


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ECONNABORTED])
def test_the_end_of_the_connection_is_told(
    code: int, kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors_first(monkeypatch, code)
    with pytest.raises(ConnectionClosedError):
        Receiver(kernel.fd, buffer, SPIN_US).receive()


def test_the_end_is_told_to_who_sleeps(
    kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "poll", lambda: Poll(kernel.hang_up))
    with pytest.raises(ConnectionClosedError):
        Receiver(kernel.fd, buffer, SPIN_US).receive()


@pytest.mark.parametrize("code", [errno.EBADF, errno.EINVAL, errno.EPERM])
def test_a_descriptor_that_is_no_connection_is_not_asked_for_ever(
    code: int, kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fuse_dev_read() answers to every read: nothing will come of another one."""
    errors_first(monkeypatch, code)
    kernel.send(REQUEST)
    with pytest.raises(OSError, match="scripted"):
        Receiver(kernel.fd, buffer, SPIN_US).receive()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM, errno.EFAULT])
def test_a_request_that_cannot_be_received_does_not_stop_the_next(
    code: int,
    kernel: Kernel,
    buffer: memoryview,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel has answered that one with EIO; all others are there still.

    fuse_dev_do_read() in fs/fuse/dev.c: what copying the request out fails with is returned.
    """
    monkeypatch.setattr(module, "_AFTER_FAILURE_SECONDS", 0, raising=False)
    errors_first(monkeypatch, code)
    kernel.send(REQUEST)
    assert Receiver(kernel.fd, buffer, SPIN_US).receive() == len(REQUEST)
    assert caplog.records


# --- How long to ask before sleeping ---------------------------------------------------


def spin_times(receiver: Receiver, *slept_us: float) -> Iterator[float]:
    """How many microseconds it would ask after each of these sleeps."""
    for slept in slept_us:
        receiver._adapt(int(slept * US))
        yield receiver._spin_ns / US


def test_it_begins_without_asking(kernel: Kernel, buffer: memoryview) -> None:
    assert Receiver(kernel.fd, buffer, SPIN_US)._spin_ns == 0


def test_short_sleeps_make_it_ask_longer_up_to_the_limit(
    kernel: Kernel, buffer: memoryview
) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert list(spin_times(receiver, 1, 1, 1, 1, 1)) == [10, 20, 40, 50, 50]


def test_a_sleep_as_long_as_the_limit_is_short(kernel: Kernel, buffer: memoryview) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert list(spin_times(receiver, SPIN_US)) == [10]


def test_a_much_longer_sleep_ends_asking_at_once(kernel: Kernel, buffer: memoryview) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert list(spin_times(receiver, 1, 1, 1, 10 * SPIN_US)) == [10, 20, 40, 0]


def test_a_limit_below_the_first_step_is_kept(kernel: Kernel, buffer: memoryview) -> None:
    assert list(spin_times(Receiver(kernel.fd, buffer, 3), 1, 1)) == [3, 3]


@pytest.mark.parametrize("slept_us", [0, 1, 1000])
def test_a_limit_of_zero_never_asks(slept_us: int, kernel: Kernel, buffer: memoryview) -> None:
    assert list(spin_times(Receiver(kernel.fd, buffer, 0), slept_us)) == [0]


def test_a_request_that_comes_while_asking_is_counted_so(
    kernel: Kernel, buffer: memoryview, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    receiver._adapt(1)
    clock.step = US
    errors_first(monkeypatch, *[errno.EAGAIN] * 5)
    kernel.send(REQUEST)
    assert receiver.receive() == len(REQUEST)
    assert receiver.statistics() == ReceiverStatistics(at_once=0, spinning=1, sleeping=0)


def test_asking_ends_when_its_time_is_over(
    kernel: Kernel, buffer: memoryview, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []

    def wait() -> None:
        began.append(clock.now)
        kernel.send(REQUEST)

    monkeypatch.setattr(select, "poll", lambda: Poll(wait))
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    receiver._adapt(1)
    clock.step = US
    receiver.receive()
    assert 10 * US <= began[0] <= 14 * US
    assert receiver.statistics() == ReceiverStatistics(at_once=0, spinning=0, sleeping=1)


@pytest.mark.parametrize(("slept_us", "asks_us"), [(40, 20), (500, 0)])
def test_the_time_slept_decides_how_long_it_asks_next(
    slept_us: int,
    asks_us: int,
    kernel: Kernel,
    buffer: memoryview,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait() -> None:
        clock.now += slept_us * US
        kernel.send(REQUEST)

    monkeypatch.setattr(select, "poll", lambda: Poll(wait))
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    receiver._adapt(1)
    monkeypatch.setattr(receiver, "_spin", lambda: 0)  # in vain, and the clock stands still
    receiver.receive()
    assert receiver._spin_ns == asks_us * US


def test_it_does_not_ask_while_other_threads_serve(
    kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def spin() -> int:
        asked.append(1)
        return 0

    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    receiver._adapt(1)
    monkeypatch.setattr(receiver, "_spin", spin)
    errors_first(monkeypatch, errno.EAGAIN)
    kernel.send(REQUEST)
    receiver.receive(alone=False)
    assert not asked


def test_a_request_that_waits_is_pending(kernel: Kernel, buffer: memoryview) -> None:
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    before = receiver.pending()
    kernel.send(REQUEST)
    assert [before, receiver.pending()] == [False, True]


def test_being_woken_for_nothing_goes_on_waiting(
    kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakings = []

    def wait() -> None:
        wakings.append(1)
        if len(wakings) == 3:
            kernel.send(REQUEST)

    monkeypatch.setattr(select, "poll", lambda: Poll(wait))
    receiver = Receiver(kernel.fd, buffer, SPIN_US)
    assert receiver.receive() == len(REQUEST)
    assert receiver.statistics().sleeping == 1
