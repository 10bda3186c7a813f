"""The commands about writing back, and about the backing that is written to.

zram's words mean what they mean there (Documentation/admin-guide/blockdev/zram.rst).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Selection, Store
from vswap.store.disk_log import KEPT_ON_DISK
from vswap.store.stats import BackingStatistics
from vswapd.config import check_backing_size, parse_size
from vswapd.control.ctl import Action, Command, cut
from vswapd.control.words import (
    by_rest,
    by_words,
    counted,
    exactly,
    number,
    parse_nothing,
    shown,
)
from vswapd.usage import COMMANDS

__all__ = ["backing_commands_of", "parse_writeback"]


def backing_commands_of(
    store: Store, attach: Callable[[str], None], stir: Callable[[], None]
) -> dict[str, Command]:
    """The commands by their names; `attach` and `stir` as `commands_of` has them."""
    backing = {
        "attach": by_rest(store, _parse_path, partial(_attach, attach)),
        "grow": by_words(store, _parse_growth, _grow),
        "detach": by_words(store, parse_nothing, partial(_detach, stir)),
        "stop": by_words(store, parse_nothing, _stop),
        "status": by_words(store, parse_nothing, _status),
    }
    return {
        "writeback": by_words(store, parse_writeback, _write_back),
        "writeback_limit": by_words(store, _parse_units, _set_writeback_limit),
        "writeback_limit_enable": by_words(store, _parse_switch, _enable_writeback_limit),
        "backing": partial(_one_of, backing),
    }


# --- Parsing: words to values, or a `UserError` ---------------------------------------------


def parse_writeback(words: list[str]) -> tuple[Selection, ...]:
    """`writeback`'s: zram's one type, or pages by their numbers."""
    if not words:
        exactly(1, words, "writeback")
    by_number = [word for word in words if word.startswith(tuple(_PAGES))]
    if by_number == words:
        return tuple(Selection(huge=None, cold=None, slots=_slots(word)) for word in words)
    if by_number or len(words) > 1:
        raise UserError("writeback takes one type, or only page_index= and page_indexes=")
    kind = words[0].removeprefix("type=")
    if kind not in _WRITEBACK:
        raise UserError(f"unknown parameter {words[0]!r}; write {COMMANDS['writeback'][0]}")
    return (_WRITEBACK[kind],)


def _slots(word: str) -> tuple[int, int]:
    name, _, numbers = word.partition("=")
    first, dash, last = numbers.partition("-")
    if dash and name == "page_index":
        raise UserError(f"page_index is one page's; write page_indexes={numbers}")
    if not dash and name == "page_indexes":
        raise UserError(f"page_indexes must be like 0-99, not {numbers!r}")
    start = number(first, name)
    end = number(last, name) if dash else start
    if end < start:
        raise UserError(f"page_indexes must go upwards, and {numbers} does not")
    return start, end + 1


def _one_of(commands: dict[str, Command], rest: str) -> Action:
    """`backing`'s: a word and what belongs to it."""
    name, rest = cut(rest or "status")
    if name not in commands:
        raise UserError(f"backing takes {COMMANDS['backing'][0]}, not {name!r}")
    return commands[name](rest)


def _parse_path(path: str) -> str:
    """All that is written after `attach`, white space too."""
    if not path.startswith("/"):
        raise UserError(f"backing attach takes an absolute path, not {path!r}")
    if "\n" in path or "\0" in path:
        raise UserError(f"backing attach takes a path without line breaks and NUL, not {path!r}")
    return path


def _parse_growth(words: list[str]) -> int:
    if len(words) != 1:
        raise UserError(f"backing grow takes SIZE, not {shown(words)}")
    return parse_size(words[0])


def _parse_units(words: list[str]) -> int:
    (word,) = exactly(1, words, "writeback_limit")
    return number(word, "writeback_limit")


def _parse_switch(words: list[str]) -> bool:
    (word,) = exactly(1, words, "writeback_limit_enable")
    if word not in ("0", "1"):
        raise UserError(f"writeback_limit_enable must be 0 or 1, not {word!r}")
    return word == "1"


_PAGES = ("page_index=", "page_indexes=")
_WRITEBACK = {
    "idle": Selection(huge=None, cold=None, idle=True),
    "huge": Selection(huge=True, cold=None),
    "huge_idle": Selection(huge=True, cold=None, idle=True),
    "incompressible": Selection(huge=True, cold=True),
}


# --- Doing: in a worker thread, for as long as it takes -------------------------------------


def _write_back(store: Store, selections: tuple[Selection, ...]) -> str:
    slots = store.geometry.slots
    for selection in selections:
        if selection.slots and selection.slots[1] > slots:
            raise UserError(f"the device has pages 0 to {slots - 1}, not {selection.slots[1] - 1}")
    moved = store.backing.write_back(*selections)
    return f"{counted(moved, 'page')} written back{_hindrance(store.backing.statistics())}"


def _hindrance(now: BackingStatistics) -> str:
    """Why nothing more is written now, if that is so."""
    if now.backing_state == "none":
        return "; the backing is gone"
    if now.backing_state == "detaching":
        return "; the backing is being detached"
    if now.backing_state == "resting":
        return "; the disk rests, for writing to it has failed"
    if now.writeback_limit_enable and now.writeback_limit_left < SEGMENT_SIZE // PAGE_SIZE:
        return "; the limit of the day is used up"
    return "; the disk is full" if now.backing_segments_free <= KEPT_ON_DISK else ""


def _set_writeback_limit(store: Store, units: int) -> str:
    store.backing.set_writeback_limit(units)
    return _limit(store)


def _enable_writeback_limit(store: Store, enabled: bool) -> str:
    store.backing.enable_writeback_limit(enabled)
    return _limit(store)


def _limit(store: Store) -> str:
    now = store.backing.statistics()
    return (
        f"writeback limit {now.writeback_limit} units of 4 KiB a day, "
        f"{now.writeback_limit_left} left, {'' if now.writeback_limit_enable else 'not '}enabled"
    )


def _attach(attach: Callable[[str], None], store: Store, path: str) -> str:
    attach(path)
    return _status(store)


def _grow(store: Store, size: int) -> str:
    check_backing_size(size, store.geometry.size)  # before the file is touched
    store.backing.grow(size)
    return _status(store)


def _detach(stir: Callable[[], None], store: Store, _nothing: None) -> str:
    store.backing.begin_detach()
    stir()
    return "detaching; `stats` tells how far it is, `backing stop` stops it"


def _stop(store: Store, _nothing: None) -> str:
    store.backing.stop_detach()
    return _status(store)


def _status(store: Store, _nothing: None = None) -> str:
    now = store.backing.statistics()
    last = f"; the last detaching: {_ENDS[now.detach_result]}" if now.detach_result else ""
    if now.backing_state == "none":
        return f"no backing is attached{last}"
    return (
        f"{now.backing} is {now.backing_state}: {counted(now.backing_pages, 'page')} in "
        f"{now.backing_data_size} bytes, {now.backing_segments_free} of {now.backing_size >> 20} "
        f"MiB free{last}"
    )


_ENDS = {
    "detached": "all came back",
    "stopped": "stopped",
    "memory": "memory did not suffice",
    "unreadable": "some could not be read",
}
