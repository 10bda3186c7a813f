"""The columns that `vswap status` can print, in zramctl's words where it has the same.

A cell holds no blank, unless there is one in a path; what is not known, or not there, is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswapd.cli.age import age, seconds
from vswapd.cli.text import escaped
from vswapd.figures import human, ratio

if TYPE_CHECKING:
    from vswapd.cli.status import Status

__all__ = ["ALL", "DEFAULT", "Column", "Style", "columns", "described", "raw"]

NOTHING = "-"


@dataclass(frozen=True)
class Style:
    """How numbers look: short, or exactly (sizes in bytes, times in seconds)."""

    exact: bool = False

    def size(self, value: int | None) -> str:
        """A size that is given in bytes."""
        return _plain(value) if self.exact else human(value)

    def time(self, value: int | None) -> str:
        """A time that is given in seconds."""
        return _plain(value) if self.exact else age(value)


@dataclass(frozen=True)
class Column:
    """One column: its heading, what it is to say in the help, and its cell for a device."""

    name: str
    help: str
    cell: Callable[[Status, Style], str]
    right: bool = False


def columns(names: str) -> list[Column]:
    """The columns in a list such as "name,size", in its order.

    Raises `UserError` for a name that there is not, and for an empty list.
    """
    wanted = [name.strip().upper() for name in names.split(",")]
    for name in wanted:
        if name not in _BY_NAME:
            raise UserError(f"unknown column {name!r}; there are: {', '.join(_BY_NAME)}")
    return [_BY_NAME[name] for name in wanted]


def described() -> list[tuple[str, str]]:
    """Every column's name, and what it shows, for the help."""
    return [(column.name, column.help) for column in ALL]


def raw(cell: str) -> str:
    """A cell for programs: one word."""
    return escaped(cell, " \\")


def _plain(value: object) -> str:
    return NOTHING if value is None or value == "" else str(value)


def _text(name: str, key: str, text: str) -> Column:
    """What the daemon says under `key`, as it is."""
    return Column(name, text, lambda of, _style: _plain((of.stats or {}).get(key)))


def _number(name: str, key: str, text: str) -> Column:
    return Column(name, text, lambda of, _style: _plain(of.number(key)), right=True)


def _size(name: str, key: str, text: str) -> Column:
    return Column(name, text, lambda of, style: style.size(of.number(key)), right=True)


def _zero(of: Status, style: Style) -> str:
    pages = of.number("zero_pages")
    return style.size(None if pages is None else pages * PAGE_SIZE)


def _limit(of: Status, style: Style) -> str:
    """As zram, the daemon says 0 for no limit."""
    return style.size(of.number("mem_limit") or None)


def _ratio(of: Status, _style: Style) -> str:
    kept = (of.number("compr_data_size") or 0) + (_on_disk(of) or 0)
    found = ratio(of.number("orig_data_size") or 0, kept)
    return NOTHING if found is None else f"{found:.2f}"


def _on_disk(of: Status) -> int | None:
    """Bytes of compressed pages on the backing; None without one."""
    return of.number("backing_data_size") if _backed(of) else None


def _backed(of: Status) -> bool:
    return bool((of.stats or {}).get("backing_state", "none") != "none")


def _backing(of: Status, style: Style) -> str:
    if not _backed(of):
        return NOTHING
    name = PurePath(str((of.stats or {}).get("backing", ""))).name or "?"
    return f"{name}:{style.size(_on_disk(of))}"


def _uptime(of: Status, style: Style) -> str:
    return style.time(None if of.supervisor_pid is None else seconds(of.supervisor_pid))


DEFAULT: Sequence[Column] = (
    Column("NAME", "the device's name", lambda of, _style: of.name),
    Column("SIZE", "most that can be stored", lambda of, style: style.size(of.size), right=True),
    _size("DATA", "orig_data_size", "what is stored, uncompressed, without zero pages"),
    _size("COMPR", "compr_data_size", "what is stored in memory, compressed"),
    _text("ALGORITHM", "codec", "how pages are compressed when they are written"),
    Column("ZERO", "zero pages, which cost nothing", _zero, right=True),
    _size("TOTAL", "mem_used_total", "all memory behind it, with what finds the pages"),
    Column("LIMIT", "most memory that it may take", _limit, right=True),
    Column("RATIO", "DATA by COMPR and ON-DISK together", _ratio, right=True),
    Column("BACKING", "the backing's file, without its folder, and what lies on it", _backing),
    Column("MOUNTPOINT", "where its files are", lambda of, _style: of.mount),
)
"""What is printed without `--output`."""

ALL: Sequence[Column] = (
    *DEFAULT,
    Column("SWAP", "whether the kernel swaps on it", lambda of, _style: "on" if of.swap else "off"),
    Column("LOOP", "its loop device", lambda of, _style: _plain(of.loop)),
    Column("PID", "the supervisor", lambda of, _style: _plain(of.supervisor_pid), right=True),
    Column("WORKER", "the worker", lambda of, _style: _plain(of.worker_pid), right=True),
    _number("RESTARTS", "worker_restarts", "how many workers were followed by another"),
    Column("UPTIME", "how long the supervisor runs", _uptime, right=True),
    _number("PAGES", "stored_pages", "pages that lie in memory, without zero pages"),
    _size("PEAK", "mem_used_max", "the most that TOTAL was"),
    Column("ON-DISK", "what lies on the backing", lambda of, s: s.size(_on_disk(of)), right=True),
    _text("FILE", "backing", "the backing's whole path"),
    _text("STATE", "backing_state", "how the backing is: none, attached, resting, detaching"),
)

_BY_NAME = {column.name: column for column in ALL}
