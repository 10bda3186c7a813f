"""How numbers and tables look to a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["escaped", "human", "table"]


def escaped(text: str, also: str = "") -> str:
    r"""A text in which what cannot be printed, and all that is in `also`, is like `\x20`."""
    return "".join(
        char if char.isprintable() and char not in also else _escape(char) for char in text
    )


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogateescape"))


def human(size: int | None) -> str:
    """A size in bytes, short: `512`, `4.0K`, `1.5G`, `120M`. `-` for None."""
    if size is None:
        return "-"
    value, unit = float(size), ""
    for unit in ("", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit and value < 10 else f"{value:.0f}{unit}"


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
