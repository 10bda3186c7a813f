"""Sizes as a person writes them: `4G`, `4096`, `50%`, `min(ram / 2, 4G)`.

    sum      product, then any number of + product or - product
    product  factor, then any number of * factor or / factor
    factor   + factor, - factor, NUMBER, ram, ( sum ), min( sum, ... ), max( sum, ... )

A NUMBER is bytes, or has a unit (k, M, G, T, P, E: powers of 1024; GiB, GB and Gi are G), or a %,
which is a hundredth of `ram`, the machine's memory in bytes. Values are exact fractions until the
end, so nothing overflows or is lost on the way; and both the length of a text and the depth of its
brackets are bounded, so whatever is written takes microseconds. systemd's zram-generator has such
expressions too; there a number without a unit is MiB, here it is bytes, as everywhere in vswap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE

__all__ = ["ExpressionError", "evaluate", "machine_memory", "parse_size"]

_MAX_CHARS = 256
_MAX_PLAIN_CHARS = 64  # Python refuses to convert much longer numbers, with a ValueError
_MAX_DEPTH = 16
_MAX_COMPUTED = 1 << 63

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([kmgtpe])(?:i?b|i)?|b)?"
_PLAIN = re.compile(r"([+-]?)" + _NUMBER, re.I)
_TOKEN = re.compile(rf"\s*(?:{_NUMBER}(%?)(?![\w.])|([a-z_]\w*)|([-+*/(),]))\s*", re.I | re.A)
_COMPUTES = re.compile(r"[-+*/(),%]|\bram\b")


class ExpressionError(ValueError):
    """A text that is no expression, or has no value. Says why."""


def machine_memory() -> int:
    """Bytes of memory that the machine has, as the kernel counts them (MemTotal)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def parse_size(text: str, what: str = "size") -> int:
    """Bytes in `text`: "4096", "64k", "1.5GiB", "50%", "min(ram / 2, 4G)".

    A number is taken exactly; what has to be computed is rounded down to a whole number of pages.
    `what` names the setting in the error. Raises `UserError` for what is no size, is not more than
    zero, or is a number that is no whole number of bytes.
    """
    match = _PLAIN.fullmatch(text.strip()) if len(text) <= _MAX_PLAIN_CHARS else None
    if match is None:
        return _computed(text, what)
    sign, number, unit = match.groups()
    value = _number(number, unit)
    if sign == "-" or value == 0:
        raise UserError(f"{what} must be more than zero, not {_on_one_line(text)}")
    if value.denominator != 1:
        raise UserError(f"{what} must be a whole number of bytes, and {_on_one_line(text)} is not")
    return int(value)


def _computed(text: str, what: str) -> int:
    shown = text if len(text) <= _MAX_PLAIN_CHARS else text[:16] + "..."
    try:
        value = evaluate(text, machine_memory())
    except ExpressionError as error:
        if _COMPUTES.search(text):
            raise UserError(f"{what} {shown!r} is not a size: {error}") from None
        raise UserError(f"{what} {shown!r} is not a size; write it like 512M or 1.5G") from None
    if value <= 0:
        raise UserError(f"{what} must be more than zero, not {_on_one_line(shown)}")
    if value < PAGE_SIZE:
        raise UserError(f"{what} must be at least 4 KiB, and {_on_one_line(shown)} is less")
    if value >= _MAX_COMPUTED:
        raise UserError(f"{what} must be less than 8E, and {_on_one_line(shown)} is more")
    return int(value) // PAGE_SIZE * PAGE_SIZE


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _number(digits: str, unit: str | None) -> Fraction:
    return Fraction(digits) * (1 << 10 * " kmgtpe".index(unit.lower() if unit else " "))


def evaluate(text: str, ram: int) -> Fraction:
    """The exact value of an expression on a machine with `ram` bytes of memory.

    Raises `ExpressionError`, and nothing else, for whatever is none.
    """
    if len(text) > _MAX_CHARS:
        raise ExpressionError(f"it is longer than {_MAX_CHARS} characters")
    parser = _Parser(list(_tokens(text, ram)), ram)
    return parser.whole()


def _tokens(text: str, ram: int) -> Iterator[Fraction | str]:
    """Numbers as their values, names and signs as they are; at last the empty string."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"nothing sensible begins at {text[at : at + 8]!r}")
        digits, unit, percent, name, sign = match.groups()
        if digits is None:
            yield name or sign
        elif percent and match[0].strip()[len(digits) : -1].strip():
            raise ExpressionError(f"{match[0].strip()!r} has a unit and a %")
        else:
            yield Fraction(digits) * ram / 100 if percent else _number(digits, unit)
        at = match.end()
    yield ""


class _Parser:
    """By recursive descent, one method for each line of the grammar above."""

    def __init__(self, tokens: list[Fraction | str], ram: int) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._ram = Fraction(ram)

    def whole(self) -> Fraction:
        value = self._sum()
        if self._tokens[self._at] != "":
            raise ExpressionError(f"{self._seen()} is not expected there")
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            value += self._product() if sign == "+" else -self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while sign := self._take("*", "/"):
            factor = self._factor()
            if sign == "/" and factor == 0:
                raise ExpressionError("it divides by zero")
            value = value * factor if sign == "*" else value / factor
        return value

    def _factor(self) -> Fraction:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError(f"its signs and brackets are nested more than {_MAX_DEPTH} deep")
        value = self._signed_or_primary()
        self._depth -= 1
        return value

    def _signed_or_primary(self) -> Fraction:
        if sign := self._take("+", "-"):
            return self._factor() if sign == "+" else -self._factor()
        if self._take("ram"):
            return self._ram
        if function := self._take("min", "max"):
            self._expect("(")
            values = self._arguments()
            return min(values) if function == "min" else max(values)
        if self._take("("):
            value = self._sum()
            self._expect(")")
            return value
        return self._literal()

    def _arguments(self) -> list[Fraction]:
        values = [self._sum()]
        while self._take(","):
            values.append(self._sum())
        self._expect(")")
        return values

    def _literal(self) -> Fraction:
        token = self._tokens[self._at]
        if isinstance(token, Fraction):
            self._at += 1
            return token
        if token.isidentifier():
            raise ExpressionError(f"it knows no {token!r}, only ram, min and max")
        raise ExpressionError(f"a number is missing before {self._seen()}")

    def _take(self, *wanted: str) -> str:
        """Go past the next token and return it if it is one of these; else the empty string."""
        token = self._tokens[self._at]
        if isinstance(token, Fraction) or token not in wanted:
            return ""
        self._at += 1
        return token

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            raise ExpressionError(f"{wanted!r} is missing before {self._seen()}")

    def _seen(self) -> str:
        token = self._tokens[self._at]
        if isinstance(token, Fraction):
            return "a number"
        return repr(token) if token else "its end"
