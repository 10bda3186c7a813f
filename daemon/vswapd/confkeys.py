"""The keys of a configuration: the long options of `vswap up`, and what values they take.

Here is what can be said of one value by itself. What values mean together is for
`vswapd.config.Settings` to refuse, and vswapd.cli.confcheck asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vswap.errors import UserError
from vswapd.config import Settings, check_path
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
    raises `UserError`. `default` None is what the machine, the kernel or other keys make of it;
    `otherwise` says so. What is not `common` belongs to one device, and not in [defaults].
    """

    name: str
    check: Callable[[str, object], Value]
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


# What depends on others comes after them: so it is checked when they are known to be right.
KEYS = {
    key.name: key
    for key in (
        Key("size", _size, DEFAULT_SIZE),
        Key("mount", _path, otherwise="/run/vswap/NAME", common=False),
        Key("codec", _text, Settings.codec),
        Key("unit-pages", _integer, Settings.unit_pages),
        Key("threads", _integer, Settings.threads),
        Key("spin-us", _integer, Settings.spin_us),
        Key("watchdog", _integer, Settings.watchdog),
        Key("spares", _integer, otherwise="as memory allows"),
        Key("memory-limit", _limit, NONE),
        Key("backing", _path, otherwise="none", common=False),
        Key("backing-size", _size, otherwise="the device's size"),
        Key("writeback-limit", _limit, otherwise="what the file says"),
        Key("priority", _priority, otherwise="the kernel's choice"),
        Key("swapon", _switch, True),
        Key("tune", _switch, True),
    )
}
