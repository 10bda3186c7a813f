"""A stand-in for systemd: a socket that takes the descriptors which are to be stored, and hands
them to the next supervisor as sd_listen_fds(3) has it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from mount.harness import environment, program
from systemd_support import Store

__all__ = ["Systemd"]

_STARTER = """
import os, sys
names, *fds = sys.argv[1].split(" ")
fds = [os.dup2(int(fd), 100 + at) for at, fd in enumerate(fds)]
for at, fd in enumerate(fds):
    os.dup2(fd, 3 + at)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Systemd(Store):
    """Keeps descriptors by their names, as a service manager does.

    It listens all the time: there is room for few messages in a socket, and who sends more waits.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.log = path.with_suffix(".log")
        self.told: list[str] = []
        self._hearing = threading.Lock()
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        both: list[socket.socket | int] = [self.end, self._ended]
        while self._ended not in select.select(both, [], [])[0]:
            self.hear()

    @property
    def environment(self) -> dict[str, str]:
        return {**environment(), "NOTIFY_SOCKET": str(self.path)}

    def hear(self) -> Systemd:
        """Take in what was sent."""
        with self._hearing:
            self.told += [line for lines in self.receive() for line in lines]
        return self

    def has_heard(self, line: str) -> bool:
        return line in self.hear().told

    def start(
        self, *arguments: str, prelude: str = "", env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A supervisor that is handed everything kept. `prelude` is its workers'."""
        return self.run([*program(prelude), *arguments], env)

    def run(
        self, arguments: Sequence[str], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """What the interpreter does with these arguments, handed everything kept."""
        names = ":".join(name for name, _ in self.kept)
        fds = [fd for _, fd in self.kept]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _STARTER, " ".join([names, *map(str, fds)]), *arguments],
                pass_fds=fds,
                env={**self.environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def close(self) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._ended)
        super().close()
