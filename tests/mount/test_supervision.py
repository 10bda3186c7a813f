"""What the supervisor does about workers that hang, and about workers that fail again and again."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from mount.harness import (
    Start,
    Worker,
    close,
    environment,
    eventually,
    family,
    give,
    halt,
    run_vswap,
)

from vswapd.cli import replace
from vswapd.mounts import Device

pytestmark = pytest.mark.mount

SECONDS = 30


def reader(device: Worker) -> subprocess.Popen[bytes]:
    """Somebody who reads the first four bytes, and may have to wait."""
    return subprocess.Popen(
        ["dd", f"if={device.swap}", "bs=4", "count=1", "status=none"], stdout=subprocess.PIPE
    )


def read(process: subprocess.Popen[bytes]) -> bytes:
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    return out


def write(device: Worker, data: bytes) -> None:
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, data, 0)
    finally:
        close(fd)


# --- The watchdog ----------------------------------------------------------------------


def test_a_worker_that_hangs_while_requests_wait_is_replaced(start: Start) -> None:
    device = start(watchdog=2)
    write(device, b"kept")
    worker = device.serving()
    assert worker is not None
    halt(worker)
    assert read(reader(device)) == b"kept"
    assert eventually(lambda: device.serving() != worker)  # the old one may still be ending
    assert device.stats()["worker_restarts"] == 1
    assert "answers nothing" in device.stderr()
    device.signal()
    assert device.wait() == 0


HANGING = """
import os, threading
from vswap.store import Lane
look = Lane.look
def hang(*arguments):
    try:
        os.unlink(os.environ["TOKEN"])
    except FileNotFoundError:
        return look(*arguments)
    threading.Event().wait()
Lane.look = hang
"""


def test_a_request_that_hangs_its_thread_is_taken_from_it(start: Start, tmp_path: Path) -> None:
    """With one thread nothing else is answered then."""
    token = tmp_path / "token"
    env = {**environment(), "TOKEN": str(token)}
    device = start(watchdog=2, threads=1, prelude=HANGING, env=env)
    write(device, b"kept")
    token.touch()
    assert read(reader(device)) == b"kept"
    assert device.stats()["worker_restarts"] == 1
    device.signal()
    assert device.wait() == 0


def test_a_worker_that_nobody_asks_may_be_silent(start: Start) -> None:
    device = start(watchdog=1)
    worker = device.serving()
    for _ in range(3):  # a look every second
        before = looks(device)
        assert eventually(lambda before=before: looks(device) > before)  # type: ignore[misc]
    assert device.serving() == worker


def looks(device: Worker) -> int:
    """How often the supervisor was woken, which it is once a second."""
    for line in Path(f"/proc/{device.pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError


# --- Spares ----------------------------------------------------------------------------


@pytest.mark.parametrize(("spares", "processes"), [(0, 2), (1, 3), (2, 4)])
def test_with_few_spares_a_worker_that_ends_is_followed_all_the_same(
    spares: int, processes: int, start: Start
) -> None:
    device = start(spares=spares)
    write(device, b"kept")
    for _ in range(3):
        assert eventually(lambda: len(family(device.pid)) == processes)
        worker = device.serving()
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        assert read(reader(device)) == b"kept"
        assert eventually(lambda worker=worker: device.serving() != worker)  # type: ignore[misc]
    assert eventually(lambda: len(family(device.pid)) == processes)
    assert device.stats()["worker_restarts"] == 3
    device.signal()
    assert device.wait() == 0


@pytest.mark.parametrize("spares", [0, 1])
def test_two_that_end_at_once_are_followed(spares: int, start: Start) -> None:
    device = start(spares=spares)
    write(device, b"kept")
    assert eventually(lambda: len(family(device.pid)) == 2 + spares)
    for pid in family(device.pid)[1:]:
        os.kill(pid, signal.SIGKILL)
    assert read(reader(device)) == b"kept"
    device.signal()
    assert device.wait() == 0


# --- Failing again and again -----------------------------------------------------------

FAILING = """
import os
from vswapd.worker import Worker
make = Worker.__init__
def fail(self, settings, preparation, state, office, charge, *more):
    if charge.agreed is not None and os.path.exists(os.environ["TOKEN"]):
        raise RuntimeError("a fault of ours")
    make(self, settings, preparation, state, office, charge, *more)
Worker.__init__ = fail
"""


@pytest.fixture
def given_up(start: Start, tmp_path: Path) -> Worker:
    """A device of which no worker can take over any more, while somebody waits for it."""
    token = tmp_path / "token"
    device = start(prelude=FAILING, env={**environment(), "TOKEN": str(token)}, limit=90)
    write(device, b"kept")
    token.touch()
    worker = device.serving()
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: "fail again and again" in device.stderr(), 60)
    return device


def test_who_fails_again_and_again_is_given_up_and_nothing_is_lost(
    given_up: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = reader(given_up)
    assert "cannot start: a fault of ours" in given_up.stderr()
    assert given_up.process.poll() is None
    # The fork server is there, and no worker, once the last one has ended.
    assert eventually(lambda: len(family(given_up.pid)) == 2, 20)
    # `vswap restart` finds the supervisor although nobody answers on the mount.
    log = Path(f"/proc/{given_up.pid}/fd/2").readlink()
    monkeypatch.setattr(replace, "log_path", lambda _name: log)
    device = Device(given_up.mount.name, str(given_up.mount))
    assert replace.supervisor_of(device) == given_up.pid
    (tmp_path / "token").unlink()
    given_up.signal(signal.SIGHUP)
    assert read(waiting) == b"kept"
    given_up.wait()
    assert give(given_up, "check")[0] == 0
    assert run_vswap("down", str(given_up.mount)).returncode == 0
