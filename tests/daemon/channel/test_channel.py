"""The channel: a data thread for each receive buffer, and the sums of what they count."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from vswap.errors import FullError
from vswapd.channel import BUFFER_SIZE, Channel, receive_buffer

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel, Small

SECONDS = 10
PAGE = 4096


def forward(request: memoryview) -> bool:
    return False


def make(kernel: Kernel, small: Small, ended: threading.Event) -> Channel:
    return Channel(
        kernel.fd,
        small.state,
        small.store,
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
    assert (counts.forwarded, counts.refused) == (1, 1)
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
