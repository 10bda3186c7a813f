"""That a process has come to its end is seen in its threads, before it is told."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vswap
import vswapd
from vswapd.ending import claim, is_ending, open_thread
from vswapd.lockholder import lock_holder

SECONDS = 10

THREADS = """
import sys, threading, time
ends = threading.Event()
threading.Thread(target=ends.wait).start()
threading.Thread(target=ends.wait).start()
leaves = threading.Event()
passing = threading.Thread(target=leaves.wait)
passing.start()
print(passing.native_id, flush=True)
sys.stdin.readline()
leaves.set()
passing.join()
print("left", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """One with four threads, of which one ends for a line of input; it has told its number."""
    made = subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with made:
        yield made
        made.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_readable(fd: int, seconds: float = SECONDS) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def test_who_runs_is_not_ending(process: subprocess.Popen[str]) -> None:
    said(process)
    assert not is_ending(process.pid, 0)
    assert not is_ending(os.getpid(), 0)


def test_who_was_killed_is_ending(process: subprocess.Popen[str]) -> None:
    said(process)
    process.kill()
    assert is_ending(process.pid, SECONDS)


def test_who_has_ended_is_ending(process: subprocess.Popen[str]) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(process.pid, 0)
    process.wait()
    assert is_ending(process.pid, 0)


def test_who_is_stopped_is_not_ending(process: subprocess.Popen[str]) -> None:
    said(process)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert not is_ending(process.pid, 0)


def test_the_end_of_a_thread_is_told_and_is_not_the_process_s(
    process: subprocess.Popen[str],
) -> None:
    fd = open_thread(int(said(process)))
    if fd is None:
        pytest.skip("the kernel has no descriptors for threads (before 6.9)")
    try:
        assert not is_readable(fd, 0)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert is_readable(fd)
        assert said(process) == "left"
        assert not is_ending(process.pid, 0)
    finally:
        os.close(fd)


def test_a_thread_that_is_not_there_has_no_descriptor(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert open_thread(process.pid) is None


# --- Claiming --------------------------------------------------------------------------

HOLDER = """
import sys
from vswapd.ending import claim
claim(int(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def state() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def holder(state: int) -> subprocess.Popen[str]:
    """A process that claims the state."""
    sources = [str(Path(package.__path__[0]).parent) for package in (vswap, vswapd)]
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[state],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sources)},
    )


def test_who_claims_is_the_holder(state: int) -> None:
    with holder(state) as process:
        assert said(process) == "claimed"
        assert lock_holder(state) == process.pid
        process.kill()


def test_a_second_one_waits_for_the_end_of_the_first(state: int) -> None:
    with holder(state) as first:
        assert said(first) == "claimed"
        with holder(state) as second:
            assert second.stdout is not None
            assert not is_readable(second.stdout.fileno(), 0.3)
            first.kill()
            assert said(second) == "claimed"
            second.kill()


def test_who_is_ending_is_not_waited_for(state: int) -> None:
    """It may be unmapping its memory for a while, and has its lock until then."""
    with holder(state) as process:
        assert said(process) == "claimed"
        process.kill()
        claimed = threading.Thread(target=claim, args=(state,))
        claimed.start()
        claimed.join(SECONDS)
        assert not claimed.is_alive()
