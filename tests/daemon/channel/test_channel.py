"""The channel: a data thread for each receive buffer, and the sums of what they count."""

from __future__ import annotations

import errno
import os
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SIZE
from vswapd.channel import BUFFER_SIZE, Channel, Outstanding, receive_buffer, signs
from vswapd.channel.done import Done

if TYPE_CHECKING:
    from daemon.channel.conftest import Backed, Kernel, Small

SECONDS = 10
PAGE = 4096
OUT = struct.Struct("<IiQ")


def forward(request: memoryview) -> bool:
    return False


def make(kernel: Kernel, small: Small, ended: threading.Event) -> Channel:
    return Channel(
        kernel.fd,
        small.state,
        small.store,
        outstanding=Outstanding(small.state.outstanding.view),
        spin_us=0,
        forward=forward,
        prepare=lambda: None,
        on_end=ended.set,
    )


@pytest.fixture
def ended() -> threading.Event:
    return threading.Event()


@pytest.fixture
def channel(kernel: Kernel, small: Small, ended: threading.Event) -> Iterator[Channel]:
    made = make(kernel, small, ended)
    made.start()
    yield made
    kernel.hang_up()
    made.join(SECONDS)


def test_the_data_of_a_write_lies_at_a_page() -> None:
    buffer = memoryview(bytearray(BUFFER_SIZE))
    received_into = receive_buffer(buffer)
    received_into[80] = 0xFF
    assert buffer[4096] == 0xFF
    assert len(received_into) == 80 + (1 << 20)


def test_there_is_a_thread_for_each_buffer(channel: Channel, small: Small) -> None:
    assert len(channel.thread_ids()) == small.state.shape.buffers == 2


def test_what_is_written_can_be_read(channel: Channel, kernel: Kernel) -> None:
    page = bytes(range(256)) * 16
    kernel.send(kernel.write(PAGE, page))
    kernel.reply()
    kernel.send(kernel.read(PAGE, PAGE))
    assert kernel.reply()[16:] == page


def test_statistics_are_sums_over_the_threads(channel: Channel, kernel: Kernel) -> None:
    for _ in range(5):
        kernel.send(kernel.write(0, bytes(64 << 10)))
        kernel.reply()
    kernel.send(kernel.read(0, PAGE, nodeid=3))
    kernel.reply()
    kernel.hang_up()
    channel.join(SECONDS)
    counts = channel.statistics()
    assert counts.received_at_once + counts.received_spinning + counts.received_sleeping >= 6
    assert (counts.parked, counts.forwarded, counts.refused) == (0, 1, 1)
    assert (counts.late_replies, counts.protocol_errors, counts.internal_errors) == (0, 0, 0)


def test_the_end_is_told(channel: Channel, kernel: Kernel, ended: threading.Event) -> None:
    kernel.hang_up()
    assert ended.wait(SECONDS)


@pytest.mark.parametrize("small", ["tight"], indirect=True)
def test_no_room_for_a_lane_is_an_error_at_once(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    with suppress(FullError):
        while True:
            small.store.lane()
    with pytest.raises(FullError):
        make(kernel, small, ended)


# --- With a disk -------------------------------------------------------------------------


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def error(unique: int, code: int) -> bytes:
    return OUT.pack(OUT.size, -code, unique)


def data(unique: int, content: bytes) -> bytes:
    return OUT.pack(OUT.size + len(content), 0, unique) + content


def test_what_lies_on_disk_can_be_read(backed: Backed, channel: Channel, kernel: Kernel) -> None:
    pages = noise(4 * PAGE)
    backed.fill(0, pages)
    kernel.send(kernel.read(0, 5 * PAGE, unique=7))
    assert kernel.reply() == data(7, pages + bytes(PAGE))
    assert channel.statistics().parked == 1


def test_a_disk_that_hangs_keeps_nothing_in_memory_waiting(
    backed: Backed, channel: Channel, kernel: Kernel
) -> None:
    """However many reads wait for it: more than there are threads of any kind."""
    pages = noise(160 * PAGE)
    backed.fill(0, pages)
    backed.small.lane.write(500 * PAGE, memoryview(noise(PAGE, 2)))
    backed.disk.hang()
    hanging = {2 * index + 2: index * 16 for index in range(10)}
    for unique, slot in hanging.items():
        kernel.send(kernel.read(slot * PAGE, PAGE, unique=unique))
    backed.disk.wait_entered()
    for unique in range(101, 151, 2):
        kernel.send(kernel.read(500 * PAGE, PAGE, unique=unique))
        assert kernel.reply() == data(unique, noise(PAGE, 2))
    kernel.send(kernel.write(501 * PAGE, noise(PAGE, 3), unique=201))
    assert kernel.reply() == OUT.pack(24, 0, 201) + struct.pack("<II", PAGE, 0)
    kernel.send(kernel.write(0, b"help", nodeid=3, unique=203))
    assert kernel.reply() == error(203, errno.EBUSY)
    assert not kernel.has_reply()
    assert channel.statistics().parked == len(hanging)
    backed.disk.go()
    replies = {kernel.reply() for _ in hanging}
    assert replies == {
        data(unique, pages[slot * PAGE :][:PAGE]) for unique, slot in hanging.items()
    }


def test_a_disk_that_fails_is_eio_and_the_next_request_is_fine(
    backed: Backed, channel: Channel, kernel: Kernel
) -> None:
    backed.fill(0, noise(PAGE))
    backed.disk.error = OSError(errno.EIO, "scripted")
    kernel.send(kernel.read(0, PAGE, unique=7))
    assert kernel.reply() == error(7, errno.EIO)
    backed.disk.error = None
    kernel.send(kernel.read(0, PAGE, unique=9))
    assert kernel.reply() == data(9, noise(PAGE))
    counts = channel.statistics()
    assert (counts.parked, counts.internal_errors) == (2, 0)


def test_reads_in_order_are_read_ahead_of_from_the_disk(
    backed: Backed, channel: Channel, kernel: Kernel
) -> None:
    """Pages that nobody has asked for yet are read, each lying where no other read brings it."""
    pages = noise(20 * PAGE)
    backed.scatter(pages)
    for slot in range(8):
        kernel.send(kernel.read(slot * PAGE, PAGE, unique=7))
        assert kernel.reply() == data(7, pages[slot * PAGE :][:PAGE])
    asked_for = 8 * SEGMENT_SIZE  # a page in each
    while all(offset < asked_for for offset, _ in backed.disk.reads):
        backed.disk.wait_entered()
    for slot in range(8, 20):
        kernel.send(kernel.read(slot * PAGE, PAGE, unique=7))
        assert kernel.reply() == data(7, pages[slot * PAGE :][:PAGE])
    assert channel.statistics().internal_errors == 0


def test_what_waited_for_the_disk_when_the_connection_ended_ends_with_it(
    backed: Backed, channel: Channel, kernel: Kernel, ended: threading.Event
) -> None:
    """The data threads at once, the fetchers when the disk lets them."""
    backed.fill(0, noise(PAGE))
    backed.disk.hang()
    kernel.send(kernel.read(0, PAGE, unique=7))
    backed.disk.wait_entered()
    kernel.hang_up()
    assert ended.wait(SECONDS)
    assert not channel.failed
    channel.join(0.01)
    fetchers = [one for one in threading.enumerate() if one.name.startswith("vswap-fetch-")]
    assert len(fetchers) == 1
    backed.disk.go()
    channel.join(SECONDS)
    assert not fetchers[0].is_alive()


@pytest.mark.parametrize(
    ("code", "late", "errors"), [(errno.ENOENT, 1, 0), (errno.EINVAL, 0, 1), (errno.ENODEV, 0, 0)]
)
def test_replies_of_fetchers_that_the_kernel_does_not_take_are_in_the_sums(
    code: int,
    late: int,
    errors: int,
    backed: Backed,
    channel: Channel,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = threading.Event()

    def writev(fd: int, buffers: object) -> int:
        sent.set()
        raise OSError(code, os.strerror(code))

    backed.fill(0, noise(PAGE))
    monkeypatch.setattr(os, "writev", writev)
    kernel.send(kernel.read(0, PAGE))
    assert sent.wait(SECONDS)
    kernel.hang_up()
    channel.join(SECONDS)
    counts = channel.statistics()
    assert (counts.parked, counts.late_replies, counts.internal_errors) == (1, late, errors)


def test_faults_of_fetchers_are_in_the_sums(
    backed: Backed, channel: Channel, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    backed.fill(0, noise(PAGE))
    backed.disk.error = ZeroDivisionError()
    for unique in (7, 9):
        kernel.send(kernel.read(0, PAGE, unique=unique))
        assert kernel.reply() == error(unique, errno.EIO)
    kernel.hang_up()
    channel.join(SECONDS)
    assert channel.statistics().internal_errors == 2
    assert [record.name for record in caplog.records] == ["vswapd.channel.fetchers"] * 2


def test_fetchers_are_no_data_threads(backed: Backed, channel: Channel, kernel: Kernel) -> None:
    """What is told of the threads is for who measures the work of those that receive."""
    backed.fill(0, noise(PAGE))
    kernel.send(kernel.read(0, PAGE))
    kernel.reply()
    fetchers = {
        one.native_id for one in threading.enumerate() if one.name.startswith("vswap-fetch-")
    }
    assert len(fetchers) == 4
    assert not fetchers & set(channel.thread_ids())


def test_threads_of_both_kinds_prepare_themselves(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    prepared: set[str] = set()
    made = Channel(
        kernel.fd,
        small.state,
        small.store,
        outstanding=Outstanding(small.state.outstanding.view),
        spin_us=0,
        forward=forward,
        prepare=lambda: prepared.add(threading.current_thread().name),
        on_end=ended.set,
    )
    made.start()
    kernel.hang_up()
    made.join(SECONDS)
    assert prepared == {
        *(f"vswap-data-{index}" for index in range(2)),
        *(f"vswap-fetch-{index}" for index in range(4)),
    }


# --- Taking over ------------------------------------------------------------------------

GETATTR = 3
RESEND = OUT.pack(OUT.size, 7, 0)


@dataclass
class Taken:
    """A channel of the next worker, which has not begun. `passed_on` is what it forwarded."""

    channel: Channel
    outstanding: Outstanding
    passed_on: list[bytes]


def taken(kernel: Kernel, small: Small, ended: threading.Event) -> Taken:
    outstanding = Outstanding(small.state.outstanding.view)
    passed_on: list[bytes] = []

    def accept(request: memoryview) -> bool:
        passed_on.append(bytes(request))
        return True

    made = Channel(
        kernel.fd,
        small.state,
        small.store,
        outstanding=outstanding,
        spin_us=0,
        forward=accept,
        prepare=lambda: None,
        on_end=ended.set,
    )
    return Taken(made, outstanding, passed_on)


def leave(small: Small, index: int, raw: bytes) -> memoryview:
    """Let a worker have been killed with this request in one of its buffers."""
    buffer = receive_buffer(small.state.buffer(index))
    buffer[: len(raw)] = raw
    return buffer


def keep(small: Small, unique: int, raw: bytes) -> None:
    """Let it have passed this on."""
    assert Outstanding(small.state.outstanding.view).keep(unique, memoryview(raw))


def replies(kernel: Kernel) -> list[bytes]:
    found = []
    while kernel.has_reply():
        found.append(kernel.reply())
    return found


def written(unique: int, size: int) -> bytes:
    return OUT.pack(OUT.size + 8, 0, unique) + struct.pack("<II", size, 0)


@pytest.mark.parametrize("resend", [True, False])
def test_what_was_in_all_buffers_is_answered_once(
    resend: bool, kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    buffers = [
        leave(small, 0, kernel.write(0, noise(PAGE), unique=8)),
        leave(small, 1, kernel.read(0, PAGE, unique=6)),
    ]
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=resend)
    found = replies(kernel)
    assert found[:2] == [written(8, PAGE), data(6, noise(PAGE))]
    assert found[2:] == ([RESEND] if resend else [])
    assert [bytes(buffer[:4]) for buffer in buffers] == [bytes(4)] * 2
    taken(kernel, small, ended).channel.take_over(resend=False)
    assert replies(kernel) == []


def test_a_write_that_was_done_is_not_done_over_a_later_one(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    leave(small, 1, kernel.write(0, noise(PAGE, 1), unique=6))
    Done(small.state.buffer(1)).succeeded(6)
    small.lane.write(0, memoryview(noise(PAGE, 2)))
    taken(kernel, small, ended).channel.take_over(resend=False)
    assert replies(kernel) == [written(6, PAGE)]
    assert b"".join(small.lane.read(0, PAGE)) == noise(PAGE, 2)


def test_with_nothing_left_nothing_is_answered(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=False)
    assert (replies(kernel), after.passed_on) == ([], [])
    after.channel.take_over(resend=True)
    assert (replies(kernel), after.passed_on) == ([RESEND], [])


def test_what_was_passed_on_is_asked_for_again(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    """What was kept of it is not needed: the kernel has all of it."""
    keep(small, 6, kernel.request(GETATTR, bytes(16), nodeid=3, unique=6))
    keep(small, 8, kernel.write(0, b"compact", nodeid=3, unique=8))
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=True)
    assert replies(kernel) == [RESEND]
    assert (after.passed_on, after.outstanding.all()) == ([], [])


def test_what_was_passed_on_is_passed_on_again_where_the_kernel_does_not_ask(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    """In the order in which it came; but for commands."""
    raws = [kernel.request(GETATTR, bytes(16), nodeid=3, unique=unique) for unique in (6, 10)]
    keep(small, 10, raws[1])
    keep(small, 8, kernel.write(0, b"compact", nodeid=3, unique=8))
    keep(small, 6, raws[0])
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=False)
    assert replies(kernel) == [error(8, errno.ECANCELED)]
    assert after.passed_on == raws
    assert after.outstanding.all() == raws


@pytest.mark.parametrize("resend", [True, False])
def test_what_was_in_a_buffer_and_passed_on_already_is_not_passed_on_twice(
    resend: bool, kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    raw = kernel.request(GETATTR, bytes(16), nodeid=3, unique=6)
    leave(small, 0, raw)
    keep(small, 6, raw)
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=resend)
    assert after.passed_on == ([] if resend else [raw])


def test_a_command_in_a_buffer_is_done_at_most_once_and_not_called_canceled_then(
    kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    """The kernel sends it again, and whoever does that one refuses it."""
    leave(small, 0, kernel.write(0, b"compact", nodeid=3, unique=6))
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=True)
    assert replies(kernel) == [RESEND]
    assert after.passed_on == []


def test_a_read_that_waited_for_the_disk_is_answered_by_the_next(
    backed: Backed, kernel: Kernel, ended: threading.Event
) -> None:
    pages = noise(2 * PAGE)
    backed.scatter(pages)
    for slot, unique in ((0, 6), (1, 8)):
        keep(backed.small, unique, kernel.read(slot * PAGE, PAGE, unique=unique))
    after = taken(kernel, backed.small, ended)
    after.channel.take_over(resend=False)
    after.channel.start()
    assert {kernel.reply(), kernel.reply()} == {data(6, pages[:PAGE]), data(8, pages[PAGE:])}
    kernel.hang_up()
    after.channel.join(SECONDS)
    assert after.outstanding.all() == Outstanding(backed.small.state.outstanding.view).all() == []


def test_after_taking_over_it_serves(kernel: Kernel, small: Small, ended: threading.Event) -> None:
    leave(small, 0, kernel.write(0, noise(PAGE), unique=6))
    after = taken(kernel, small, ended)
    after.channel.take_over(resend=True)
    after.channel.start()
    assert [kernel.reply(), kernel.reply()] == [written(6, PAGE), RESEND]
    kernel.send(kernel.write(PAGE, noise(PAGE, 2), unique=1 << 63 | 8))
    assert kernel.reply() == written(1 << 63 | 8, PAGE)
    kernel.send(kernel.read(0, 2 * PAGE, unique=10))
    assert kernel.reply() == data(10, noise(PAGE) + noise(PAGE, 2))
    kernel.hang_up()
    after.channel.join(SECONDS)


# --- What others see of the buffers -------------------------------------------------------


def test_signs_lie_where_requests_begin(kernel: Kernel, small: Small) -> None:
    raws = [kernel.read(0, PAGE, unique=unique) for unique in (6, 8)]
    for index, raw in enumerate(raws):
        leave(small, index, raw)
    view = small.state.buffers.view
    assert [bytes(view[at : at + 16]) for at in signs(small.state)] == [raw[:16] for raw in raws]


def test_a_request_is_seen_only_while_it_is_served(
    channel: Channel, kernel: Kernel, small: Small, ended: threading.Event
) -> None:
    kernel.send(kernel.write(0, noise(PAGE)))
    kernel.reply()
    kernel.hang_up()
    assert ended.wait(SECONDS)
    view = small.state.buffers.view
    assert [bytes(view[at : at + 4]) for at in signs(small.state)] == [bytes(4)] * 2
