"""What another process says, believed only as far as it makes sense."""

from __future__ import annotations

__all__ = ["moment", "number", "printable", "word"]

_MOST = 1 << 64
_LATEST = 1 << 35  # seconds since 1970 that calendars have a name for


def number(value: object) -> float:
    """What is said to be a number; 0 if it is none, or none to calculate with."""
    return value if isinstance(value, int | float) and -_MOST < value < _MOST else 0


def moment(value: object) -> float:
    """What is said to be a time, in seconds since 1970; 0 if it is none, or none in a calendar."""
    return number(value) if 0 < number(value) < _LATEST else 0


def word(value: object) -> str:
    """What is said to be a text, as `printable`; empty if it is none."""
    return printable(value) if isinstance(value, str) else ""


def printable(text: str) -> str:
    """With a question mark for each character that does not look like anything."""
    return "".join(each if each.isprintable() else "?" for each in text)
