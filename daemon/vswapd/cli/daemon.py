"""Starting the daemon in the background, and stopping one that came to nothing.

The daemon says how it went on a pipe: one line, `ready` or `error REASON`. A daemon that is
gone without either has died, and its log tells more.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vswap import libc
from vswap.errors import UserError
from vswapd.cli.place import RUN_DIRECTORY, unmount
from vswapd.config import Settings
from vswapd.mounts import devices

__all__ = [
    "READY_SECONDS",
    "Daemon",
    "DiedError",
    "daemon_command",
    "daemon_environment",
    "locked_log",
    "log_path",
    "remove_log",
    "start_daemon",
    "stop_daemon",
    "wait_ready",
    "warnings",
]

READY_SECONDS = 30.0
EXIT_SECONDS = 10.0
_KILL_SECONDS = 5.0


class DiedError(UserError):
    """The daemon did not become ready and gave no reason: its log may."""


@dataclass(frozen=True)
class Daemon:
    """A daemon that was started. `ready` is the end of the pipe on which it says so."""

    process: subprocess.Popen[bytes]
    ready: int
    log: Path


def daemon_command(settings: Settings | None, *options: str) -> list[str]:
    """The program that serves a device. Without settings it can only go on with what was kept."""
    told = [] if settings is None else [settings.to_json()]
    return [sys.executable, "-m", "vswapd.supervise", *options, *told]


def daemon_environment() -> dict[str, str]:
    """Its environment: ours, fit for another working directory.

    numpy's BLAS, which is never called, would start threads and map memory for each.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if paths := os.environ.get("PYTHONPATH"):
        absolute = [str(Path(path).absolute()) for path in paths.split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(absolute)
    return environment


def log_path(name: str) -> Path:
    """Where the daemon of the device `name` writes what it has to say."""
    return RUN_DIRECTORY / f"{name}.log"


@contextmanager
def locked_log(path: Path, check: Callable[[], None]) -> Iterator[int]:
    """Hold an empty log for the device while it is brought up, for one `up` or `serve` at a time.

    Gives the descriptor that has the lock: for a process that we become to hold on to it.
    `check` raises when another one has brought the device up just before: the log is that
    one's then. If the block fails, the log is removed, unless it is all there is to tell
    why. Raises `UserError` when another process holds it.
    """
    path.parent.mkdir(mode=0o755, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, path)
        check()
        os.ftruncate(fd, 0)
        try:
            yield fd
        except BaseException as error:
            if not isinstance(error, DiedError) or not os.fstat(fd).st_size:
                remove_log(path)
            raise
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path.stem} is being brought up already; wait for it") from None


def remove_log(path: Path) -> None:
    """Remove a log that is of no more use, and the directory if it was the last there."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def start_daemon(command: Sequence[str], log: Path) -> Daemon:
    """Start `command --ready-fd N` in a session of its own, with nothing of ours but a pipe."""
    ready, theirs = os.pipe()
    environment = daemon_environment()
    environment.pop("NOTIFY_SOCKET", None)  # what a unit waits for is `up`, and it has no say here
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
            start_new_session=True,
            pass_fds=[theirs],
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(theirs)
        os.close(output)
    return Daemon(process, ready, log)


def wait_ready(daemon: Daemon, seconds: float = READY_SECONDS) -> None:
    """Wait until the daemon says that it is ready.

    Raises `UserError` when it gives a reason why not, ends, or takes more than `seconds`.
    """
    said, deadline = b"", time.monotonic() + seconds
    while not said.endswith(b"\n"):
        more = _read_said(daemon, deadline - time.monotonic())
        if more is None:
            raise DiedError(f"the daemon was not ready within {seconds:g} s{_see(daemon)}")
        if not more:
            break
        said += more
    if said == b"ready\n":
        return
    if said.startswith(b"error "):
        raise UserError(said.removeprefix(b"error ").decode(errors="replace").strip())
    raise DiedError(f"the daemon stopped before it was ready{_see(daemon)}")


def _read_said(daemon: Daemon, seconds: float) -> bytes | None:
    """More of what the daemon says; nothing at its end, None when the time is over.

    The end of the pipe alone would not do: a child of a dead daemon may hold it open.
    """
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        poll = select.poll()
        poll.register(daemon.ready, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        came = [fd for fd, _event in poll.poll(max(0.0, seconds) * 1000)]
    finally:
        os.close(pidfd)
    if daemon.ready in came:
        return os.read(daemon.ready, 4096)
    return b"" if came else None


def warnings(log: Path) -> list[str]:
    """What the daemon warned of so far, which whoever started it should know."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("vswap: warning:")]


def _see(daemon: Daemon) -> str:
    return f"; see {daemon.log}" if daemon.log.stat().st_size else " and said nothing"


def stop_daemon(daemon: Daemon, mount: str) -> None:
    """Undo `start_daemon`: unmount, which ends the daemon, or end it the hard way."""
    os.close(daemon.ready)
    process = daemon.process
    if _is_mounted(mount):
        with suppress(UserError):  # busy; that can change when the daemon is dead
            unmount(mount)
    else:
        process.terminate()
    try:
        process.wait(EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        _wait_killed(process)
    if _is_mounted(mount):
        libc.umount2(mount, libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)


def _wait_killed(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"the daemon (process {process.pid}) cannot be killed") from None


def _is_mounted(mount: str) -> bool:
    return any(device.mount == mount for device in devices())
