"""The channel: a data thread for each receive buffer, and the sums of what they count."""

from __future__ import annotations

import errno
import os
import random
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SIZE
from vswapd.channel import BUFFER_SIZE, Channel, Outstanding, receive_buffer

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
