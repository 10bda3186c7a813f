"""When the ballast is thrown off, and when it is taken in."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vswapd.ballast import Ballast

PIECE = 256 << 10
WHOLE = 16 * PIECE
AT_ONCE = 4 * PIECE


@dataclass
class Machine:
    """A loop device as /sys shows it, and whether there is memory to spare."""

    sys_block: Path
    loop: str | None = "loop3"
    has_spare: bool = True
    asked: list[str | None] = field(default_factory=list)

    def find(self) -> str | None:
        self.asked.append(self.loop)
        return self.loop

    def shows(self, ended: int, in_flight: int, loop: str = "loop3") -> None:
        """These have ended: of each kind some."""
        fields = [0] * 17
        fields[0], fields[4], fields[11], fields[8] = 1, 2, ended - 3, in_flight
        fields[3], fields[9], fields[10] = 77, 88, 99  # times, which grow while requests wait
        folder = self.sys_block / loop
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(" ".join(map(str, fields)) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.shows(10, 0)
    return made


@pytest.fixture
def ballast(machine: Machine) -> Iterator[Ballast]:
    made = Ballast(machine.find, lambda: machine.has_spare, machine.sys_block)
    yield made
    made.close()


@pytest.fixture
def whole(ballast: Ballast) -> Ballast:
    for _ in range(16):
        ballast.look()
    assert ballast.size == WHOLE
    return ballast


def resident() -> int:
    """Bytes of this process that are in memory and nobody else's."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (anonymous,) = (line for line in lines if line.startswith("Anonymous:"))
    return int(anonymous.split()[1]) << 10


def test_it_is_taken_in_piece_by_piece_and_is_not_more_than_it_is_to_be(whole: Ballast) -> None:
    for _ in range(3):
        whole.look()
    assert whole.size == WHOLE


def test_no_piece_is_taken_that_is_not_to_spare(ballast: Ballast, machine: Machine) -> None:
    machine.has_spare = False
    ballast.look()
    assert ballast.size == 0
    machine.has_spare = True
    ballast.look()
    assert ballast.size == PIECE


def test_it_is_thrown_off_when_requests_wait_and_none_ends(
    whole: Ballast, machine: Machine
) -> None:
    machine.shows(11, 2)
    whole.look()
    assert whole.size == WHOLE  # one has ended
    for left in (3, 2, 1, 0, 0):
        whole.look()
        assert whole.size == left * AT_ONCE


def test_the_kernel_gets_the_memory(whole: Ballast, machine: Machine) -> None:
    before = resident()
    machine.shows(10, 2)
    whole.look()
    assert before - resident() > AT_ONCE // 2


@pytest.mark.parametrize(("ended", "in_flight"), [(11, 2), (10, 0)], ids=["gets on", "is idle"])
def test_it_stays_when_the_device(
    ended: int, in_flight: int, whole: Ballast, machine: Machine
) -> None:
    machine.shows(ended, in_flight)
    whole.look()
    assert whole.size == WHOLE


def test_what_was_thrown_off_is_taken_in_again_when_the_device_gets_on(
    whole: Ballast, machine: Machine
) -> None:
    machine.shows(10, 2)
    whole.look()
    machine.shows(11, 2)
    whole.look()
    assert whole.size == WHOLE - AT_ONCE + PIECE


def test_without_a_loop_device_it_is_looked_for_at_each_look(
    ballast: Ballast, machine: Machine
) -> None:
    machine.loop = None
    ballast.look()
    ballast.look()
    assert machine.asked == [None, None]
    machine.loop = "loop3"
    ballast.look()
    ballast.look()
    assert machine.asked == [None, None, "loop3"]


def test_a_device_that_has_come_to_another_loop_device_is_found_there(
    whole: Ballast, machine: Machine
) -> None:
    machine.loop = "loop5"
    machine.shows(20, 3, "loop5")
    for _ in range(16, 32):
        whole.look()
    assert whole.size == WHOLE - AT_ONCE


def test_a_loop_device_that_goes_is_no_error_and_is_looked_for_again(
    whole: Ballast, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.loop = "loop9"
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", gone)
        whole.look()
    whole.look()
    machine.loop = "loop3"
    whole.look()
    assert (machine.asked[-2:], whole.size) == (["loop9", "loop3"], WHOLE)


def gone(_fd: int, _length: int, _offset: int) -> bytes:
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def test_without_a_loop_device_there_is_no_ballast(ballast: Ballast, machine: Machine) -> None:
    machine.loop = None
    ballast.look()
    assert ballast.size == 0
