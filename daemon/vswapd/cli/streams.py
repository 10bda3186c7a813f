"""Standard input, output and error, which whoever starts a command may have closed.

What is opened next would take such a descriptor, a backing's file say, and be written to by
everything that prints; and Python has no `sys.stdout` then, which fails wherever it is used.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["open_closed_streams"]


def open_closed_streams() -> None:
    """Have /dev/null in the place of each that is closed, for us and for what we start.

    To be called before anything is opened. Raises `OSError`.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            _open_null(fd)
    if sys.stdout is None:
        sys.stdout = _writer(1)
    if sys.stderr is None:
        sys.stderr = _writer(2)


def _open_null(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null == fd:
        os.set_inheritable(fd, True)
    else:
        os.dup2(null, fd)
        os.close(null)


def _writer(fd: int) -> TextIO:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
