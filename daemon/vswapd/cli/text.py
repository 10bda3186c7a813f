"""How texts and tables look to a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["escaped", "table"]


def escaped(text: str, also: str = "") -> str:
    r"""A text in which what cannot be printed, and all that is in `also`, is like `\x20`."""
    return "".join(
        char if char.isprintable() and char not in also else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogateescape"))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> Iterator[str]:
    """The lines of a table with aligned columns, those named in `right` to the right."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ]
        yield "  ".join(cells).rstrip()
