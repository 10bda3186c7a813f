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
        self._folder = folder
        self._current = folder / "current"

    def make(self, name: str, *changes: tuple[str, str, str]) -> None:
        """A copy with changes: in this file, this text, to that."""
        copy = self._folder / name
        for source in (ROOT / "vswap", ROOT / "daemon" / "vswapd"):
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("*.pyc"))
        for file, old, new in changes:
            text = (copy / file).read_text()
            assert re.search(old, text), f"{file} has no {old}"
            (copy / file).write_text(re.sub(old, new, text))

    def install(self, name: str) -> None:
        """From now on what is started is this one."""
        link = self._folder / "next"
        link.symlink_to(self._folder / name)
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
