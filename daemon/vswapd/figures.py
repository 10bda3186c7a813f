"""Figures, the same wherever a person reads them: sizes, times, and how well pages compress."""

from __future__ import annotations

__all__ = ["duration", "human", "ratio"]


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


def duration(us: float) -> str:
    """A time in microseconds, in up to six characters: `12.3us`, `250ms`, `1.5s`."""
    for unit in ("us", "ms"):
        if us < 999.5:
            return f"{us:.3g}{unit}" if us < 99.5 else f"{us:.0f}{unit}"
        us /= 1000
    return f"{us:.3g}s"


def ratio(data: float, kept: float) -> float | None:
    """Bytes of stored pages to what they are kept in, in memory and on disk together.

    Of zero pages and others of one word neither counts. None if nothing is stored, or the two,
    which are not counted at one instant, say that it is kept in nothing. Below 1 is a ratio too.
    """
    return data / kept if data > 0 and kept > 0 else None
