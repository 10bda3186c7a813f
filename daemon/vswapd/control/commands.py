"""The commands that `ctl` takes: what is written is parsed first, and then done to the store.

zram's words mean what they mean there (Documentation/admin-guide/blockdev/zram.rst). Those of a
backing are in vswapd/control/backing_commands.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswap.store import Selection, Store
from vswapd.config import parse_size
from vswapd.control.backing_commands import backing_commands_of
from vswapd.control.ctl import Command, FoundError
from vswapd.control.words import by_words, counted, exactly, number, parse_nothing
from vswapd.usage import COMMANDS, usage

__all__ = [
    "Recompression",
    "commands_of",
    "parse_idle",
    "parse_limit",
    "parse_presence",
    "parse_recompress",
]


def commands_of(
    store: Store, attach: Callable[[str], None], stir: Callable[[], None]
) -> dict[str, Command]:
    """The commands by their names, for one store.

    `attach` opens the file at an absolute path and attaches it; it raises `UserError`. `stir` is
    called when the background has something to do at once. Both are called from any thread.
    """
    return {
        "memory_limit": by_words(store, parse_limit, partial(_set_limit, stir)),
        "compact": by_words(store, parse_nothing, _compact),
        "recompress": by_words(store, parse_recompress, _recompress),
        "idle": by_words(store, parse_idle, _mark_idle),
        "presence": by_words(store, parse_presence, _presence),
        **backing_commands_of(store, attach, stir),
        "check": by_words(store, parse_nothing, _check),
        "help": by_words(store, parse_nothing, _help),
    }


# --- Parsing: words to values, or a `UserError` ---------------------------------------------


@dataclass(frozen=True)
class Recompression:
    """Which pages to move down, and how many of them at most."""

    selection: Selection
    max_pages: int | None


def parse_limit(words: list[str]) -> int | None:
    """`memory_limit`'s: bytes, None for no limit."""
    (word,) = exactly(1, words, "memory_limit")
    return None if word in ("0", "none") else parse_size(word, "memory_limit")


def parse_idle(words: list[str]) -> int:
    """`idle`'s: seconds."""
    (word,) = exactly(1, words, "idle")
    return 0 if word == "all" else number(word, "SECONDS")


def parse_presence(words: list[str]) -> tuple[int, int]:
    """`presence`'s: the first slot and how many."""
    start, count = exactly(2, words, "presence")
    return number(start, "START"), number(count, "N")


def parse_recompress(words: list[str]) -> Recompression:
    """`recompress`'s: zram's parameters, in any order."""
    given = _parameters(words)
    kind = given.get("type")
    if kind is not None and kind not in _TYPES:
        raise UserError(f"type must be one of {', '.join(_TYPES)}, not {kind!r}")
    threshold = number(given.get("threshold", "0"), "threshold")
    if threshold > PAGE_SIZE:
        raise UserError(f"threshold must be at most a page's {PAGE_SIZE} bytes, not {threshold}")
    max_pages = number(given["max_pages"], "max_pages") if "max_pages" in given else None
    if max_pages == 0:
        raise UserError("max_pages must be more than zero; leave it out for no limit")
    huge, idle = _TYPES[kind] if kind else (False, False)
    return Recompression(Selection(huge=huge, idle=idle, threshold=threshold), max_pages)


_TYPES = {"idle": (False, True), "huge": (True, False), "huge_idle": (True, True)}
_PARAMETERS = ("type", "threshold", "max_pages")
_ONLY_ONE = ("algo", "priority")


def _parameters(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in _ONLY_ONE:
            raise UserError(f"{name} cannot be chosen: there is one codec for old pages")
        if not equals or name not in _PARAMETERS:
            raise UserError(f"unknown parameter {word!r}; write {COMMANDS['recompress'][0]}")
        if name in given:
            raise UserError(f"{name} is given twice")
        given[name] = value
    return given


# --- Doing: in a worker thread, for as long as it takes -------------------------------------


def _set_limit(stir: Callable[[], None], store: Store, limit: int | None) -> str:
    store.set_memory_limit(limit)
    stir()
    return "no memory limit" if limit is None else f"memory limit {limit} bytes"


def _compact(store: Store, _nothing: None) -> str:
    before = store.statistics().segment_bytes
    cleaned = store.compact()
    # Writes that come meanwhile may take more than is won.
    won = max(0, before - store.statistics().segment_bytes)
    return f"{counted(cleaned, 'segment')} cleaned, {won} bytes won back"


def _recompress(store: Store, what: Recompression) -> str:
    return f"{counted(store.recompress(what.selection, what.max_pages), 'page')} recompressed"


def _mark_idle(store: Store, age: int) -> str:
    return f"{counted(store.mark_idle(age), 'page')} marked idle"


def _presence(store: Store, where: tuple[int, int]) -> str:
    state, run = store.presence(*where)
    return f"{state.name} {run}"


def _check(store: Store, _nothing: None) -> str:
    found = store.check()
    if found.problems:
        raise FoundError("\n".join((f"PROBLEMS: {len(found.problems)}", *found.problems)))
    return (
        f"ok: {counted(found.pages, 'page')} in {counted(found.units, 'unit')}; "
        f"stopped for {found.stopped * 1000:.1f} ms"
    )


def _help(_store: Store, _nothing: None) -> str:
    return "\n".join(f"{command}: {about}" for command, about in usage())
