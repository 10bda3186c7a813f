"""The keys of a configuration: the long options of `vswap up`, and what values they take.

Here is what can be said of one value by itself. What values mean together is for
`vswapd.config.Settings` to refuse, and vswapd.cli.confcheck asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vswap.errors import UserError
from vswapd.config import (
    CODECS,
    MANY,
    MAX_SPIN_US,
    MAX_THREADS,
    MAX_WATCHDOG,
    UNIT_PAGES,
    Settings,
)
from vswapd.paths import check_path
from vswapd.sizes import parse_size

__all__ = ["DEFAULT_SIZE", "KEYS", "MAX_PRIORITY", "NONE", "Key", "Value", "kind"]

DEFAULT_SIZE = "1G"
MAX_PRIORITY = 32767  # SWAP_FLAG_PRIO_MASK, include/linux/swap.h
NONE = "none"

Value = str | int | bool
_MOST = 1 << 63  # TOML's integers have no bounds, and Python refuses to print the longest


@dataclass(frozen=True)
class Key:
    """One key.

    `check` takes the name and what a file has, and returns it as `up` takes it: sizes as text. It
    raises `UserError`. `values` tells a person what there is to choose from. `default` None is what
    the machine, the kernel or other keys make of it; `otherwise` says so. What is not `common`
    belongs to one device, and not in [defaults].
    """

    name: str
    check: Callable[[str, object], Value]
    values: str
    default: Value | None = None
    otherwise: str = ""
    common: bool = True

    @property
    def option(self) -> str:
        """Its name among the parameters of `up`."""
        return self.name.replace("-", "_")

    @property
    def is_size(self) -> bool:
        """Whether it stands for a number of bytes."""
        return self.check in (_size, _limit)


_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "text",
    list: "a list",
    dict: "a table",
}


def kind(found: object) -> str:
    """What a person calls a value of this type."""
    return _KINDS.get(type(found), "a date or time")


def _size(name: str, found: object) -> str:
    text = str(_integer(name, found)) if type(found) is int else found
    if not isinstance(text, str):
        raise UserError(f'{name} must be a size like "4G" or a number of bytes, not {kind(found)}')
    parse_size(text, name)
    return text


def _limit(name: str, found: object) -> str:
    return NONE if found == NONE else _size(name, found)


def _text(name: str, found: object) -> str:
    if not isinstance(found, str):
        raise UserError(f"{name} must be text in quotes, not {kind(found)}")
    return found


def _path(name: str, found: object) -> str:
    path = _text(name, found)
    check_path(path, name)
    return path


def _integer(name: str, found: object) -> int:
    if type(found) is not int:
        raise UserError(f"{name} must be a whole number, not {kind(found)}")
    if not -_MOST < found < _MOST:
        raise UserError(f"{name} must be a number of at most 63 bits")
    return found


def _priority(name: str, found: object) -> int:
    number = _integer(name, found)
    if not 0 <= number <= MAX_PRIORITY:
        raise UserError(f"{name} must be from 0 to {MAX_PRIORITY}, not {number}")
    return number


def _switch(name: str, found: object) -> bool:
    if not isinstance(found, bool):
        raise UserError(f"{name} must be true or false, without quotes, not {kind(found)}")
    return found


def _choice(*values: Value) -> str:
    """As a file has them."""
    *others, last = (f'"{value}"' if isinstance(value, str) else str(value) for value in values)
    return f"{', '.join(others)} or {last}"


_A_SIZE, _A_LIMIT, _A_PATH, _A_SWITCH = "a size", f'a size or "{NONE}"', "a path", "true or false"

# What depends on others comes after them: so it is checked when they are known to be right.
KEYS = {
    key.name: key
    for key in (
        Key("size", _size, _A_SIZE, DEFAULT_SIZE),
        Key("mount", _path, _A_PATH, otherwise="/run/vswap/NAME", common=False),
        Key("codec", _text, _choice(*CODECS), Settings.codec),
        Key("unit-pages", _integer, _choice(*UNIT_PAGES), Settings.unit_pages),
        Key("threads", _integer, f"0 to {MAX_THREADS}", Settings.threads),
        Key("spin-us", _integer, f"0 to {MAX_SPIN_US}", Settings.spin_us),
        Key("watchdog", _integer, f"0 to {MAX_WATCHDOG}", Settings.watchdog),
        Key("spares", _integer, f"0 to {MANY}", otherwise="as memory allows"),
        Key("memory-limit", _limit, _A_LIMIT, NONE),
        Key("backing", _path, _A_PATH, otherwise="none", common=False),
        Key("backing-size", _size, _A_SIZE, otherwise="the device's size"),
        Key("writeback-limit", _limit, _A_LIMIT, otherwise="what the file says"),
        Key("priority", _priority, f"0 to {MAX_PRIORITY}", otherwise="the kernel's choice"),
        Key("swapon", _switch, _A_SWITCH, True),
        Key("tune", _switch, _A_SWITCH, True),
    )
}
