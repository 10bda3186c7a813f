"""Configuration files: read, and put on top of each other.

/etc/vswap.toml comes first, then /etc/vswap.d/*.toml by name. A later file overrides single keys of
an earlier one, and what stands under [device.NAME] anywhere overrides [defaults].

Mistakes are collected rather than raised, for a person wants to see all of them: what is wrong is
left out of what is returned, and `Problem`s say where it stands.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from vswap.errors import UserError
from vswapd.config import check_name
from vswapd.confkeys import KEYS, Value, kind
from vswapd.tomlfile import read_toml

__all__ = [
    "COMMAND_LINE",
    "ConfigError",
    "Configuration",
    "Problem",
    "Setting",
    "place_of",
    "read_configuration",
]

COMMAND_LINE = "command line"
CONFIG = Path("/etc/vswap.toml")
DROP_INS = Path("/etc/vswap.d")

_DEFAULTS, _DEVICE = "defaults", "device"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, or with what stands in it at `place` ("device.swap0.size")."""

    file: str
    place: str
    reason: str

    def __str__(self) -> str:
        """One line."""
        line = ": ".join(part for part in (self.file, self.place, self.reason) if part)
        return " ".join(line.split())


class ConfigError(UserError):
    """All that is wrong with a configuration, one line for each thing."""

    def __init__(self, problems: list[Problem]) -> None:
        """The same mistake in [defaults], met with several devices, is said once."""
        self.problems = problems
        self.lines = list(dict.fromkeys(map(str, problems)))
        super().__init__("; ".join(self.lines))


@dataclass(frozen=True)
class Setting:
    """A value, the file that it comes from, and the table in there; or COMMAND_LINE and none."""

    value: Value
    file: str
    table: str

    @property
    def is_default(self) -> bool:
        """Whether it was said for all devices."""
        return self.table == _DEFAULTS

    @property
    def is_typed(self) -> bool:
        """Whether it was said on the command line."""
        return not self.table

    def problem(self, key: str, reason: str) -> Problem:
        """What is wrong with it, as the value of `key`. Who has typed it knows where it stands."""
        if self.is_typed:
            return Problem("", "", reason)
        return Problem(self.file, f"{self.table}.{key}", reason)


Settings = Mapping[str, Setting]


def place_of(device: str) -> str:
    """The table of a device, as a file names it."""
    return f"{_DEVICE}.{_shown(device)}"


@dataclass(frozen=True)
class Configuration:
    """What was read: settings by their keys, for all devices and for each, in order of mention.

    `source` is where it was looked for, and `files` what was there.
    """

    source: str
    files: list[str] = field(default_factory=list)
    defaults: dict[str, Setting] = field(default_factory=dict)
    devices: dict[str, dict[str, Setting]] = field(default_factory=dict)

    def settings(self, name: str) -> Settings:
        """What holds for a device, named here or not."""
        return {**self.defaults, **self.devices.get(name, {})}


def read_configuration(file: str | None, problems: list[Problem]) -> Configuration:
    """What is in `file` alone; if it is None, in /etc/vswap.toml and its drop-ins, if there are.

    What is wrong is added to `problems`. Raises nothing.
    """
    usual = f"{CONFIG} or {DROP_INS}/*.toml"
    configuration = Configuration(usual if file is None else file)
    for path in _files(problems) if file is None else [file]:
        shown = path if path and path.isprintable() else repr(path)
        configuration.files.append(shown)
        try:
            document = read_toml(path)
        except UserError as error:
            problems.append(Problem(shown, "", str(error)))
        else:
            _Merge(configuration, shown, problems).document(document)
    return configuration


def _files(problems: list[Problem]) -> list[str]:
    found = [str(CONFIG)] if os.path.lexists(CONFIG) else []
    try:
        names = sorted(os.listdir(DROP_INS))  # noqa: PTH208  # iterdir() hides errors in time
    except FileNotFoundError:
        return found
    except OSError as error:
        problems.append(Problem(str(DROP_INS), "", f"cannot be read: {error.strerror}"))
        return found
    wanted = (name for name in names if name.endswith(".toml") and not name.startswith("."))
    return found + [str(DROP_INS / name) for name in wanted]


class _Merge:
    """Puts one file's document on top of what was read before."""

    def __init__(self, onto: Configuration, file: str, problems: list[Problem]) -> None:
        self._onto = onto
        self._file = file
        self._problems = problems

    def document(self, document: dict[str, object]) -> None:
        for name, table in document.items():
            if name == _DEFAULTS:
                self._table(_DEFAULTS, table, self._onto.defaults)
            elif name == _DEVICE:
                self._devices(table)
            else:
                self._wrong(_shown(name), _why_not_there(name, table))

    def _devices(self, tables: object) -> None:
        if not isinstance(tables, dict):
            self._wrong(_DEVICE, f"must be tables like [device.swap0], not {kind(tables)}")
            return
        for name, table in tables.items():
            place = place_of(name)
            if name in KEYS and not isinstance(table, dict):
                self._wrong(place, "stands under [device]; write it under one like [device.swap0]")
                continue
            try:
                check_name(name, f"device name {name!r}")
            except UserError as error:
                self._wrong(place, str(error))
                continue
            self._table(place, table, self._onto.devices.setdefault(name, {}))

    def _table(self, place: str, table: object, onto: dict[str, Setting]) -> None:
        if not isinstance(table, dict):
            self._wrong(place, f"must be a table [{place}], not {kind(table)}")
            return
        for name, found in table.items():
            try:
                value = _value(place, name, found)
            except UserError as error:
                self._wrong(f"{place}.{_shown(name)}", str(error))
            else:
                onto[name] = Setting(value, self._file, place)

    def _wrong(self, place: str, reason: str) -> None:
        self._problems.append(Problem(self._file, place, reason))


def _value(table: str, name: str, found: object) -> Value:
    key = KEYS.get(name)
    if key is None:
        raise UserError(f"unknown key{_meant(name, list(KEYS))}")
    if table == _DEFAULTS and not key.common:
        raise UserError(f"{name} belongs to one device; write it under one like [device.swap0]")
    return key.check(name, found)


def _why_not_there(name: str, found: object) -> str:
    if isinstance(found, dict):
        return f"unknown table{_meant(name, [_DEFAULTS, _DEVICE])}"
    if name in KEYS:
        return "stands in no table; write it under [defaults] or one like [device.swap0]"
    return f"unknown key{_meant(name, list(KEYS))}"


def _meant(name: str, known: list[str]) -> str:
    close = get_close_matches(name.lower().replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _shown(name: str) -> str:
    """A key as TOML has it: whatever is in it, it is printable."""
    return name if _BARE.fullmatch(name) else json.dumps(name)
