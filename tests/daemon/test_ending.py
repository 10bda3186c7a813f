"""That a process has come to its end is seen in its threads, before it is told."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vswap
import vswapd
from vswapd.ending import claim, is_ending, open_thread, open_worker
from vswapd.lockholder import lock_holders

SECONDS = 10
SOURCES = [str(Path(package.__path__[0]).parent) for package in (vswap, vswapd)]

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


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError, PermissionError])
def test_who_is_hidden_is_not_ending(
    error: type[OSError], process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc may be mounted so that it shows one's own processes only (hidepid)."""
    said(process)

    def listdir(_path: str) -> list[str]:
        raise error

    with monkeypatch.context() as hidden:
        hidden.setattr("vswapd.ending.os.listdir", listdir)
        assert not is_ending(process.pid, 0)
    assert not is_ending(process.pid, 0)


def test_whose_threads_may_not_be_looked_at_is_not_ending(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(process)

    def read_bytes(_path: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr("vswapd.ending.Path.read_bytes", read_bytes)
    assert not is_ending(process.pid, 0)


HIDING = """
import ctypes, os, sys
from vswapd.ending import is_ending
option = sys.argv[3].encode()
if ctypes.CDLL(None).mount(b"proc", b"/proc", b"proc", 0, option):
    sys.exit(77)
os.setgroups([])
os.setresgid(65534, 65534, 65534)  # whoever is in group 0 is shown all
os.setresuid(65534, 65534, 65534)
print(*(is_ending(int(pid), 0) for pid in sys.argv[1:3]))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts /proc anew: needs root"
)
@pytest.mark.parametrize("hidepid", [1, 2])
def test_who_is_hidden_by_proc_is_not_ending(hidepid: int, process: subprocess.Popen[str]) -> None:
    said(process)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    hiding = [sys.executable, "-c", HIDING, str(process.pid), str(gone.pid), f"hidepid={hidepid}"]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *hiding],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("/proc cannot be mounted here")
    assert (done.stdout, done.stderr) == ("False True\n", "")


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
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[state],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
    )


def test_who_claims_is_the_holder(state: int) -> None:
    with holder(state) as process:
        assert said(process) == "claimed"
        assert lock_holders(state) == [process.pid]
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


def test_who_claims_beside_one_that_is_ending_is_seen(state: int) -> None:
    """Others that look then must not take the state for free."""
    with holder(state) as first:
        assert said(first) == "claimed"
        os.kill(first.pid, signal.SIGKILL)
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        with holder(state) as second:
            assert said(second) == "claimed"
            assert lock_holders(state) == [second.pid]
            pidfd = open_worker(state)
            assert pidfd is not None
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            assert second.wait(SECONDS) == -signal.SIGKILL
        assert open_worker(state) is None


def test_of_many_that_claim_at_once_one_has_it(state: int) -> None:
    processes = [holder(state) for _ in range(8)]
    try:
        left = list(processes)
        while left:
            outs = {one.stdout.fileno(): one for one in left if one.stdout is not None}
            ready, _, _ = select.select(list(outs), [], [], SECONDS)
            assert len(ready) == 1
            one = outs[ready[0]]
            assert said(one) == "claimed"
            others = [fd for fd in outs if fd not in ready]
            assert select.select(others, [], [], 0.05)[0] == []
            one.kill()
            one.wait(SECONDS)
            left.remove(one)
    finally:
        for one in processes:
            one.kill()
            one.communicate(timeout=SECONDS)
