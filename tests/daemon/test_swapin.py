"""Reading ahead of swapoff: which pages, how many at a time, and what it does not stumble over."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vswap import libc
from vswapd import swapdev, swapin
from vswapd.cli import ahead
from vswapd.swapdev import SwapArea
from vswapd.swapin import AHEAD, Lead, parse_maps, parse_status

MIB = 1 << 20
PIECE = swapin._PIECE

MAPS = b"""\
55d0c0000000-55d0c0001000 r-xp 00000000 fe:00 1234                       /usr/bin/some
55d0c0001000-55d0c0002000 rw-p 00001000 fe:00 1234                       /usr/bin/some
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000010000 rw-p 00000000 00:00 0\x20
7f0000010000-7f0000020000 ---p 00000000 00:00 0
7f0000020000-7f0000030000 r--p 00000000 00:00 0                          [anon:a name of its own]
7f0000030000-7f0000040000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
7f0000040000-7f0000050000 rw-s 00000000 00:01 0                          /SYSV00000000 (deleted)
7f0000050000-7f0000060000 rw-p 00000000 00:05 99                         /memfd:x\\040\xff (deleted)
7f0000060000-7f0000070000 rw-p 00000000 00:00 0                          [anon_shmem:shared]
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00030000-7ffd00034000 r--p 00000000 00:00 0                          [vvar]
7ffd00034000-7ffd00036000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


# ---- what /proc says -----------------------------------------------------------------------


def test_only_anonymous_private_mappings_are_taken() -> None:
    assert list(parse_maps(MAPS)) == [
        range(0x55D0C1000000, 0x55D0C1021000),
        range(0x7F0000000000, 0x7F0000010000),
        range(0x7F0000010000, 0x7F0000020000),
        range(0x7F0000020000, 0x7F0000030000),
        range(0x7FFD00000000, 0x7FFD00021000),
    ]
    assert list(parse_maps(b"")) == []


def test_what_a_process_has_in_swap() -> None:
    assert parse_status(b"Name:\tVmSwap: 7\nVmSwap:\t    1234 kB\nHugetlb: 0 kB\n") == 1234 << 10
    assert parse_status(b"Name:\tkthreadd\nState:\tS (sleeping)\n") == 0


def test_the_machines_own_files_are_understood() -> None:
    own = Path("/proc/self")
    assert list(parse_maps((own / "maps").read_bytes()))
    assert parse_status((own / "status").read_bytes()) >= 0
    assert os.getpid() not in swapin.swapped_out({os.getpid()})


# ---- a machine of files --------------------------------------------------------------------


@dataclass
class Machine:
    """/proc in a directory, and the advice that was given: process, address, length."""

    proc: Path
    given: list[tuple[int, int, int]] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    """What the advice on an address fails with."""

    def process(self, pid: int, swapped: int | None, *mappings: range) -> None:
        entry = self.proc / str(pid)
        entry.mkdir()
        vm_swap = "" if swapped is None else f"VmSwap:\t{swapped >> 10:8} kB\n"
        (entry / "status").write_text(f"Name:\tsome\n{vm_swap}Threads:\t1\n")
        lines = (f"{m.start:x}-{m.stop:x} rw-p 00000000 00:00 0 \n" for m in mappings)
        (entry / "maps").write_text("".join(lines))

    def memory(self, available: int, cached: int) -> None:
        text = f"MemAvailable: {available >> 10} kB\nSwapCached: {cached >> 10} kB\n"
        (self.proc / "meminfo").write_text(text)

    def advise(self, pidfd: int, address: int, length: int, advice: int) -> int:
        assert advice == libc.MADV_WILLNEED
        self.given.append((pidfd - 10**6, address, length))
        if code := self.refused.get(address):
            raise OSError(code, os.strerror(code))
        return length


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """No process yet, and memory enough. Every pidfd that is opened is closed."""
    made = Machine(tmp_path)
    made.memory(1024 * MIB, 0)
    open_pidfds: list[int] = []

    def pidfd_open(pid: int) -> int:
        open_pidfds.append(10**6 + pid)
        return 10**6 + pid

    close = os.close
    monkeypatch.setattr(swapin, "_PROC", tmp_path)
    monkeypatch.setattr(libc, "process_madvise", made.advise)
    monkeypatch.setattr(libc, "prctl", lambda _option, _arg: 0)
    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    monkeypatch.setattr(
        os, "close", lambda fd: open_pidfds.remove(fd) if fd in open_pidfds else close(fd)
    )
    yield made
    assert open_pidfds == []


def test_processes_that_have_pages_in_swap_the_biggest_first(machine: Machine) -> None:
    machine.process(10, 4 * MIB)
    machine.process(11, 9 * MIB)
    machine.process(12, 0)
    machine.process(13, None)  # a kernel thread, or a zombie
    machine.process(14, 99 * MIB)
    (machine.proc / "15").mkdir()  # it ended
    (machine.proc / "self").mkdir()
    assert list(swapin.swapped_out({14}).items()) == [(11, 9 * MIB), (10, 4 * MIB)]


def test_all_of_them_are_read_but_those_that_are_left_alone(machine: Machine) -> None:
    machine.process(10, MIB, range(0x1000, 0x3000), range(0x8000, 0x9000))
    machine.process(11, 2 * MIB, range(0x1000, 0x2000))
    machine.process(12, 2 * MIB, range(0x1000, 0x2000))
    machine.process(os.getpid(), 2 * MIB, range(0x1000, 0x2000))
    swapin.main(["12", "99999"])
    assert machine.given == [(11, 0x1000, 0x1000), (10, 0x1000, 0x2000), (10, 0x8000, 0x1000)]


def test_never_more_than_a_piece_in_one_go(machine: Machine) -> None:
    whole = range(0x1000, 0x1000 + 3 * PIECE + 0x5000)
    machine.process(10, PIECE + 0x1000, whole)
    swapin.main([])
    assert max(length for _pid, _start, length in machine.given) == PIECE
    covered = [range(start, start + length) for _pid, start, length in machine.given]
    assert covered[0].start == whole.start
    assert all(one.stop == next_.start for one, next_ in itertools.pairwise(covered))
    assert covered[-1].stop == whole.stop


def test_a_wide_mapping_with_little_in_it_takes_few_calls(machine: Machine) -> None:
    machine.process(10, PIECE, range(0, 8 << 30))
    swapin.main([])
    assert [length for _pid, _start, length in machine.given] == [1 << 30] * 8


@pytest.mark.parametrize("code", [errno.EPERM, errno.ESRCH, errno.EINVAL, errno.ENOSYS])
def test_a_process_that_is_refused_is_passed_over(
    machine: Machine, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.process(10, 2 * MIB, range(0x1000, 0x2000), range(0x3000, 0x4000))
    machine.process(11, MIB, range(0x5000, 0x6000))
    machine.refused[0x1000] = code
    swapin.main([])
    assert machine.given == [(10, 0x1000, 0x1000), (11, 0x5000, 0x1000)]
    assert capfd.readouterr() == ("", "")


def test_a_mapping_that_is_gone_is_passed_over(machine: Machine) -> None:
    machine.process(10, 99 * MIB, range(0x1000, 0x1000 + 3 * PIECE), range(1 << 40, (1 << 40) + 1))
    machine.refused[0x1000 + PIECE] = errno.ENOMEM
    swapin.main([])
    assert [start for _pid, start, _length in machine.given] == [0x1000, 0x1000 + PIECE, 1 << 40]


def test_a_process_that_ends_is_passed_over(machine: Machine) -> None:
    machine.process(10, 2 * MIB)
    (machine.proc / "10/maps").unlink()
    machine.process(11, MIB, range(0x5000, 0x6000))
    swapin.main([])
    assert machine.given == [(11, 0x5000, 0x1000)]


# ---- how far ahead -------------------------------------------------------------------------


@dataclass
class Clock:
    """Time that passes only in a sleep, with something that happens in each."""

    now: float = 100.0
    meanwhile: list[Callable[[], None]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


@pytest.fixture
def told() -> list[str]:
    """What a `Lead` has told."""
    return []


@pytest.fixture
def lead(machine: Machine, told: list[str]) -> Iterator[Lead]:
    """Of a machine with 1000 MiB, and 100 MiB in the swap cache from before."""
    machine.memory(1000 * MIB, 100 * MIB)
    with (machine.proc / "meminfo").open("rb", buffering=0) as meminfo:
        yield Lead(meminfo.fileno(), lambda: told.append(AHEAD))


def test_it_waits_for_swapoff_at_half_of_the_available_memory(
    machine: Machine, clock: Clock, lead: Lead, told: list[str]
) -> None:
    clock.now += 1
    machine.memory(500 * MIB, 600 * MIB)
    lead.wait()
    assert clock.now == 101
    assert told == []
    clock.now += 1
    machine.memory(500 * MIB, 601 * MIB)
    clock.meanwhile = [lambda: None, lambda: machine.memory(500 * MIB, 590 * MIB)]
    lead.wait()
    assert not clock.meanwhile
    assert told == [AHEAD]


def test_it_says_once_that_it_does_not_get_on(
    machine: Machine, clock: Clock, lead: Lead, told: list[str]
) -> None:
    for mib in (200, 300):
        machine.memory(900 * MIB, mib * MIB)
        clock.now += 0.15
        lead.wait()
    assert told == []
    for _ in range(3):
        clock.now += 0.15
        lead.wait()
    assert told == [AHEAD]


def test_it_does_not_look_at_memory_after_every_piece(
    machine: Machine, clock: Clock, lead: Lead, told: list[str]
) -> None:
    machine.memory(0, 999 * MIB)
    lead.wait()
    assert told == []


# ---- the program and who starts it ---------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of Python, and so of the program."""

    def stand(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return stand


@pytest.mark.parametrize("script", ["echo ahead; exec sleep 60", "exit 0", "echo hm >&2; exit 3"])
def test_swapoff_has_its_turn_when_the_program_says_so_or_is_gone(
    program: Callable[[str], None], script: str
) -> None:
    program(script)
    with ahead.reading_ahead([]) as reader:
        assert reader.leads(30)
        assert reader.leads(0)


def test_the_program_is_told_whom_to_leave_alone_and_is_killed_at_the_end(
    program: Callable[[str], None], tmp_path: Path
) -> None:
    program(f'echo $$ "$@" > {tmp_path}/said; echo; exec sleep 60')
    with ahead.reading_ahead([12, 34]) as reader:
        assert reader.leads(30)
        pid, *words = (tmp_path / "said").read_text().split()
        os.kill(int(pid), 0)
    assert words[:3] == ["-P", "-m", "vswapd.swapin"]
    assert {12, 34, os.getpid()} == {int(word) for word in words[3:]}
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_the_program_is_killed_when_we_are_interrupted(
    program: Callable[[str], None], tmp_path: Path
) -> None:
    program(f"echo $$ > {tmp_path}/pid; echo; exec sleep 60")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ahead.reading_ahead([]) as reader:
            assert reader.leads(30)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_program_is_ours_whatever_lies_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as root, and the directory may be anybody's."""
    (tmp_path / "vswapd").mkdir()
    (tmp_path / "vswapd" / "__init__.py").touch()
    (tmp_path / "vswapd" / "swapin.py").write_text("open('theirs', 'w')")
    monkeypatch.chdir(tmp_path)
    with ahead.reading_ahead([]) as reader:
        assert reader.leads(30)
    assert not (tmp_path / "theirs").exists()


def test_it_is_not_swapoffs_turn_while_the_program_reads(program: Callable[[str], None]) -> None:
    program("exec sleep 60")
    with ahead.reading_ahead([]) as reader:
        assert not reader.leads(0.01)


def test_the_real_program_runs_to_its_end() -> None:
    """With nothing in swap there is nothing to read; it says nothing, not even on stderr."""
    command = [sys.executable, "-m", "vswapd.swapin", "1"]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = swapdev.start_program(command, environment=paths)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert said in {b"", f"{AHEAD}\n".encode()}


@pytest.mark.parametrize(
    ("used", "elsewhere", "worth"),
    [(64, None, True), (64, 0, False), (64, 4, False), (16, None, False), (0, None, False)],
)
def test_when_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, used: int, elsewhere: int | None, worth: bool
) -> None:
    area = SwapArea("/dev/loop77", 100 * MIB, used * MIB, 1)
    others = [] if elsewhere is None else [SwapArea("/swap", 100 * MIB, elsewhere * MIB, 1)]
    monkeypatch.setattr(ahead, "swap_areas", lambda: [area, *others])
    assert ahead.worthwhile(area) == worth
