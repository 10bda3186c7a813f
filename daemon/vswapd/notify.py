"""Telling whoever started the worker what became of it."""

from __future__ import annotations

import os
from contextlib import suppress

from vswap.errors import UserError

__all__ = ["Ready", "Told", "reason"]


class Told:
    """Who is told, in one line, how the start went: ``ready``, or ``error`` and the reason."""

    told = False
    """Whether that has been done."""

    def tell(self, line: str) -> bool:
        """Tell it, the first time. False if it must have been heard, and nobody is there."""
        raise NotImplementedError


class Ready(Told):
    """The descriptor on which one line is awaited: ``ready``, or ``error`` and the reason."""

    def __init__(self, fd: int | None, lock: int | None = None) -> None:
        """`fd` None: nobody waits. `lock` is of a file that is locked while we start.

        Raises `UserError` if one is not open.
        """
        self._fd = fd
        self._lock = lock
        for each in (fd, lock):
            if each is not None:
                self._keep(each)

    def _keep(self, fd: int) -> None:
        """To ourselves."""
        try:
            os.set_inheritable(fd, False)
        except OSError:
            self._fd = self._lock = None
            raise UserError(f"descriptor {fd} is not open") from None

    def tell(self, line: str) -> bool:
        """Write `line`, the first time, and close. Nobody need hear it."""
        self.told = True
        if self._fd is not None:
            with suppress(OSError):  # they have gone
                os.write(self._fd, os.fsencode(" ".join(line.splitlines())) + b"\n")
            os.close(self._fd)
            self._fd = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return True


def reason(error: BaseException) -> str:
    """One line for an error that ended the start: the first of a group, without a traceback."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, UserError):
        return text
    return f"cannot start: {text or type(error).__name__}"
