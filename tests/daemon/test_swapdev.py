"""Loop device and swap area: what is read from /proc, and the programs that are run.

The programs are real, or scripts that stand in for them on PATH.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import swapdev
from vswapd.swapdev import SwapArea, parse_meminfo, parse_swaps, run_program, shortage, unescape

MIB = 1 << 20

SWAPS = (
    b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    b"/dev/loop0                              partition\t1048572\t\t666764\t\t-2\n"
    b"/var/swap\\040file\\134\\011x                 file\t\t614396\t\t0\t\t100\n"
    b"/tmp/gone\\040(deleted)                   file\t\t4\t\t4\t\t-3\n"
)

Stand = Callable[[str, str], None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Put a shell script in the place of a program."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def stand(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return stand


def test_parse_swaps() -> None:
    assert parse_swaps(SWAPS) == [
        SwapArea("/dev/loop0", 1048572 << 10, 666764 << 10, -2),
        SwapArea("/var/swap file\\\tx", 614396 << 10, 0, 100),
        SwapArea("/tmp/gone", 4096, 4096, -3),
    ]


def test_parse_swaps_without_any() -> None:
    assert parse_swaps(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n") == []
    assert parse_swaps(b"") == []


def test_the_machines_own_files_are_understood() -> None:
    assert all(area.size >= area.used >= 0 for area in swapdev.swap_areas())
    assert parse_meminfo(Path("/proc/meminfo").read_text(), "MemTotal") > 0
    assert swapdev.room_for_swapoff(SwapArea("/none", 1 << 50, 1 << 50, 0)) > 1 << 40
    assert swapdev.swap_area("/none") is None


def test_parse_meminfo() -> None:
    text = "MemTotal:       24684096 kB\nMemAvailable:   24359000 kB\n"
    assert parse_meminfo(text, "MemAvailable") == 24359000 << 10
    with pytest.raises(KeyError):
        parse_meminfo(text, "Mem")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (rb"a\040b\011c\012d\134e", "a b\tc\nd\\e"),
        (rb"\134040", "\\040"),
        (b"\xff\\303\\244", os.fsdecode(b"\xff\xc3\xa4")),
        (rb"\777\9", r"\777\9"),
    ],
)
def test_unescape(raw: bytes, text: str) -> None:
    assert unescape(raw) == text


@pytest.mark.parametrize(
    ("used", "others", "available", "missing"),
    [
        (0, [], 0, 0),
        (100, [], 132, 0),
        (100, [], 131, 1),
        (100, [], 0, 132),
        (20, [], 39, 1),  # as much again
        (20, [], 40, 0),
        (1, [], 8, 1),  # not to be stuck with the last page of a small machine
        (1, [], 9, 0),
        (100, [(50, 20)], 100, 2),
        (100, [(50, 20), (9, 7)], 100, 0),
    ],
)
def test_shortage(used: int, others: list[tuple[int, int]], available: int, missing: int) -> None:
    area = SwapArea("/dev/loop0", 1 << 40, used * MIB, 0)
    areas = [
        SwapArea(f"/dev/other{number}", size * MIB, taken * MIB, 0)
        for number, (size, taken) in enumerate(others)
    ]
    assert shortage(area, [*areas, area], available * MIB) == missing * MIB


@pytest.mark.parametrize(("used", "elsewhere", "out"), [(100, 0, 60), (30, 0, 0), (100, 4, 100)])
def test_pages_in_memory_as_well_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, elsewhere: int, out: int
) -> None:
    area = SwapArea("/dev/loop0", 1 << 40, used * MIB, 0)
    areas = [area, SwapArea("/swap", 4 * MIB, elsewhere * MIB, 0)]
    monkeypatch.setattr(swapdev, "swap_areas", lambda: areas)
    monkeypatch.setattr(swapdev, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: 0 kB\nSwapCached: {40 << 10} kB\n")
    assert swapdev.still_out(area) == out * MIB
    free = (4 - elsewhere) * MIB
    assert swapdev.room_for_swapoff(area) == max(0, (out + 32) * MIB - free) * bool(out)


def test_run_program_returns_what_it_said() -> None:
    ended = run_program(["sh", "-c", "cat; echo err >&2; exit 3"], 30, b"in\n")
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"in\n", b"err\n")
    assert ended.last_line == "err"


def test_run_program_has_nothing_to_read_by_default() -> None:
    assert run_program(["cat"], 30).stdout == b""


def test_last_line() -> None:
    assert run_program(["sh", "-c", "echo a; echo b"], 30).last_line == "b"
    assert run_program(["sh", "-c", "exit 4"], 30).last_line == "exit code 4"
    assert run_program(["sh", "-c", "kill -9 $$"], 30).last_line == "exit code -9"


def test_programs_speak_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run_program(["sh", "-c", "echo $LC_ALL"], 30).stdout == b"C\n"


def test_programs_are_out_of_reach_of_ctrl_c() -> None:
    process = swapdev.start_program(["cat"])
    process.communicate()
    with swapdev.start_program(["sh", "-c", "ps -o pgid= -p $$ || echo $$"]) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


def test_program_that_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"^the program no-such-program is not installed$"):
        run_program(["no-such-program"], 30)


def test_sbin_is_looked_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^detaching /dev/no-such-loop failed: losetup: "):
        swapdev.detach_loop("/dev/no-such-loop")  # it is found, and fails


def test_program_is_killed_when_its_time_is_up() -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^sleep did not finish within 0\.05 s$"):
        run_program(["sleep", "60"], 0.05)
    assert time.monotonic() - before < 30
    assert not swapdev._abandoned


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_program_is_killed_when_we_are_interrupted(tmp_path: Path) -> None:
    # It is fed only when its start is over.
    script = f"read fed; echo $$ > {tmp_path}/pid; kill -INT $PPID; exec sleep 60"
    with pytest.raises(KeyboardInterrupt):
        run_program(["sh", "-c", script], 30, b"fed\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_attach_asks_for_direct_io_and_checks_it(
    stand_in: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("losetup", f'echo "$@" >> {tmp_path}/said; echo /dev/loop77')
    monkeypatch.setattr(swapdev, "_SYS_BLOCK", tmp_path)
    dio = tmp_path / "loop77/loop/dio"
    dio.parent.mkdir(parents=True)
    dio.write_text("1\n")
    assert swapdev.attach_loop("/m/swap") == "/dev/loop77"
    attached = "--direct-io=on --sector-size 4096 -f --show /m/swap"
    assert (tmp_path / "said").read_text().splitlines() == [attached]

    dio.write_text("0\n")
    with pytest.raises(UserError, match=r"^/dev/loop77 got no direct I/O on /m/swap; "):
        swapdev.attach_loop("/m/swap")
    assert (tmp_path / "said").read_text().splitlines() == [attached, attached, "-d /dev/loop77"]


@pytest.mark.parametrize(
    ("program", "call", "reason"),
    [
        (
            "losetup",
            swapdev.check_free_loop,
            "no loop device is free (detach one, or `modprobe loop`): prog: no",
        ),
        (
            "losetup",
            lambda: swapdev.attach_loop("/m/swap"),
            "attaching /m/swap to a loop device failed: prog: no",
        ),
        (
            "losetup",
            lambda: swapdev.detach_loop("/dev/loop77"),
            "detaching /dev/loop77 failed: prog: no",
        ),
        (
            "mkswap",
            lambda: swapdev.make_swap("/dev/loop77", "swap0"),
            "making swap on /dev/loop77 failed: prog: no",
        ),
        (
            "swapon",
            lambda: swapdev.enable_swap("/dev/loop77", None),
            "enabling swap on /dev/loop77 failed: prog: no",
        ),
    ],
)
def test_programs_own_last_line_is_told(
    stand_in: Stand, program: str, call: Callable[[], None], reason: str
) -> None:
    stand_in(program, "echo warning >&2; echo prog: no >&2; exit 1")
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == reason


def test_hanging_program_is_told_of(stand_in: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("mkswap", "exec sleep 60")
    monkeypatch.setattr(swapdev, "PROGRAM_SECONDS", 0.05)
    with pytest.raises(UserError) as caught:
        swapdev.make_swap("/dev/loop77", "swap0")
    reason = "making swap on /dev/loop77 failed: mkswap did not finish within 0.05 s"
    assert str(caught.value) == reason


def test_options_of_mkswap_and_swapon(stand_in: Stand, tmp_path: Path) -> None:
    for name in ("mkswap", "swapon"):
        stand_in(name, f'echo {name} "$@" >> {tmp_path}/said')
    swapdev.make_swap("/dev/loop77", "a-name-of-more-than-16")
    swapdev.enable_swap("/dev/loop77", None)
    swapdev.enable_swap("/dev/loop77", 0)
    assert (tmp_path / "said").read_text().splitlines() == [
        "mkswap -L a-name-of-more-t /dev/loop77",
        "swapon --discard /dev/loop77",
        "swapon --discard -p 0 /dev/loop77",
    ]


def test_disable_swap_leaves_alone_what_is_not_enabled(stand_in: Stand) -> None:
    stand_in("swapoff", "exit 1")
    swapdev.disable_swap("/dev/loop77")


@pytest.mark.swap
def test_real_loop_device(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("attaches a loop device: needs root")
    path = tmp_path / "swap"
    path.touch()
    os.truncate(path, MIB)
    swapdev.check_free_loop()
    try:
        loop = swapdev.attach_loop(str(path))
    except UserError as error:
        if "direct I/O" in str(error):
            pytest.skip(f"the file system of {tmp_path} has no direct I/O")
        raise
    try:
        swapdev.restrict(loop)
        assert stat.S_IMODE(Path(loop).stat().st_mode) == 0o600
        assert not swapdev.has_label(loop, "test")
        swapdev.make_swap(loop, "test")
        assert swapdev.has_label(loop, "test")
        assert not swapdev.has_label(loop, "tes")
        with Path(loop).open("rb") as device:
            assert device.read(4096)[-10:] == b"SWAPSPACE2"
    finally:
        swapdev.detach_loop(loop)
