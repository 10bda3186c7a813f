"""The file `ctl` of a real mount, and `vswap ctl`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.harness import (
    PAGE,
    SIZE,
    Start,
    Worker,
    close,
    environment,
    errno_of,
    eventually,
    give,
    halt,
)

from vswapd.usage import usage

pytestmark = pytest.mark.mount

SECONDS = 30.0


def start_ctl(device: Worker, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vswapd", "ctl", "--device", str(device.mount), *command],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ctl(device: Worker, *command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `vswap ctl`."""
    process = start_ctl(device, *command)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def text(page: int) -> bytes:
    """A page that compresses, another one for each number."""
    return ((b"%07d " % page + b"some words that come again " * 4) * 40)[:PAGE]


@pytest.fixture
def filled(device: Worker, swap: int) -> Worker:
    """A device with 2048 pages that compress and 512 that do not."""
    os.pwrite(swap, b"".join(map(text, range(2048))), 0)
    os.pwrite(swap, os.urandom(512 * PAGE), 2048 * PAGE)
    return device


# --- Each command, good and bad ----------------------------------------------------------


def test_help(device: Worker) -> None:
    code, said = give(device, "help")
    assert code == 0
    told = [line.partition(": ")[0] for line in said.splitlines()]
    assert told == [command for command, _about in usage()]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("memory_limit", "memory_limit takes SIZE|none, not nothing"),
        ("memory_limit 1M", "memory limit must be at least 10M for this device, not 1048576 bytes"),
        ("compact all", "unexpected 'all'; the command takes no arguments"),
        ("recompress type=cold", "type must be one of idle, huge, huge_idle, not 'cold'"),
        ("recompress algo=lz4", "algo cannot be chosen: there is one codec for old pages"),
        ("idle", "idle takes all|SECONDS, not nothing"),
        ("presence 0", "presence takes START N, not '0'"),
        (f"presence {SIZE // PAGE} 1", f"the device has no 1 slots from {SIZE // PAGE} on"),
        ("check this", "unexpected 'this'; the command takes no arguments"),
        ("help me", "unexpected 'me'; the command takes no arguments"),
        ("format c:", "unknown command 'format'; try: help"),
    ],
)
def test_a_bad_command_is_einval_with_a_reason(command: str, reason: str, shared: Worker) -> None:
    assert give(shared, command) == (errno.EINVAL, f"error: {reason}\n")
    assert (shared.mount / "ctl").read_text() == f"error: {reason}\n"
    assert ctl(shared, *command.split()) == (2, "", f"vswap: {reason}\n")


def test_memory_limit_is_live(device: Worker, swap: int) -> None:
    assert device.stats()["mem_limit"] == 0
    assert give(device, "memory_limit 16M") == (0, "memory limit 16777216 bytes\n")
    assert device.stats()["mem_limit"] == 16 << 20
    assert (device.mount / "mm_stat").read_text().split()[3] == str(16 << 20)
    noise = os.urandom(1 << 20)
    written = 0
    with pytest.raises(OSError, match="No space left"):
        while written < SIZE:
            written += os.pwrite(swap, noise, written)
    assert device.stats()["mem_used_total"] <= 16 << 20
    assert device.stats()["pool_limit_hit"]
    assert give(device, "memory_limit none") == (0, "no memory limit\n")
    assert device.stats()["mem_limit"] == 0
    assert os.pwrite(swap, noise, written) == len(noise)
    assert give(device, "check")[0] == 0


def test_compact(start: Start) -> None:
    device = start(clean=False)
    fd = os.open(device.swap, os.O_RDWR)
    try:
        noise = [os.urandom(PAGE) for _ in range(64)]
        for page in range(4096):
            os.pwrite(fd, noise[page % 64], page * PAGE)
        for page in range(0, 4096, 2):  # one after the other, so that dead lie between living
            os.pwrite(fd, noise[page * 7 % 64], page * PAGE)
        code, said = give(device, "compact")
        words = said.split()
        assert (code, words[1:3], words[4:]) == (
            0,
            ["segments", "cleaned,"],
            ["bytes", "won", "back"],
        )
        assert int(words[0]) == device.stats()["segments_cleaned"] > 0
        assert int(words[3]) > 0
        assert device.stats()["pages_compacted"] > 0
        for page in range(4096):
            assert os.pread(fd, PAGE, page * PAGE) == noise[page * (1 if page % 2 else 7) % 64]
    finally:
        close(fd)


def test_idle_and_recompress(filled: Worker, swap: int) -> None:
    assert give(filled, "idle 3600") == (0, "0 pages marked idle\n")
    assert give(filled, "recompress type=huge_idle") == (0, "0 pages recompressed\n")
    assert give(filled, "idle all") == (0, "2560 pages marked idle\n")
    before = filled.stats()["pages_recompressed"]
    code, said = give(filled, "recompress type=idle max_pages=100")
    assert code == 0
    assert 100 <= int(said.split()[0]) < 200
    assert give(filled, "recompress")[0] == 0
    assert filled.stats()["pages_recompressed"] - before >= 2048
    assert filled.stats()["cold_pages"] == 2048
    assert give(filled, "recompress") == (0, "0 pages recompressed\n")
    assert os.pread(swap, PAGE, 77 * PAGE) == text(77)


def test_presence(filled: Worker) -> None:
    assert give(filled, "presence 0 2560") == (0, "ALL 2560\n")
    assert give(filled, "presence 0 2561") == (0, "MIXED 2560\n")
    assert give(filled, "presence 2560 100") == (0, "NONE 100\n")


def test_check(filled: Worker) -> None:
    code, said = give(filled, "check")
    assert code == 0
    assert said.startswith("ok: 2560 pages in ")
    assert ctl(filled, "check")[0] == 0


# --- Whose result ------------------------------------------------------------------------


def test_two_descriptors_get_their_own_results(filled: Worker) -> None:
    first, second = (os.open(filled.mount / "ctl", os.O_RDWR) for _ in range(2))
    try:
        os.write(first, b"presence 0 1\n")
        os.write(second, b"presence 0 2\n")
        assert errno_of(lambda: os.write(second, b"presence\n")) == errno.EINVAL
        assert os.read(first, 4096) == b"ALL 1\n"
        assert os.read(second, 4096) == b"error: presence takes START N, not nothing\n"
        assert (filled.mount / "ctl").read_bytes() == os.pread(second, 4096, 0)
    finally:
        os.close(first)
        os.close(second)


def test_a_shell_reads_its_own_result(filled: Worker) -> None:
    script = "exec 3<>ctl; echo presence 0 7 >&3; echo help > ctl; cat <&3"
    done = subprocess.run(
        ["sh", "-c", script], cwd=filled.mount, capture_output=True, timeout=SECONDS, check=True
    )
    assert done.stdout == b"ALL 7\n"


# --- While it is at work -----------------------------------------------------------------


def test_check_and_the_others_while_pages_are_written(device: Worker) -> None:
    """What they find is sound all the time, and what is written stays."""
    ended = threading.Event()
    wrong: list[int] = []

    def churn() -> None:
        fd = os.open(device.swap, os.O_RDWR)
        numbers = iter(range(10**9))
        try:
            while not ended.is_set():
                number = next(numbers)
                at = number * 7 % 4000 * PAGE
                data = text(number) + text(number + 1) if number % 3 else os.urandom(2 * PAGE)
                os.pwrite(fd, data, at)
                if os.pread(fd, 2 * PAGE, at) != data:
                    wrong.append(number)
        finally:
            os.close(fd)

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for command in ("check", "idle all", "recompress", "compact", "presence 0 4000") * 4:
            code, said = give(device, command)
            assert code == 0, said
    finally:
        ended.set()
        writer.join()
    assert not wrong
    assert give(device, "check")[0] == 0


# `compact` waits until somebody writes to the FIFO.
STEERED = """
import vswapd.control.commands as commands
def compact(store, nothing):
    with open({fifo!r}) as fifo:
        return fifo.read()
commands._compact = compact
"""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


@pytest.fixture
def steered(start: Start, fifo: Path) -> Iterator[Worker]:
    """A device that compacts for as long as the test wants it to."""
    device = start(prelude=STEERED.format(fifo=str(fifo)))
    assert device.told == "ready", device.stderr()
    yield device
    go(fifo, nobody_may_wait=True)


def go(fifo: Path, nobody_may_wait: bool = False) -> None:
    """Let a `compact` end."""
    try:
        fd = os.open(fifo, os.O_WRONLY | (os.O_NONBLOCK if nobody_may_wait else 0))
    except OSError:
        return
    os.write(fd, b"compacted")
    os.close(fd)


def is_waiting(device: Worker, fifo: Path) -> bool:
    """Whether `compact` has begun: its thread waits for the FIFO's other end."""
    tasks = Path(f"/proc/{device.serving()}/task").iterdir()
    return "wait_for_partner" in [(task / "wchan").read_text() for task in tasks]


def test_the_device_goes_on_while_a_command_is_at_work(steered: Worker, fifo: Path) -> None:
    process = start_ctl(steered, "compact")
    assert eventually(lambda: is_waiting(steered, fifo))
    fd = os.open(steered.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        assert steered.stats()["pages_written"] == 1
        assert os.pread(fd, 4, 0) == b"kept"
    finally:
        close(fd)
    assert (steered.mount / "ctl").read_text() == ""
    go(fifo)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "compacted\n", "")


def test_ctrl_c_leaves_at_once_and_the_daemon_goes_on(steered: Worker, fifo: Path) -> None:
    process = start_ctl(steered, "compact")
    assert eventually(lambda: is_waiting(steered, fifo))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err == "vswap: interrupted; the daemon goes on with compact\n"
    go(fifo)
    assert eventually(lambda: (steered.mount / "ctl").read_text() == "compacted\n")


def test_a_daemon_that_dies_is_told(steered: Worker, fifo: Path) -> None:
    process = start_ctl(steered, "compact")
    assert eventually(lambda: is_waiting(steered, fifo))
    steered.kill()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (2, "")
    assert err == "vswap: the daemon of test is gone; `vswap down test` clears the rest\n"


def test_a_device_that_is_gone_waits_for_no_command(steered: Worker, fifo: Path) -> None:
    """Its connection was aborted, or it was unmounted by force."""
    process = start_ctl(steered, "compact")
    assert eventually(lambda: is_waiting(steered, fifo))
    steered.abort()
    assert process.wait(SECONDS) == 2
    process.communicate()
    steered.wait(SECONDS)


IMPATIENT = "import vswapd.tell as tell; tell.HUNG_SECONDS = 0.5; "
STOPPED = IMPATIENT + "from vswapd.cli import main; import sys; sys.exit(main())"


def test_a_daemon_that_hangs_is_told(device: Worker) -> None:
    worker = device.serving()
    assert worker is not None
    halt(worker)
    try:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", STOPPED, "ctl", "--device", str(device.mount), "compact"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert time.monotonic() - began < SECONDS
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vswap: the daemon of ")
    assert "does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- What is wrong with the daemon -------------------------------------------------------

UNSOUND = """
import vswap.store
problems = tuple(f"UNIT: problem {n}" for n in range(3000))
vswap.store.Store.check = lambda store: vswap.store.Findings(problems, 5, 3, 0.001)
"""


def test_findings_fail_the_write_and_can_be_read(start: Start) -> None:
    device = start(prelude=UNSOUND)
    device.log.write_text("")
    findings = ["PROBLEMS: 3000", *(f"UNIT: problem {n}" for n in range(3000))]
    code, said = give(device, "check")
    assert (code, said.splitlines()) == (errno.EUCLEAN, findings)
    exit_code, out, err = ctl(device, "check")
    assert (exit_code, out.splitlines(), err) == (1, findings, "")


FAULTY = """
import vswapd.control.commands as commands
def compact(store, nothing):
    raise OSError(12, "Cannot allocate memory")
def mark_idle(store, age):
    raise ZeroDivisionError
commands._compact, commands._mark_idle = compact, mark_idle
"""


def test_a_command_that_fails_does_not_end_the_device(start: Start) -> None:
    device = start(prelude=FAULTY)
    assert give(device, "compact") == (errno.ENOMEM, "error: Cannot allocate memory\n")
    assert ctl(device, "compact") == (1, "", "vswap: Cannot allocate memory\n")
    assert "Traceback" not in device.stderr()
    fault = "error: a fault of the daemon, which its log tells more about\n"
    assert give(device, "idle all") == (errno.EIO, fault)
    assert give(device, "check")[0] == 0
    assert "ZeroDivisionError" in device.stderr()
    device.log.write_text("")  # a traceback is in order here
