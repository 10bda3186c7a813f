"""The daemon is replaced while the device is in use: by other code, and by nobody's wish."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_support import ENVIRONMENT, ROOT, Device, mounts, vswap, wait_until

FIO_SECONDS = 120.0


class Versions:
    """Copies of the code with changes, and which of them is the one that is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current = folder / "current"

    def make(self, name: str, *changes: tuple[str, str, str]) -> None:
        """A copy with changes: in this file, this text, to that."""
        copy = self.folder / name
        for source in (ROOT / "vswap", ROOT / "daemon" / "vswapd"):
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("*.pyc"))
        for file, old, new in changes:
            text = (copy / file).read_text()
            assert re.search(old, text), f"{file} has no {old}"
            (copy / file).write_text(re.sub(old, new, text))

    def install(self, name: str) -> None:
        """From now on what is started is this one."""
        link = self.folder / "next"
        link.symlink_to(self.folder / name)
        link.rename(self._current)

    @property
    def environment(self) -> dict[str, str]:
        """That programs find the installed one in."""
        return {**ENVIRONMENT, "PYTHONPATH": str(self._current), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    made = Versions(tmp_path)
    for number in (1, 2):
        made.make(
            f"v{number}",
            ("vswap/__init__.py", r'__version__ = ".*"', f'__version__ = "{number}.0"'),
        )
    made.install("v1")
    return made


def command(versions: Versions, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vswapd", *arguments],
        env=versions.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FIO_SECONDS,
        check=False,
        cwd="/",
    )


@pytest.fixture
def device(versions: Versions, mount: Path) -> Device:
    """A device of version 1."""
    done = command(
        versions, "up", "--mount", str(mount), "--no-tune", "--no-swapon", "--size", "256M"
    )
    assert done.returncode == 0, done.stderr
    return Device(mount, done.stdout.strip())


@pytest.fixture
def load(device: Device) -> Iterator[subprocess.Popen[str]]:
    """fio, verifying until it is told to stop. It must have met no error."""
    fio = subprocess.Popen(
        [
            *("fio", "--name=verify", f"--filename={device.loop}", "--direct=1", "--rw=randrw"),
            *("--bsrange=4k-128k", "--size=64M", "--ioengine=libaio", "--iodepth=8"),
            *("--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--loops=1000"),
            *("--verify_state_save=0", "--buffer_compress_percentage=60"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: int(device.stats()["writes"]) > 100, "fio writes")
        yield fio
        assert fio.poll() is None, fio.stdout.read() if fio.stdout else ""
    finally:
        fio.send_signal(signal.SIGINT)
        try:
            said, _ = fio.communicate(timeout=FIO_SECONDS)
        finally:
            fio.kill()
    assert not re.search(r"err= *[1-9]|verify: bad|error=", said), said


def sound(device: Device) -> None:
    done = vswap("ctl", "--device", str(device.mount), "check", timeout=FIO_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def pids(device: Device) -> tuple[int, int]:
    status = device.status()
    return int(status["supervisor_pid"]), int(status["worker_pid"])


def has_more_done(device: Device, writes: int) -> bool:
    return int(device.stats()["writes"]) > writes


def test_another_version_takes_over_under_load(
    versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    before = pids(device)
    for version in ("2", "1", "2"):
        versions.install(f"v{version}")
        done = command(versions, "restart", str(device.mount))
        assert (done.returncode, done.stderr) == (0, "")
        stats = device.stats()
        assert stats["version"] == f"{version}.0"
        now = pids(device)
        assert not set(before) & set(now)
        before = now
        wait_until(lambda: has_more_done(device, 100), "the new one serves")
    assert device.stats()["worker_restarts"] == 3
    sound(device)


def test_a_version_that_cannot_read_the_state_is_refused(
    versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    versions.make("v3", ("vswap/store/state.py", r"_VERSION = \d+", "_VERSION = 99"))
    versions.install("v3")
    before = pids(device)
    done = command(versions, "restart", str(device.mount))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "goes on as it was" in done.stderr
    assert "reads 99" in done.stderr
    assert pids(device) == before
    writes = int(device.stats()["writes"])
    wait_until(lambda: has_more_done(device, writes), "the old one serves")
    sound(device)


@pytest.mark.parametrize("module", ["supervise", "forkserver"])
def test_a_version_that_does_not_start_is_refused(
    module: str, versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    versions.make("v3", (f"vswapd/{module}.py", r"import sys", "raise SystemExit(3)"))
    versions.install("v3")
    before = pids(device)
    done = command(versions, "restart", str(device.mount))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "has ended" in done.stderr
    assert pids(device) == before
    sound(device)


# --- What becomes of it between the taking and the first word of the new one ----------------

FALLS = """
TOKEN = os.path.join(os.path.dirname(__file__), "token")


def fall():
    try:
        with open(TOKEN) as token:
            others = token.read().split()
        os.unlink(TOKEN)
    except FileNotFoundError:
        return
    for other in others:
        os.kill(os.getppid() if other == "parent" else int(other), 9)
    {how}
"""

KILLED = "os.kill(os.getpid(), 9)"
FAILS = 'raise RuntimeError("a fault of ours")'
LIVES = "return"

WHERE = {
    "before it works on the state": (r"( +)(if claim\(state)", r"\1fall()\n\1\2"),
    "when it works on the state": (r"( +)(self\._wake_fd = )", r"\1fall()\n\1\2"),
    "before it says that it serves": (r"( +)(self\._office\.serving\()", r"\1fall()\n\1\2"),
}
"""Where in a worker, as a change to its code."""

everywhere = pytest.mark.parametrize("where", WHERE)


def make_falling(versions: Versions, where: str, how: str, others: str = "") -> Path:
    """Install a version 3: the first worker of it kills the others, and then falls like that.

    Answers the token that is there as long as this has not happened.
    """
    old, new = WHERE[where]
    begin = FALLS.replace("{how}", how)
    versions.make(
        "v3",
        ("vswap/__init__.py", r'__version__ = ".*"', '__version__ = "3.0"'),
        ("vswapd/worker.py", r'(T = TypeVar\("T"\)\n)', rf"\1{begin}"),
        ("vswapd/worker.py", old, new),
    )
    versions.install("v3")
    token = versions.folder / "v3" / "vswapd" / "token"
    token.write_text(others)
    return token


def goes_on(device: Device) -> None:
    """It is mounted, and serves who uses it."""
    assert len(mounts(device.mount)) == 1
    writes = int(device.stats()["writes"])
    wait_until(lambda: has_more_done(device, writes), "somebody serves")
    sound(device)


@everywhere
def test_when_the_new_one_s_first_worker_is_killed_its_next_one_serves(
    where: str, versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    token = make_falling(versions, where, KILLED)
    before = pids(device)
    done = command(versions, "restart", str(device.mount))
    assert not token.exists()
    assert (done.returncode, done.stderr) == (0, "")
    assert device.stats()["version"] == "3.0"
    assert not set(before) & set(pids(device))
    goes_on(device)


@everywhere
def test_a_version_whose_worker_fails_when_it_has_taken_the_device_gives_it_back(
    where: str, versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    token = make_falling(versions, where, FAILS)
    before = pids(device)
    done = command(versions, "restart", str(device.mount))
    assert not token.exists()
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "goes on as it was" in done.stderr
    assert "a fault of ours" in done.stderr
    assert device.stats()["version"] == "1.0"
    assert pids(device)[0] == before[0]
    goes_on(device)


@everywhere
def test_when_the_old_supervisor_and_the_new_one_s_worker_are_killed_the_new_one_goes_on(
    where: str, versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    """It has taken the device, and has told nobody yet that it serves."""
    supervisor, _ = before = pids(device)
    token = make_falling(versions, where, KILLED, str(supervisor))
    assert command(versions, "restart", str(device.mount)).returncode == 2  # nobody tells of it
    assert not token.exists()
    assert device.stats()["version"] == "3.0"
    assert not set(before) & set(pids(device))
    goes_on(device)
    versions.install("v2")
    assert command(versions, "restart", str(device.mount)).returncode == 0
    assert device.stats()["version"] == "2.0"


@everywhere
def test_when_the_new_supervisor_is_killed_the_old_one_ends_its_worker_and_goes_on(
    where: str, versions: Versions, device: Device, load: subprocess.Popen[str]
) -> None:
    before = pids(device)
    token = make_falling(versions, where, LIVES, "parent")
    done = command(versions, "restart", str(device.mount))
    assert not token.exists()
    assert done.returncode == 2
    assert "has ended" in done.stderr
    wait_until(lambda: pids(device)[0] == before[0], "the old one serves")
    assert device.stats()["version"] == "1.0"
    goes_on(device)
    versions.install("v2")
    assert command(versions, "restart", str(device.mount)).returncode == 0
    assert device.stats()["version"] == "2.0"


def test_a_hangup_restarts_too(versions: Versions, device: Device) -> None:
    before = pids(device)
    versions.install("v2")
    os.kill(before[0], signal.SIGHUP)
    wait_until(lambda: device.status()["stats"]["version"] == "2.0", "version 2 serves")
    assert not set(before) & set(pids(device))


def test_when_only_the_supervisor_dies_the_device_works_on(
    device: Device, load: subprocess.Popen[str]
) -> None:
    supervisor, worker = pids(device)
    os.kill(supervisor, signal.SIGKILL)
    writes = int(device.stats()["writes"])
    wait_until(lambda: has_more_done(device, writes), "the worker serves")
    assert pids(device)[1] == worker
    done = vswap("restart", str(device.mount))
    assert done.returncode == 2
    assert f"(process {supervisor}) is gone" in done.stderr


def test_down_takes_down_what_was_restarted(versions: Versions, device: Device) -> None:
    assert command(versions, "restart", str(device.mount)).returncode == 0
    done = command(versions, "down", str(device.mount))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounts(device.mount) == []
