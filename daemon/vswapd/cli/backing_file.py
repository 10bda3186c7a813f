"""The file behind a device, as commands see it: looked at beforehand, and made with progress.

The daemon opens it itself. What is made here is removed again if the command fails, unless a
daemon has it by then: that shows by its lock (vswap/store/backing_file.py).

The store is imported only where there is something to do, for that takes longer than most
commands do.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vswap.errors import UserError
from vswapd import paths
from vswapd.cli.interrupt import Undo

__all__ = ["absolute", "check_backing", "is_missing", "make_missing"]

_DRAW_SECONDS = 0.1


def absolute(path: str) -> str:
    """What a daemon is to be told for `path`. Raises `UserError` for what is no path here."""
    if not path:
        raise UserError("backing '' is no file; name one")
    return str(paths.absolute(path))


def is_missing(path: str) -> bool:
    """Whether nothing is at `path`, an absolute one.

    Raises `UserError` for a place where there can be no backing; nothing on FUSE is touched.
    """
    from vswap.store.backing_make import check_path, is_fuse  # noqa: PLC0415

    if is_fuse(path):
        check_path(path)
    if os.path.lexists(path):
        return False
    check_path(path)
    return True


def check_backing(path: str, size: int | None) -> None:
    """Raise `UserError` unless what is at `path`, if anything, can back a device.

    With room for `size` bytes, if that is given. Nothing is changed.
    """
    if is_missing(path):
        return
    from vswap.store.backing_file import FileBacking  # noqa: PLC0415

    FileBacking.open(path, size).close()


def make_missing(
    path: str, size: int, undo: Undo, note: Callable[[int], None] = lambda _done: None
) -> None:
    """Make the file if nothing is there, with progress on a terminal; `undo` removes it again.

    `note` is told how many bytes are made. Raises `UserError`.
    """
    if not is_missing(path):
        return
    from vswap.store.backing_make import make_file  # noqa: PLC0415

    with _meter(path, size) as draw:
        made = _Made(path, draw, note)
        undo.later(made.remove)
        make_file(path, size, made.note)


class _Made:
    """A file that is being made, or was."""

    def __init__(self, path: str, *hear: Callable[[int], None]) -> None:
        """It is not there yet, or not ours. Each of `hear` is told how far it is."""
        self._path = path
        self._hear = hear
        self._ours = False

    def note(self, done: int) -> None:
        """So many bytes are made: there is a file then, and it is ours."""
        self._ours = True
        for hear in self._hear:
            hear(done)

    def remove(self) -> None:
        """Remove it, if it is there, ours, and nobody has it. Raises `OSError`."""
        if self._ours:
            with suppress(FileNotFoundError, BlockingIOError), _locked(self._path):
                Path(self._path).unlink()


@contextmanager
def _locked(path: str) -> Iterator[None]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@contextmanager
def _meter(path: str, size: int) -> Iterator[Callable[[int], None]]:
    """What takes the bytes that are made: a bar on a terminal, drawn now and then."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from vswapd.cli.bar import bar  # noqa: PLC0415  # it takes longer than most commands do

    due = 0.0
    with bar(f"making {path}", size) as draw:

        def show(done: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                draw(done)
                due = time.monotonic() + _DRAW_SECONDS

        yield show
