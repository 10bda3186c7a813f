"""A device of somebody who is not root: mounted through fusermount3, without loop and swap."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from mount.harness import PAGE, SIZE, SOURCES, Start, Worker, environment, eventually

pytestmark = pytest.mark.mount

NOBODY = 65534
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


def as_nobody(
    arguments: Sequence[str], env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        env=env or environment(),
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def nobody(fusectl: None) -> tuple[str, dict[str, str]]:
    """A Python that the user may run, and the environment in which it finds everything."""
    if shutil.which("fusermount3") is None:
        pytest.skip("there is no fusermount3")
    packages = str(Path(pytest.__file__).parent.parent)
    reason = ""
    for python, paths in (
        (sys.executable, SOURCES),
        (f"/usr/bin/{VERSION}", [*SOURCES, packages]),
        (f"/usr/local/bin/{VERSION}", [*SOURCES, packages]),
    ):
        env = {**environment(), "PYTHONPATH": os.pathsep.join(paths), "HOME": "/"}
        try:
            tried = as_nobody([python, "-c", "import vswapd.worker"], env)
        except OSError as error:
            reason = str(error)
            continue
        if tried.returncode == 0:
            return python, env
        reason = (tried.stderr.strip().splitlines() or ["no reason"])[-1]
    pytest.skip(f"user {NOBODY} cannot run the worker: {reason}")


@pytest.fixture
def users(start: Start, mount_point: Path, nobody: tuple[str, dict[str, str]]) -> Worker:
    """A device of the user's."""
    python, env = nobody
    os.chown(mount_point, NOBODY, NOBODY)
    worker = start(user=NOBODY, python=[python], env=env, allow_fusermount=True)
    if "fuse: device not found" in worker.told or "/dev/fuse" in worker.told:
        pytest.skip(f"fusermount3 gets no device: {worker.told}")
    assert worker.told == "ready", worker.stderr()
    return worker


def run(users: Worker, script: str) -> subprocess.CompletedProcess[str]:
    """What the user's own shell does in the mount; root may not look into it."""
    return as_nobody(["sh", "-c", f"cd {users.mount} && {script}"])


def test_a_user_can_mount_without_root(users: Worker) -> None:
    assert users.mounted()


def test_the_mount_looks_like_root_s(users: Worker) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = (line for line in lines if f" {users.mount} " in line)
    assert " - fuse.vswap test " in line
    assert f"user_id={NOBODY}" in line
    assert "default_permissions" in line
    assert "allow_other" not in line


def test_the_user_can_write_and_read(users: Worker) -> None:
    done = run(
        users,
        "head -c 100000 /dev/urandom > /dev/null && "
        "printf hello | dd of=swap conv=notrunc seek=5 bs=4096 status=none && "
        "dd if=swap skip=5 bs=4096 count=1 status=none | head -c 5",
    )
    assert (done.stdout, done.stderr) == ("hello", "")


def test_the_files_are_the_user_s(users: Worker) -> None:
    done = run(users, "stat -c '%u %g %a %s' swap")
    assert done.stdout == f"{NOBODY} {NOBODY} 600 {SIZE}\n"


def test_statistics_can_be_read_and_commands_given(users: Worker) -> None:
    done = run(users, "echo help > ctl && cat ctl && grep ^size stats")
    assert done.stdout == f"commands: help\nsize {SIZE}\n"


def test_large_requests_go_through(users: Worker) -> None:
    script = (
        f"head -c {4 << 20} /dev/zero | tr '\\0' x | dd of=swap conv=notrunc bs=1M status=none"
        f" iflag=fullblock && grep ^pages_written stats"
    )
    assert run(users, script).stdout == f"pages_written {(4 << 20) // PAGE}\n"


def test_a_signal_unmounts(users: Worker) -> None:
    users.signal()
    assert users.wait() == 0
    assert not users.mounted()


def test_an_aborted_connection_leaves_no_mount(users: Worker) -> None:
    users.abort()
    users.wait()
    assert eventually(lambda: not users.mounted())


def test_a_mount_point_of_somebody_else_is_refused(
    start: Start, nobody: tuple[str, dict[str, str]]
) -> None:
    python, env = nobody
    worker = start(user=NOBODY, python=[python], env=env, allow_fusermount=True)
    assert worker.told.startswith("error cannot mount on ")
    assert worker.wait() == 2


def test_without_fusermount_a_user_is_told_to_be_root(
    start: Start, nobody: tuple[str, dict[str, str]]
) -> None:
    python, env = nobody
    worker = start(user=NOBODY, python=[python], env=env)
    assert worker.told.startswith("error ")
    assert "root" in worker.told
    assert worker.wait() == 2
