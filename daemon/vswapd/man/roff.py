"""The few macros of man(7) that the pages are made of. Text goes in plain and comes out escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "bold",
    "definition",
    "escape",
    "example",
    "heading",
    "page",
    "paragraphs",
    "section",
    "title",
]

_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
_SPECIAL = re.compile(r"[\\\-'`^~]")
_QUOTED = re.compile(r"`([^`\n]+)`")


def escape(text: str) -> str:
    """`text`, so that it is printed as it is and can be copied; not the beginning of a request."""
    escaped = _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def bold(text: str) -> str:
    """`text`, escaped, in bold."""
    return rf"\fB{escape(text)}\fR"


def _prose(text: str) -> str:
    """Text of one paragraph, on one line; what stands in backquotes is bold."""
    parts = _QUOTED.split(" ".join(text.split()))
    return "".join(bold(part) if at % 2 else escape(part) for at, part in enumerate(parts))


def title(name: str, number: int, version: str, manual: str) -> str:
    """The first line. Without a date, so that the same code gives the same page."""
    return f'.TH "{escape(name.upper())}" "{number}" "" "{escape(version)}" "{escape(manual)}"'


def page(title: str, body: Iterable[str]) -> str:
    """All of it. A heading begins a paragraph by itself: mandoc(1) complains of a second one."""
    lines = [title]
    for line in body:
        if line != ".PP" or not lines[-1].startswith((".SH", ".SS")):
            lines.append(line)
    return "\n".join([*lines, ""])


def section(text: str) -> str:
    """The heading of a section."""
    return f'.SH "{escape(text.upper())}"'


def heading(text: str) -> str:
    """The heading of a part of a section. (Quotes cannot stand in an argument.)"""
    return f'.SS "{escape(text.replace(chr(34), ""))}"'


def paragraphs(text: str) -> Iterator[str]:
    """What stands between empty lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _prose(paragraph))


def definition(term: str, about: str) -> Iterator[str]:
    """A term, and beneath it what it is."""
    yield from (".TP", bold(term), _prose(about) or r"\&")


def example(lines: Iterable[str]) -> Iterator[str]:
    """Lines as they are."""
    shown: Sequence[str] = list(lines)
    yield from (".PP", ".EX", *(escape(line) or r"\&" for line in shown), ".EE")
