"""What the commands of `ctl` are made of: how they take their words, and how they count.

A parser answers a value or raises `UserError`; nothing is done to the store before it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vswap.errors import UserError
from vswap.store import Store
from vswapd.control.ctl import Command
from vswapd.usage import COMMANDS

__all__ = ["by_rest", "by_words", "counted", "exactly", "number", "parse_nothing", "shown"]

_NUMBER = re.compile(r"[0-9]{1,18}")  # what fits in 64 bits, and in a float's exponent

T = TypeVar("T")


def by_rest(store: Store, parse: Callable[[str], T], do: Callable[[Store, T], str]) -> Command:
    """A command that takes the rest of its line as it was written."""
    return lambda rest: partial(do, store, parse(rest))


def by_words(
    store: Store, parse: Callable[[list[str]], T], do: Callable[[Store, T], str]
) -> Command:
    """A command that takes words."""
    return by_rest(store, lambda rest: parse(rest.split()), do)


def parse_nothing(words: list[str]) -> None:
    """For commands without arguments."""
    if words:
        raise UserError(f"unexpected {words[0]!r}; the command takes no arguments")


def exactly(count: int, words: list[str], name: str) -> list[str]:
    """The words of the command `name`, which are so many."""
    if len(words) != count:
        raise UserError(f"{name} takes {COMMANDS[name][0]}, not {shown(words)}")
    return words


def number(word: str, what: str) -> int:
    """A whole number, which the error calls `what`."""
    if not _NUMBER.fullmatch(word):
        raise UserError(f"{what} must be a whole number, not {word!r}")
    return int(word)


def shown(words: list[str]) -> str:
    """What was given, for messages."""
    return repr(" ".join(words)) if words else "nothing"


def counted(count: int, what: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
