"""Devices for the tests: a real worker each, on a mount point in /tmp, always cleaned up."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from mount.harness import CONNECTIONS, Start, Worker, close, detach, settings, started

MODULE_SECONDS = 600.0


def _why_not() -> str | None:
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        return "mounting and aborting connections need root"
    return None


@pytest.fixture(scope="session")
def fusectl() -> Iterator[None]:
    """The control files of FUSE connections, mounted if they are not."""
    if reason := _why_not():
        pytest.skip(reason)
    if os.path.ismount(CONNECTIONS):
        yield
        return
    mounted = subprocess.run(
        ["mount", "-t", "fusectl", "none", str(CONNECTIONS)],
        capture_output=True,
        timeout=10,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("fusectl cannot be mounted, and a test that hangs could not be ended")
    yield
    subprocess.run(["umount", str(CONNECTIONS)], timeout=10, check=False)


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that other users can reach. Nothing is mounted on it afterwards."""
    with tempfile.TemporaryDirectory(prefix="vswap-test-", dir="/tmp") as parent:
        Path(parent).chmod(0o755)
        point = Path(parent) / Path(parent).name  # a device is called as it; no other one is so
        point.mkdir()
        yield point
        detach(point)


@pytest.fixture
def mount_point(fusectl: None) -> Iterator[Path]:
    """A directory to mount on."""
    with directory() as point:
        yield point


@contextmanager
def starting(mount_point: Path, logs: Path) -> Iterator[Start]:
    """What `start` gives."""
    own = {"prelude", "warm", "supervisor", "python", "env", "preexec", "user", "limit"}
    written: list[Path] = []
    with ExitStack() as stack:

        def make(**keywords: object) -> Worker:
            log = logs / f"stderr-{len(written)}"
            written.append(log)
            changed = {name: value for name, value in keywords.items() if name not in own}
            place = changed.pop("mount", mount_point)
            how = {name: value for name, value in keywords.items() if name in own}
            context: AbstractContextManager[Worker] = started(
                mount_point,
                log,
                settings(place, **changed),
                **how,  # type: ignore[arg-type]
            )
            return stack.enter_context(context)

        yield make
    for log in written:
        said = log.read_text(errors="replace")
        assert "Traceback" not in said, said


@pytest.fixture
def start(mount_point: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts workers on the mount point; keywords are `Settings`, and `started`'s own.

    Whatever happens, a worker may not leave a traceback in what it says.
    """
    with starting(mount_point, tmp_path) as make:
        yield make


@pytest.fixture
def device(start: Start) -> Worker:
    """A device that serves."""
    worker = start()
    assert worker.told == "ready", worker.stderr()
    return worker


@pytest.fixture(scope="module")
def shared(fusectl: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A device for all tests of a module that do not change it."""
    with directory() as point, starting(point, tmp_path_factory.mktemp("shared")) as make:
        worker = make(limit=MODULE_SECONDS)
        assert worker.told == "ready", worker.stderr()
        yield worker


@pytest.fixture
def swap(device: Worker) -> Iterator[int]:
    """The device's file `swap`, open for reading and writing."""
    fd = os.open(device.swap, os.O_RDWR)
    yield fd
    close(fd)
