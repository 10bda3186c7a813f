"""The test's hand in a guest: runs programs there and tells the host what they say.

Standard library only, for it runs under the guest's own Python, as the first process's child or
as a service. It talks over a virtio port, one JSON object to a line.

    host  -> guest   {"job": N, "start": [ARGV...], "env": {...}}
                     {"job": N, "signal": NUMBER}      to the job's whole process group
                     {"job": N, "write": PATH, "text": TEXT}
    guest -> host    {"ready": RELEASE}                             once
                     {"job": N, "line": TEXT, "stream": 1 or 2}     as they come
                     {"job": N, "exit": STATUS}                     after its last line
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PORTS = Path("/sys/class/virtio-ports")
PORT = "vswap-test"
OUTSIDE = ("sh", "-c", 'echo 0 >/sys/fs/cgroup/cgroup.procs && exec "$@"', "sh")
"""What is tested is swapped as anything is; the hand itself is not (see `/opt/test/init`)."""

MOUNTS = (
    ("proc", "proc", "/proc", ""),
    ("tmpfs", "run", "/run", "size=8m"),
    ("tmpfs", "tmp", "/tmp", "size=8m"),
)


class Agent:
    """Serves the host until the port closes."""

    def __init__(self, port: IO[bytes]) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._jobs: dict[int, subprocess.Popen[bytes]] = {}

    def say(self, **message: Any) -> None:  # noqa: ANN401
        """One line to the host."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            while line:  # the port takes 32 KiB at a time
                line = line[self._port.write(line) :]

    def serve(self) -> None:
        """Do what the host asks for."""
        self.say(ready=os.uname().release)
        for line in iter(self._port.readline, b""):
            request = json.loads(line)
            try:
                self._do(request)
            except OSError as error:
                self.say(job=request["job"], line=str(error), stream=2)
                self.say(job=request["job"], exit=127)

    def _do(self, request: dict[str, Any]) -> None:
        number = request["job"]
        if "start" in request:
            self._start(number, request["start"], request.get("env", {}))
        elif "signal" in request:
            with suppress(KeyError, ProcessLookupError):
                os.killpg(self._jobs[number].pid, request["signal"])
        else:
            Path(request["write"]).write_text(request["text"])
            self.say(job=number, exit=0)

    def _start(self, number: int, argv: list[str], env: dict[str, str]) -> None:
        process = subprocess.Popen(
            argv if Path("/run/systemd/system").exists() else [*OUTSIDE, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            start_new_session=True,
        )
        self._jobs[number] = process
        threading.Thread(target=self._follow, args=(number, process), daemon=True).start()

    def _follow(self, number: int, process: subprocess.Popen[bytes]) -> None:
        errors = threading.Thread(target=self._relay, args=(number, process.stderr, 2))
        errors.start()
        self._relay(number, process.stdout, 1)
        errors.join()
        self.say(job=number, exit=process.wait())

    def _relay(self, number: int, stream: IO[bytes] | None, which: int) -> None:
        assert stream is not None
        for line in stream:
            text = line.decode(errors="replace").rstrip("\n")
            self.say(job=number, line=text, stream=which)


def open_port() -> IO[bytes]:
    """The port that the host listens on."""
    for port in PORTS.iterdir():
        if (port / "name").read_text().strip() == PORT:
            return Path(f"/dev/{port.name}").open("r+b", buffering=0)
    raise FileNotFoundError(f"no virtio port {PORT}")


def mount_all() -> None:
    """What an init would have mounted, but for what `/opt/test/init` has."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, source, target, options in MOUNTS:
        if not os.path.ismount(target):
            libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode())


def main() -> None:
    """Be there until the host has gone."""
    if os.getppid() == 1 and not Path("/run/systemd/system").exists():
        mount_all()
    os.environ["PATH"] = "/opt/vswap/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Agent(open_port()).serve()


if __name__ == "__main__":
    main()
