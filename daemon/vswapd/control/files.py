"""The files that are rendered from a report: each a name and a function of it."""

from __future__ import annotations

import json
from collections.abc import Callable

from vswapd.control import metrics
from vswapd.control.report import Report, Value, flatten

__all__ = ["RENDERERS"]


def _stats(report: Report) -> str:
    lines = (f"{name} {_plain(value)}" for name, value in flatten(report).items())
    return "\n".join(lines) + "\n"


def _plain(value: Value) -> int | float | str:
    """In one line, whatever characters a path has; a text that is empty as a dash."""
    if isinstance(value, str):
        return value.encode("unicode_escape").decode("ascii") or "-"
    return int(value) if isinstance(value, bool) else value


def _stats_json(report: Report) -> str:
    return json.dumps(flatten(report), indent=1) + "\n"


def _columns(*names: str) -> Callable[[Report], str]:
    """One line of numbers, right-aligned in eight columns as zram prints them."""

    def render(report: Report) -> str:
        flat = flatten(report)
        return " ".join(f"{flat[name]:>8}" for name in names) + "\n"

    return render


_mm_stat = _columns(
    "orig_data_size",
    "compr_data_size",
    "mem_used_total",
    "mem_limit",
    "mem_used_max",
    "same_pages",
    "pages_compacted",
    "huge_pages",
    "huge_pages_since",
)
_io_stat = _columns("failed_reads", "failed_writes", "invalid_io", "notify_free")
_bd_stat = _columns("bd_count", "bd_reads", "bd_writes")


RENDERERS: dict[str, Callable[[Report], str]] = {
    "stats": _stats,
    "stats.json": _stats_json,
    "mm_stat": _mm_stat,
    "io_stat": _io_stat,
    "bd_stat": _bd_stat,
    "metrics": metrics.render,
}
"""File name to content. Documentation/admin-guide/blockdev/zram.rst has the *_stat files."""
