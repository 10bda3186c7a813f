"""The `ctl` file: write a command, read how it went."""

from __future__ import annotations

from collections.abc import Callable

from vswap.errors import UserError

__all__ = ["Command", "Control"]

Command = Callable[[list[str]], str]
"""Takes a command's arguments; answers what reading `ctl` shall give. Raises `UserError`."""


class Control:
    """The commands and the last one's result."""

    def __init__(self, commands: dict[str, Command]) -> None:
        """`help` is added to `commands`."""
        self._commands = {**commands, "help": self._help}
        self.result = ""

    def run(self, line: str) -> bool:
        """Carry out one command line; False if it was wrong. `result` says how it went."""
        words = line.split()
        try:
            if not words:
                raise UserError("no command; try: help")
            command = self._commands.get(words[0])
            if command is None:
                raise UserError(f"unknown command {words[0]!r}; try: help")
            self.result = command(words[1:]) + "\n"
        except UserError as error:
            self.result = f"error: {error}\n"
            return False
        return True

    def _help(self, _arguments: list[str]) -> str:
        return "commands: " + " ".join(sorted(self._commands))
