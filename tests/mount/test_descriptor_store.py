"""All processes of the daemon are killed, and what systemd kept for it is enough to go on.

A socket of the test's stands for systemd (mount/systemd.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.harness import Start, Worker, close, eventually, give, mount_of
from mount.harness import settings as settings_of
from mount.killed_at import Point, Trap
from mount.systemd import Systemd

pytestmark = pytest.mark.mount

SIZE = 64 << 20


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def device(systemd: Systemd, start: Start) -> Worker:
    made = start(env=systemd.environment)
    assert made.told == "ready", made.stderr()
    assert eventually(lambda: systemd.has_heard("READY=1"))
    return made


def succeed(
    device: Worker, systemd: Systemd, prelude: str = "", env: dict[str, str] | None = None
) -> None:
    """Start the next supervisor, which the fixtures then stop in the place of the old one."""
    systemd.hear().told.clear()
    device.wait()
    device.process = systemd.start(settings_of(device.mount), prelude=prelude, env=env)
    assert eventually(lambda: systemd.has_heard("READY=1"), 20), device.process.poll()


def has_ended(pid: int) -> bool:
    """Also if nobody has asked for its status yet."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def end(device: Worker, systemd: Systemd) -> None:
    device.signal()
    code, said = device.wait(), systemd.log.read_text()
    assert code == 0, said
    assert "Traceback" not in said
    assert not device.mounted()


def test_what_is_held_is_stored(device: Worker, systemd: Systemd) -> None:
    names = sorted(name for name, _ in systemd.kept)
    assert names == sorted(
        ["vswap-fuse", "vswap-record", "vswap-history", *(f"vswap-state{n}" for n in range(9))]
    )


def test_both_killed_and_the_next_start_takes_over(device: Worker, systemd: Systemd) -> None:
    data = os.urandom(1 << 20)
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, data, 0)
        device.kill()
        succeed(device, systemd)
        assert os.pread(fd, len(data), 0) == data
        os.pwrite(fd, data[::-1], 0)
        assert os.pread(fd, len(data), 0) == data[::-1]
        assert give(device, "check")[0] == 0
        assert device.stats()["worker_restarts"] == 1
    finally:
        close(fd)
    end(device, systemd)


def test_requests_wait_while_nobody_is_there(device: Worker, systemd: Systemd) -> None:
    """None fails: the connection is open as long as somebody holds it."""
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        device.kill()
        device.wait()
        reader = subprocess.Popen(
            ["dd", f"if={device.swap}", "bs=4", "count=1", "status=none"], stdout=subprocess.PIPE
        )
        succeed(device, systemd)
        out, _ = reader.communicate(timeout=10)
        assert (reader.returncode, out) == (0, b"kept")
    finally:
        close(fd)
    end(device, systemd)


def test_a_supervisor_that_dies_alone_is_followed_by_one_with_its_own_worker(
    device: Worker, systemd: Systemd
) -> None:
    """The worker that still serves is found by its lock, and ended."""
    worker = device.serving()
    assert worker is not None
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        device.process.kill()
        succeed(device, systemd)
        assert os.pread(fd, 4, 0) == b"kept"
        assert device.serving() != worker
        assert has_ended(worker)
        assert give(device, "check")[0] == 0
    finally:
        close(fd)
    end(device, systemd)


def test_the_backing_is_stored_and_taken_back(
    device: Worker, systemd: Systemd, tmp_path: Path
) -> None:
    data = os.urandom(1 << 20)
    backing = tmp_path / "backing"
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, data, 0)
        made = os.open(backing, os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(made, 0, 33 << 20)
        os.close(made)
        assert give(device, f"backing attach {backing}")[0] == 0
        assert give(device, "writeback huge")[0] == 0
        assert device.stats()["backing_pages"] == 256
        assert "vswap-backing" in [name for name, _ in systemd.hear().kept]
        device.kill()
        succeed(device, systemd)
        assert device.stats()["backing_pages"] == 256
        assert os.pread(fd, len(data), 0) == data
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: device.stats()["backing_pages"] == 0)
        assert eventually(lambda: "vswap-backing" not in [name for name, _ in systemd.hear().kept])
        assert os.pread(fd, len(data), 0) == data
    finally:
        close(fd)
    end(device, systemd)


# --- The first ones that come after do not serve -------------------------------------------

MAKE = "vswapd.worker:Worker.__init__"
BEFORE_IT_SERVES: dict[str, Point] = {
    "it works on the state": Point("before", MAKE),
    "it has found the state": Point("after", MAKE),
    "it receives": Point("before", "vswapd.channel.channel:Channel.start"),
    "it says that it serves": Point("before", "vswapd.office:Office.serving"),
}

FAILING = """
import os
def fail(pid, number):
    raise RuntimeError("a fault of ours")
os.kill = fail
"""
"""Prelude: whoever would be killed at a point fails there."""


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


def is_kept_whole(systemd: Systemd) -> bool:
    """Nothing was ever taken out of the store."""
    return "FDSTOREREMOVE=1" not in systemd.hear().told


@pytest.mark.parametrize("how", ["are killed", "fail"])
@pytest.mark.parametrize("point", BEFORE_IT_SERVES)
def test_the_first_workers_fall_before_they_serve(
    point: str, how: str, device: Worker, systemd: Systemd, trap: Trap
) -> None:
    """Who has waited since the device was killed is served by the next."""
    data = os.urandom(1 << 20)
    prelude = trap.prelude({"here": BEFORE_IT_SERVES[point]})
    if how == "fail":
        prelude += FAILING
    mounted = device.device
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, data, 0)
        device.kill()
        device.wait()
        reader = subprocess.Popen(
            ["dd", f"if={device.swap}", "bs=4", "count=1", "status=none"], stdout=subprocess.PIPE
        )
        trap.arm(deaths=2)
        succeed(device, systemd, prelude, trap.environment())
        assert trap.sprung
        out, _ = reader.communicate(timeout=10)
        assert (reader.returncode, out) == (0, data[:4])
        assert os.pread(fd, len(data), 0) == data
        os.pwrite(fd, data[::-1], 0)
        assert os.pread(fd, len(data), 0) == data[::-1]
        assert give(device, "check")[0] == 0
        assert device.stats()["worker_restarts"] == 3
        assert mount_of(device.mount) == mounted
        assert is_kept_whole(systemd)
    finally:
        close(fd)
    said = systemd.log.read_text()
    assert ("a fault of ours" in said) == (how == "fail"), said
    end(device, systemd)


FORKS_ENDING = """
import os
try:
    os.unlink(os.environ["TOKEN"])
except FileNotFoundError:
    pass
else:
    raise SystemExit(3)
"""


def test_the_first_fork_server_ends_before_it_has_forked(
    device: Worker, systemd: Systemd, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch()
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        device.kill()
        succeed(device, systemd, FORKS_ENDING, {"TOKEN": str(token)})
        assert not token.exists()
        assert os.pread(fd, 4, 0) == b"kept"
        assert is_kept_whole(systemd)
    finally:
        close(fd)
    end(device, systemd)


def test_the_next_supervisor_is_asked_to_end_before_somebody_serves(
    device: Worker, systemd: Systemd, trap: Trap
) -> None:
    """It unmounts what is not used, as one that serves does."""
    point = Point("before", MAKE, gated=True)
    device.kill()
    device.wait()
    systemd.hear().told.clear()
    trap.arm()
    device.process = systemd.start(
        settings_of(device.mount),
        prelude=trap.prelude({"here": point}),
        env=trap.environment(),
    )
    assert eventually(lambda: trap.reached, 20)
    device.signal()
    assert eventually(lambda: not device.mounted())
    trap.open()
    assert eventually(lambda: systemd.hear().kept == [])
    assert device.wait() == 1  # its worker was killed


def test_a_device_that_was_unmounted_is_made_anew(device: Worker, systemd: Systemd) -> None:
    kept = [(name, os.dup(fd)) for name, fd in systemd.hear().kept]
    device.signal()
    assert device.wait() == 0
    assert systemd.hear().kept == []
    systemd.kept = kept  # as if it had not been told
    succeed(device, systemd)
    assert device.stats()["worker_restarts"] == 0
    end(device, systemd)


def test_what_is_left_of_a_device_whose_connection_has_closed_is_cleared_away(
    device: Worker, systemd: Systemd
) -> None:
    """Else the next crash would find descriptors of two devices."""
    device.kill()
    device.wait()
    device.abort()  # before anybody goes on with it
    succeed(device, systemd)
    names = systemd.hear().names()
    assert sorted(names) == sorted(set(names))
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        device.kill()
        succeed(device, systemd)
        assert os.pread(fd, 4, 0) == b"kept"
    finally:
        close(fd)
    end(device, systemd)  # and what was mounted first is not there either


def test_nothing_to_go_on_with_is_a_mistake_if_nothing_is_to_be_made(
    device: Worker, systemd: Systemd
) -> None:
    """And no reason to try it again twice a second."""
    device.kill()
    device.wait()
    device.abort()
    device.process = systemd.start()
    assert device.wait() == 2
    assert systemd.log.read_text() == "vswap: no settings, and nothing to go on with\n"
    assert systemd.hear().kept == []
    assert not device.mounted()


# --- The one before has not ended ----------------------------------------------------------


def ends_beside_another(device: Worker, systemd: Systemd, supervisor: int) -> None:
    """Who is started beside a supervisor that lives says so, and touches nothing."""
    worker = device.serving()
    second = systemd.start(settings_of(device.mount))
    assert second.wait(20) == 2
    assert systemd.log.read_text().startswith(f"vswap: a supervisor (process {supervisor}) serves")
    assert device.serving() == worker
    assert is_kept_whole(systemd)


def test_a_supervisor_that_lives_is_not_joined_by_another(device: Worker, systemd: Systemd) -> None:
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        ends_beside_another(device, systemd, device.pid)
        assert os.pread(fd, 4, 0) == b"kept"
        assert device.stats()["worker_restarts"] == 0
    finally:
        close(fd)


def test_nor_is_the_heir_of_one(device: Worker, systemd: Systemd) -> None:
    systemd.hear().told.clear()
    device.signal(signal.SIGHUP)
    assert eventually(lambda: bool(systemd.hear()) and device.process.poll() is not None)
    assert device.wait() == 0
    (heir,) = {int(line[8:]) for line in systemd.hear().told if line.startswith("MAINPID=")}
    try:
        second = systemd.start(settings_of(device.mount))
        assert second.wait(20) == 2
        assert f"(process {heir})" in systemd.log.read_text()
        assert is_kept_whole(systemd)
    finally:
        os.kill(heir, signal.SIGTERM)
        assert eventually(lambda: not device.mounted())
        assert eventually(lambda: not Path(f"/proc/{heir}").exists())
