"""A worker in a process of its own, and what makes sure that nothing of it stays.

The test process may open files of the mount, so it can come to wait for the worker where no
signal reaches it. What ends that is the connection being aborted, in /sys/fs/fuse/connections:
a watchdog does it when a test takes too long, and so does whoever cleans up.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import vswap
import vswapd
from vswap import libc

PAGE = 4096
SIZE = 64 << 20
START_SECONDS = 20.0
STOP_SECONDS = 10.0
TEST_SECONDS = 40.0
COMMAND_SECONDS = 30.0
CONNECTIONS = Path("/sys/fs/fuse/connections")
SOURCES = [str(Path(package.__path__[0]).parent) for package in (vswap, vswapd)]

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE = 0x01, 0x02, 0x10

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which Python has without the mode."""
    if _fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def aligned(data: bytes) -> mmap.mmap:
    """A copy of `data` that begins at a page, so that the kernel needs no page more for it."""
    buffer = mmap.mmap(-1, len(data))
    buffer[:] = data
    return buffer


def eventually(true: Callable[[], bool], seconds: float = STOP_SECONDS) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def mount_of(path: Path) -> str | None:
    """The "major:minor" of what is mounted on `path` last, without touching it."""
    found = None
    wanted = str(path).encode("utf-8", "surrogateescape").decode("latin-1")
    for line in Path("/proc/self/mountinfo").read_text(encoding="latin-1").splitlines():
        fields = line.split(" ")
        if fields[4] == wanted:
            found = fields[2]
    return found


def abort(device: str) -> None:
    """End a FUSE connection; who waits for an answer gets ECONNABORTED."""
    with suppress(OSError):  # it has ended already
        (CONNECTIONS / device.split(":")[1] / "abort").write_text("1")


def detach(path: Path) -> None:
    """Take away what is mounted on `path`, however it is, and let nobody wait for it."""
    while device := mount_of(path):
        abort(device)
        libc.umount2(str(path), libc.MNT_DETACH)


def environment() -> dict[str, str]:
    """The environment that programs of ours are started with, from any directory."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES), "OPENBLAS_NUM_THREADS": "1"}


def halt(pid: int) -> None:
    """Stop a process, and wait until none of its threads runs: until then one may serve."""
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: set(_states(pid)) == {"T"})


def _states(pid: int) -> list[str]:
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def family(pid: int) -> list[int]:
    """A process and all that come from it, the eldest first."""
    found = [pid]
    for parent in found:
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


@dataclass
class Worker:
    """A worker process. `told` is the line on its ready descriptor, "" if it closed without."""

    process: subprocess.Popen[bytes]
    mount: Path
    log: Path
    told: str
    device: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.device = mount_of(self.mount)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def swap(self) -> Path:
        return self.mount / "swap"

    def stats(self) -> dict[str, int]:
        """The numbers of `stats.json`, as they are now."""
        values = json.loads((self.mount / "stats.json").read_bytes())
        return {name: value for name, value in values.items() if not isinstance(value, str)}

    def mounted(self) -> bool:
        return mount_of(self.mount) is not None

    def stderr(self) -> str:
        return self.log.read_text(errors="surrogateescape")

    def kill(self) -> None:
        """All processes of the daemon at once: the supervisor first, so that it starts no more."""
        for pid in family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def serving(self) -> int | None:
        """The process that serves, by its name; None if there is none at the moment."""
        for pid in family(self.pid):
            with suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                comm = Path(f"/proc/{pid}/comm").read_text()
                if comm == "vswap-worker\n" and state != "Z":
                    return pid
        return None

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The exit code; raises `TimeoutExpired` if it does not end in time."""
        return self.process.wait(seconds)

    def abort(self) -> None:
        """Take the connection away from under it."""
        assert self.device is not None
        abort(self.device)

    def stop(self) -> None:
        """End it by force if it must be, and leave nothing mounted."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.wait(2)
        if self.process.poll() is None and self.device is not None:
            abort(self.device)
            with suppress(subprocess.TimeoutExpired):
                self.wait(2)
        if self.process.poll() is None:
            self.kill()
        detach(self.mount)
        self.wait()


Start = Callable[..., Worker]
"""Starts a worker with these settings (see `conftest.start`)."""


def settings(mount: object, **changed: object) -> str:
    """The settings of a small device, as JSON."""
    values = {"name": "test", "mount": str(mount), "size": SIZE, "threads": 2}
    return json.dumps({**values, **changed})


def _read_line(fd: int, seconds: float) -> str:
    """What is told on a pipe until its end or the line's."""
    told = b""
    end = time.monotonic() + seconds
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not told.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(f"the worker has not told how it started, but {told!r}")
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        told += chunk
    return told.decode(errors="surrogateescape").removesuffix("\n")


def program(prelude: str, supervisor: str = "") -> list[str]:
    """What Python is to run: the supervisor, and as its fork server, with preludes of their own."""
    if not prelude and not supervisor:
        return ["-m", "vswapd.supervise"]
    forks = f"{prelude}\nimport sys\nfrom vswapd.forkserver import main\nsys.exit(main())\n"
    command = f"(sys.executable, '-c', {forks!r})"
    main = "import sys\nfrom vswapd.supervise import main"
    return ["-c", f"{supervisor}\n{main}\nsys.exit(main(fork_server={command}))\n"]


COLD = """
from vswapd import forking, standby
forking.get_warm = lambda _settings: None
standby._warm = lambda _settings, _has_time: None
"""


@contextmanager
def started(
    mount: Path,
    log: Path,
    json_settings: str,
    *,
    prelude: str = "",
    warm: bool = False,
    supervisor: str = "",
    python: Sequence[str] = (sys.executable,),
    env: dict[str, str] | None = None,
    preexec: Callable[[], None] | None = None,
    user: int | None = None,
    limit: float = TEST_SECONDS,
) -> Iterator[Worker]:
    """Start a worker, wait until it tells how that went, and stop it in the end.

    `prelude` is Python that runs before everything else in the fork server, and so in each worker;
    `supervisor` is such for the supervisor. Only a `warm` one has run everything once before it
    serves: that takes half of the time, and nothing but the first requests depends on it. After
    `limit` seconds its connection is aborted, whoever uses it.
    """
    prelude = prelude if warm else COLD + prelude
    ours, theirs = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*python, *program(prelude, supervisor), json_settings, "--ready-fd", str(theirs)],
                pass_fds=(theirs,),
                env=env or environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=preexec,  # noqa: PLW1509 - the test process has no other threads then
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    worker = Worker(process, mount, log, "")
    watchdog = threading.Timer(limit, detach, [mount])
    try:
        worker.told = _read_line(ours, START_SECONDS)
        worker.device = mount_of(mount)
        watchdog.start()
        yield worker
    finally:
        os.close(ours)
        watchdog.cancel()
        worker.stop()


def run_worker(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A worker that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "vswapd.supervise", *arguments],
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def run_vswap(
    *arguments: str, seconds: float = COMMAND_SECONDS, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """A command as a person types it, started by the program `before` it, if any."""
    return subprocess.run(
        [*before, sys.executable, "-W", "error", "-m", "vswapd", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def errno_of(call: Callable[[], object]) -> int:
    """The errno that a call fails with; 0 if it does not."""
    try:
        call()
    except OSError as error:
        assert error.errno is not None
        return error.errno
    return 0


def give(device: Worker, command: str) -> tuple[int, str]:
    """The errno of a command, 0 if it is done, and the result of the same descriptor."""
    fd = os.open(device.mount / "ctl", os.O_RDWR)
    try:
        code = errno_of(lambda: os.write(fd, command.encode() + b"\n"))
        return code, os.pread(fd, 1 << 20, 0).decode()
    finally:
        os.close(fd)


def close(fd: int) -> None:
    """Close a file of a device that may be gone, which close(2) then says."""
    with suppress(OSError):
        os.close(fd)


REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS, errno.EOPNOTSUPP}
"""Clean ways to say that something is not to be had here."""
