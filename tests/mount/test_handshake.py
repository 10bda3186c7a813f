"""What was agreed with the kernel, seen in what it then does."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from mount.harness import CONNECTIONS, PAGE, Start, Worker, aligned, environment, eventually

pytestmark = pytest.mark.mount

MIB = 1 << 20


def test_a_write_of_a_megabyte_is_one_request(device: Worker, swap: int) -> None:
    before = device.stats()
    assert os.pwritev(swap, [aligned(b"x" * MIB)], 0) == MIB
    after = device.stats()
    assert after["writes"] - before["writes"] == 1
    assert after["pages_written"] - before["pages_written"] == 256


def test_a_write_at_any_place_is_one_request(device: Worker, swap: int) -> None:
    before = device.stats()["writes"]
    os.pwritev(swap, [aligned(b"x" * (16 * PAGE))], 12345)
    assert device.stats()["writes"] - before == 1


def connection(device: Worker, name: str) -> int:
    assert device.device is not None
    path: Path = CONNECTIONS / device.device.split(":")[1] / name
    return int(path.read_text())


def test_many_requests_may_be_out_at_a_time(device: Worker) -> None:
    assert connection(device, "max_background") == 128
    assert connection(device, "congestion_threshold") == 96


def test_no_request_is_left_over(device: Worker, swap: int) -> None:
    """Of those that were answered none waits any more."""
    os.pwrite(swap, bytes(PAGE), 0)
    os.pread(swap, PAGE, 0)
    assert eventually(lambda: connection(device, "waiting") == 0)


BOTH_WAIT = """
import os, time
from vswap.store import Lane
real = Lane.write
def write(lane, offset, data):
    if offset in (8 << 20, 16 << 20):
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.005)
    real(lane, offset, data)
Lane.write = write
"""


def test_two_writes_to_the_file_are_out_at_the_same_time(start: Start, tmp_path: Path) -> None:
    """The kernel does not keep back the second until the first is answered."""
    gate = tmp_path / "gate"
    device = start(prelude=BOTH_WAIT, env={**environment(), "GATE": str(gate)})
    fd = os.open(device.swap, os.O_RDWR)
    written: list[int] = []

    def write(offset: int) -> None:
        with suppress(OSError):
            written.append(os.pwrite(fd, bytes(128 << 10), offset))

    threads = [threading.Thread(target=write, args=(n << 20,)) for n in (8, 16)]
    try:
        for thread in threads:
            thread.start()
        both_out = eventually(lambda: connection(device, "waiting") == 2)
        gate.touch()
        for thread in threads:
            thread.join(20)
    finally:
        os.close(fd)
    assert both_out
    assert written == [128 << 10] * 2
