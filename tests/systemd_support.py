"""The end that systemd has of $NOTIFY_SOCKET, and its store of descriptors.

As systemd has it, what was stored last is handed out first, and what is stored already is not
stored twice.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

__all__ = ["Store"]

_MANY = 64
_KCMP, _KCMP_FILE = 312, 0

_syscall = ctypes.CDLL(None, use_errno=True).syscall


class Store:
    """`kept` are descriptors and their names, the newest first."""

    def __init__(self, address: str | Path) -> None:
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(str(address))
        self.end.setblocking(False)
        self.kept: list[tuple[str, int]] = []

    def receive(self) -> list[list[str]]:
        """What it was told since, as lines; it has done what was asked of it."""
        told: list[list[str]] = []
        while self.end.fileno() != -1:
            try:
                data, fds, _, _ = socket.recv_fds(self.end, 4096, _MANY)
            except BlockingIOError:
                break
            told.append(data.decode().splitlines())
            self._do(dict(line.split("=", 1) for line in told[-1]), fds)
        return told

    def _do(self, named: dict[str, str], fds: list[int]) -> None:
        if "FDSTOREREMOVE" in named:
            self.remove(named["FDNAME"])
        for fd in fds:
            if any(_is_same(fd, other) for _, other in self.kept):
                os.close(fd)
            else:
                self.kept.insert(0, (named["FDNAME"], fd))

    def remove(self, name: str) -> None:
        for fd in self.named(name):
            os.close(fd)
        self.kept = [pair for pair in self.kept if pair[0] != name]

    def names(self) -> list[str]:
        return [name for name, _ in self.kept]

    def named(self, name: str) -> list[int]:
        return [fd for other, fd in self.kept if other == name]

    def close(self) -> None:
        self.end.close()
        for _, fd in self.kept:
            os.close(fd)


def _is_same(fd: int, other: int) -> bool:
    """Whether they are one open file; every connection to FUSE is one inode."""
    same: int = _syscall(_KCMP, os.getpid(), os.getpid(), _KCMP_FILE, fd, other)
    return same == 0
