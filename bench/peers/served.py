"""Peers that are processes: a FUSE server, and a loop device over the file that it serves.

All have the same way from the kernel to the server: a file called `swap`, and a loop device
over it with direct I/O and 4 KiB blocks. What differs is who serves the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.peers.peer import PeerError
from bench.peers.processes import alive, family, kill
from vswap.errors import UserError
from vswapd.cli.daemon import daemon_environment
from vswapd.mounts import is_mount_point
from vswapd.swapdev import attach_loop, detach_loop, run_program

__all__ = ["ROOT", "loop", "mount_point", "program", "served"]

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 30.0
_LOG_BYTES = 1 << 16


def program(*argv: str) -> str:
    """Run a program to its end; what it printed. Raises `PeerError` with what it said."""
    try:
        ended = run_program(argv, _SECONDS)
    except (TimeoutError, UserError) as error:
        raise PeerError(str(error)) from None
    if ended.code:
        raise PeerError(f"{argv[0]}: {ended.last_line}")
    return ended.stdout.decode().strip()


@contextmanager
def mount_point() -> Iterator[Path]:
    """A directory of its own to mount on, by the name that mountinfo will have."""
    with tempfile.TemporaryDirectory(prefix="vswap-") as directory:
        yield Path(directory).resolve()


@contextmanager
def served(argv: Sequence[str], mount: Path) -> Iterator[tuple[int, ...]]:
    """Run a server until the block ends; gives its processes when `swap` is in `mount`.

    Raises `PeerError` when it is not installed, or does not serve.
    """
    paths = f"{ROOT}:{ROOT / 'daemon'}"
    environment = {**daemon_environment(), "PYTHONPATH": paths}
    with tempfile.TemporaryFile() as log:
        try:
            server = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is not for who serves swap
            )
        except FileNotFoundError:
            raise PeerError(f"the program {argv[0]} is not installed") from None
        members: tuple[int, ...] = ()
        try:
            if not _becomes_ready(server, mount):
                raise PeerError(f"{argv[0]} does not serve: {_said(log)[-1]}")
            members = family(server.pid)
            yield members
        finally:
            _end(server, {*members, *family(server.pid)}, mount)
            if server.returncode:
                said = "\n".join(_said(log))
                print(f"{argv[0]} ended with {server.returncode}: {said}", file=sys.stderr)


def _becomes_ready(server: subprocess.Popen[bytes], mount: Path) -> bool:
    deadline = time.monotonic() + _SECONDS
    while not (is_mount_point(str(mount)) and (mount / "swap").exists()):
        if server.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _said(log: IO[bytes]) -> list[str]:
    """The lines of a log, read without moving the place where it is written."""
    text = os.pread(log.fileno(), _LOG_BYTES, 0).decode(errors="replace")
    return text.splitlines() or ["it says nothing"]


def _end(server: subprocess.Popen[bytes], members: Collection[int], mount: Path) -> None:
    """Unmount, which ends a server; it is killed, with all that it started, if it stays."""
    if is_mount_point(str(mount)):
        program("umount", "--lazy", str(mount))
    else:
        server.terminate()
    if not _all_end(server, members):
        kill(members)
        server.wait(_SECONDS)


def _all_end(server: subprocess.Popen[bytes], members: Collection[int]) -> bool:
    """Whether they do in time. The next peer wants the memory that they have."""
    deadline = time.monotonic() + _SECONDS
    while server.poll() is None or alive(members):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def loop(file: Path) -> Iterator[str]:
    """A loop device over a file. Raises `PeerError`."""
    try:
        device = attach_loop(str(file))
    except UserError as error:
        raise PeerError(str(error)) from None
    try:
        yield device
    finally:
        detach_loop(device)
