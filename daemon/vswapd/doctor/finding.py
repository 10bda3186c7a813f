"""What a check has found, and how bad that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Finding", "Level", "failure", "good", "refusal", "warning", "worst"]


class Level(IntEnum):
    """How bad a finding is; the number is the exit code that it makes."""

    OK = 0
    WARNING = 1
    FAILURE = 2

    @property
    def word(self) -> str:
        """As it is printed."""
        return "OK" if self is Level.OK else self.name.lower()


@dataclass(frozen=True)
class Finding:
    """One sentence on the machine, and what to do about it, if there is something to be done.

    `check` names the check that has found it.
    """

    level: Level
    text: str
    remedy: str = ""
    check: str = ""

    @property
    def line(self) -> str:
        """The sentence and the remedy."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text

    def to_json(self) -> dict[str, str]:
        """As it is printed."""
        return {
            "check": self.check,
            "level": self.level.word,
            "finding": self.text,
            "remedy": self.remedy,
        }


def good(text: str) -> Finding:
    """All is as it should be, or need not be otherwise."""
    return Finding(Level.OK, text)


def warning(text: str, remedy: str) -> Finding:
    """It works, but not as well as it could, or not all of it."""
    return Finding(Level.WARNING, text, remedy)


def failure(text: str, remedy: str) -> Finding:
    """It does not work, or has lost something."""
    return Finding(Level.FAILURE, text, remedy)


def refusal(error: str, remedy: str) -> Finding:
    """A failure by the text of an error, which may end in a remedy of its own."""
    text, _semicolon, own = error.partition("; ")
    return failure(text, own or remedy)


def worst(found: Iterable[Finding]) -> Level:
    """The worst level that there is; OK if there is nothing."""
    return max((finding.level for finding in found), default=Level.OK)
