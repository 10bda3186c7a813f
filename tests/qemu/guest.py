"""A guest: one virtual machine, the programs that are run in it, and what becomes of it.

It has no network. What it prints on its console goes to a file; what is asked of it and answered
goes over a virtio port (see `agent.py`). A guest that hangs is ended by its own kernel
(hung_task_panic, panic=-1) or killed at its time limit; whoever waits for it is told then, with
the end of its console.
"""

from __future__ import annotations

import json
import queue
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from qemu.agent import PORT

__all__ = ["Done", "Drive", "Guest", "GuestError", "Job", "Machine"]

BOOT_SECONDS = 60.0
COMMAND_SECONDS = 60.0
STOP_SECONDS = 20.0
CONSOLE_TAIL = 3000
TROUBLE = re.compile(
    r"hung_task|blocked for more than|Out of memory|invoked oom-killer|oom-kill:|\bBUG\b|\bOops\b"
    r"|Kernel panic|Call Trace|I/O error|soft lockup|rcu_\w+ (?:self-)?detected"
)
"""What no console says of a guest that is well."""

CPU = "max,-avx2"
"""Qemu 7.2 emulates AVX2 wrong: a sixth of numpy's `unique(..., return_inverse=True)` with it."""

PARAMETERS = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic hung_task_panic=1 "
    "sysctl.kernel.hung_task_timeout_secs=40 random.trust_cpu=on"
)


class GuestError(AssertionError):
    """A guest has died, or does not answer in time."""


@dataclass(frozen=True)
class Drive:
    """A disk of the guest: /dev/vda is the system's, these follow in their order.

    `node` is qemu's description of where the data is: a blockdev, or a file's path.
    """

    node: Path | dict[str, Any]
    discard: bool = False
    read_only: bool = False
    block_size: int = 512

    def blockdev(self, name: str) -> dict[str, Any]:
        """It as qemu's -blockdev takes it."""
        node = self.node
        if isinstance(node, Path):
            device = node.is_block_device()
            kind = "host_device" if device else "file"
            node = {"driver": kind, "filename": str(node), "cache": {"direct": device}}
        described = {"driver": "raw", "file": node, "node-name": name, "read-only": self.read_only}
        return described | ({"discard": "unmap"} if self.discard else {})


@dataclass(frozen=True)
class Machine:
    """What a guest is made of. `parameters` are the kernel's; `init` is the first program.

    One processor: two that are emulated and wait for each other, on a machine that has no more and
    something else to do, take twice the time. `nice` is for one whose pauses are measured: what
    else the host has to do would be among them.
    """

    kernel: Path
    initramfs: Path
    root: Path
    memory: int
    processors: int = 1
    accelerator: str = "tcg,thread=multi"
    init: str = "/opt/test/init"
    parameters: str = ""
    drives: Sequence[Drive] = ()
    seconds: float = 300.0
    nice: int = 0

    def command(self, console: Path, port: Path, scratch: Path) -> list[str]:
        """Qemu's command line. What is written to the root file system is forgotten."""
        nodes = [drive.blockdev(f"disk{index}") for index, drive in enumerate(self.drives)]
        return [
            # However we end, it ends.
            *("setpriv", "--pdeathsig", "KILL", "nice", "-n", str(self.nice)),
            *("qemu-system-x86_64", "-machine", "q35", "-accel", self.accelerator, "-cpu", CPU),
            *("-m", str(self.memory), "-smp", str(self.processors), "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", f"file:{console}"),
            *("-kernel", str(self.kernel), "-initrd", str(self.initramfs)),
            *("-append", f"{PARAMETERS} vswap.init={self.init} {self.parameters}"),
            *("-drive", f"id=root,file={self.root},format=raw,if=none,snapshot=on,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=root"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={port},server=on,wait=off"),
            *("-device", f"virtserialport,chardev=port,name={PORT}"),
            *(word for node in nodes for word in ("-blockdev", json.dumps(node))),
            *(word for index in range(len(nodes)) for word in ("-device", self._disk(index))),
        ]

    def _disk(self, index: int) -> str:
        size = self.drives[index].block_size
        sizes = f"logical_block_size={size},physical_block_size={size}"
        return f"virtio-blk-pci,drive=disk{index},{sizes}"


@dataclass(frozen=True)
class Done:
    """A program that has ended in the guest."""

    argv: Sequence[str]
    returncode: int
    stdout: str
    stderr: str

    def ok(self) -> str:
        """What it said, if it succeeded."""
        assert self.returncode == 0, f"{shlex.join(self.argv)}: {self.returncode}\n{self}"
        return self.stdout

    def __str__(self) -> str:
        return self.stdout + self.stderr


@dataclass
class Job:
    """A program that runs in the guest."""

    guest: Guest
    number: int
    argv: Sequence[str]
    lines: list[tuple[float, int, str]] = field(default_factory=list)
    """What it has said: when (`time.monotonic`), on which stream, what."""
    _ended: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    _status: int | None = None

    def wait(self, seconds: float = COMMAND_SECONDS) -> Done:
        """Until it has ended. Raises `GuestError` if it, or the guest, does not do so well."""
        if self._status is None:
            try:
                self._status = self._ended.get(timeout=seconds)
            except queue.Empty:
                self.guest.fail(f"{shlex.join(self.argv)}: not in {seconds} s\n{self._said()}")
        if self.guest.dead:
            self.guest.fail(f"{shlex.join(self.argv)}: the guest has ended\n{self._said()}")
        return Done(self.argv, self._status, self.text(1), self.text(2))

    def poll(self) -> bool:
        """Whether it still runs."""
        return self._status is None and self._ended.empty() and not self.guest.dead

    def text(self, stream: int) -> str:
        """All that it has said on a stream."""
        return "".join(f"{line}\n" for _, which, line in list(self.lines) if which == stream)

    def _said(self) -> str:
        return "".join(f"  {line}\n" for _, _, line in self.lines[-30:])

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it, and all that it has started, a signal."""
        self.guest.ask(job=self.number, signal=number)

    def hear(self, message: dict[str, Any]) -> None:
        """What the agent says of it."""
        if "exit" in message:
            self._ended.put(message["exit"])
        else:
            self.lines.append((time.monotonic(), message["stream"], message["line"]))


class Guest:
    """A running one. Use `stop` at its end."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Boot it. Its console and its scratch files go to `folder`. Raises `GuestError`."""
        self.machine = machine
        self.console = folder / "console"
        self.console.touch()
        self.dead = False
        self.release = ""
        self.boot_seconds = 0.0
        """From qemu's start to the hand's first word."""
        self._jobs: dict[int, Job] = {}
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="vswap-qemu-")  # a short path
        port = Path(self._scratch.name) / "port"
        self._errors = (folder / "qemu").open("w+")
        self._began = time.monotonic()
        command = machine.command(self.console, port, Path(self._scratch.name))
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors
        )
        self._limit = threading.Timer(machine.seconds, self._process.kill)
        self._limit.start()
        try:
            self._connect(port)
        except BaseException:
            self.stop()
            raise

    def _connect(self, port: Path) -> None:
        end = time.monotonic() + BOOT_SECONDS
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while self._process.poll() is None and time.monotonic() < end:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                self._socket.connect(str(port))
                break
            time.sleep(0.01)
        self._reader = threading.Thread(target=self._read, name="guest", daemon=True)
        self._reader.start()
        if not self._ready.wait(max(0, end - time.monotonic())):
            self.fail(f"no prompt in {BOOT_SECONDS} s")
        if self.dead:
            self.fail("it does not boot")

    def _read(self) -> None:
        try:
            with suppress(OSError), self._socket.makefile("rb") as lines:
                for line in lines:
                    self._hear(json.loads(line))
        finally:
            self.dead = True
            self._ready.set()
            for job in list(self._jobs.values()):
                job.hear({"exit": -1})

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.release = message["ready"]
            self.boot_seconds = time.monotonic() - self._began
            self._ready.set()
        else:
            self._jobs[message["job"]].hear(message)

    def ask(self, **request: Any) -> None:  # noqa: ANN401
        """Send the agent a request."""
        with self._lock:
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            except OSError:
                self.fail("the guest has ended")

    def start(self, *argv: str, **env: str) -> Job:
        """Start a program in the guest."""
        job = Job(self, len(self._jobs), argv)
        self._jobs[job.number] = job
        self.ask(job=job.number, start=argv, env=env)
        return job

    def run(self, *argv: str, seconds: float = COMMAND_SECONDS, **env: str) -> Done:
        """Run a program in the guest to its end."""
        return self.start(*argv, **env).wait(seconds)

    def sh(self, script: str, seconds: float = COMMAND_SECONDS) -> str:
        """What a shell script prints; it must succeed."""
        return self.run("sh", "-ec", script, seconds=seconds).ok()

    def write(self, path: str, text: str) -> None:
        """Make a file in the guest."""
        job = Job(self, len(self._jobs), ("write", path))
        self._jobs[job.number] = job
        self.ask(job=job.number, write=path, text=text)
        job.wait().ok()

    def fail(self, why: str) -> NoReturn:
        """Raise `GuestError`, with the end of the console."""
        tail = self.console.read_text(errors="replace")[-CONSOLE_TAIL:]
        self._errors.seek(0)
        raise GuestError(f"{why}\n{self._errors.read()}--- console ({self.console}):\n{tail}")

    def trouble(self) -> list[str]:
        """Lines of the console that tell of something wrong."""
        lines = self.console.read_text(errors="replace").splitlines()
        return [line for line in lines if TROUBLE.search(line)]

    def wait_end(self, seconds: float) -> None:
        """Until it has switched itself off. Raises `GuestError` if it does not."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail(f"still on after {seconds} s")
        if status:
            self.fail(f"qemu was ended: {status}")

    def limit(self, seconds: float) -> None:
        """It is killed when so much time has passed from now, whatever was said before."""
        self._limit.cancel()
        self._limit = threading.Timer(seconds, self._process.kill)
        self._limit.start()

    def stop(self) -> None:
        """The end of it, whatever it does."""
        self._limit.cancel()
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        with suppress(AttributeError):
            self._socket.close()
            self._reader.join(STOP_SECONDS)
        self._errors.close()
        self._scratch.cleanup()
