"""The `ctl` file: write a command, read how it went.

A command may take minutes. It is done in a thread of its own, one at a time, while the data
plane and the other files go on. (The kernel, too, lets only one write at a time into a file:
who gives a second command waits there, and cannot be killed meanwhile.)
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from vswap.errors import RequestError, UserError, VswapError
from vswapd.background import in_background

__all__ = ["Action", "Command", "Control", "FoundError", "Result", "cut"]

Action = Callable[[], str]
"""Does a command, from any thread; answers what reading `ctl` shall give.

Raises `UserError`, `FoundError`, and what the store may raise for want of memory.
"""

Command = Callable[[str], Action]
"""Takes what follows a command's name, as it was written, and answers what to do.

Raises `UserError`. Most commands take words of it (vswapd/control/words.py).
"""

_log = logging.getLogger(__name__)


class FoundError(VswapError):
    """A check has found the store unsound. The message is the findings, a line each."""


@dataclass(frozen=True)
class Result:
    """What reading `ctl` gives after a command, and the errno that writing it failed with.

    `code` is 0 if it did not, EINVAL for a user's mistake, EUCLEAN for a check's findings.
    """

    text: str
    code: int = 0


class Control:
    """The commands and the last one's result."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        """Commands by their names."""
        self._commands = commands
        self._one_at_a_time = trio.Lock()
        self.last = Result("")

    async def run(self, line: str) -> Result:
        """Carry out one command line, which is wrong at once or waits for those before it.

        Raises nothing. If it is cancelled the work goes on to its end, and nobody hears of it.
        """
        try:
            action = self._parse(line)
            async with self._one_at_a_time:
                text = await in_background(action, abandon=True)
            result = Result(text + "\n")
        except Exception as error:
            result = _failed(error, line)
        self.last = result
        return result

    def _parse(self, line: str) -> Action:
        name, rest = cut(line.removesuffix("\n"))
        if not name:
            raise UserError("no command; try: help")
        command = self._commands.get(name)
        if command is None:
            raise UserError(f"unknown command {name!r}; try: help")
        return command(rest)


def cut(line: str) -> tuple[str, str]:
    """Its first word, and from the next one on all the rest as it is. Empty what is not there."""
    name, rest, *_ = (*line.split(maxsplit=1), "", "")
    return name, rest


def _failed(error: Exception, line: str) -> Result:
    if isinstance(error, FoundError):
        return Result(f"{error}\n", errno.EUCLEAN)
    if isinstance(error, UserError):
        return Result(f"error: {error}\n", errno.EINVAL)
    if isinstance(error, RequestError):
        return Result(f"error: {error}\n", error.errno)
    if isinstance(error, OSError):
        return Result(f"error: {error.strerror or error}\n", error.errno or errno.EIO)
    _log.error("%r has failed", line.strip(), exc_info=error)
    return Result("error: a fault of the daemon, which its log tells more about\n", errno.EIO)
