"""A configuration as a whole: whether each of its devices could be brought up as it says.

Each key is tried by itself, with only those beside it that it depends on. So every key that is
wrong is found, and what is said of it is what `vswap up` says of the option.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from vswap.errors import UserError
from vswapd.cli.plan import Plan, default_mount, make_plan
from vswapd.conffile import (
    ConfigError,
    Configuration,
    Problem,
    Setting,
    place_of,
    read_configuration,
)
from vswapd.confkeys import KEYS, Value
from vswapd.mounts import resolve

__all__ = [
    "DEFAULT_DEVICE",
    "check_named",
    "configured",
    "named_plan",
    "plan_for",
    "settings_for",
]

DEFAULT_DEVICE = "swap0"

_BESIDE = {
    "size": ("swapon",),
    "memory-limit": ("size", "threads"),
    "backing": ("mount",),
    "backing-size": ("size", "backing"),
    "writeback-limit": ("backing",),
}
_OF_BACKING = ("backing-size", "writeback-limit")


def configured(file: str | None) -> Configuration:
    """The configuration in `file`, or if it is None in the usual places. All of it is right.

    Raises `ConfigError`, which tells of everything that is not.
    """
    problems: list[Problem] = []
    configuration = read_configuration(file, problems)
    for name in configuration.devices or [DEFAULT_DEVICE]:
        _check_device(name, configuration, problems)
    problems += _shared("mount", configuration)
    problems += _shared("backing", configuration)
    if problems:
        raise ConfigError(problems)
    return configuration


def check_named(configuration: Configuration, device: str) -> None:
    """Raise `UserError` for a device that is not configured, unless it is the default one."""
    if device not in configuration.devices and device != DEFAULT_DEVICE:
        there = ", ".join(configuration.devices) or "none"
        raise UserError(f"no device {device!r} in {configuration.source}; there is: {there}")


def settings_for(
    configuration: Configuration, name: str, given: Mapping[str, Value]
) -> dict[str, Setting]:
    """What the configuration has to say for a device, if `given` is said on the command line.

    What [defaults] say of backings is nothing to a device without one.
    """
    found = configuration.settings(name)
    backed = "backing" in found or "backing" in given
    return {
        key: setting
        for key, setting in found.items()
        if key not in given and (backed or key not in _OF_BACKING or not setting.is_default)
    }


def plan_for(configuration: Configuration, name: str, given: Mapping[str, Value]) -> Plan:
    """The plan for a device, with `given` over the configuration. Raises `UserError`."""
    settings = settings_for(configuration, name, given)
    return make_plan(name, {key: setting.value for key, setting in settings.items()} | {**given})


def named_plan(file: str | None, name: str) -> Plan:
    """The plan for a device as it is configured. Raises `UserError`, also if it is not."""
    configuration = configured(file)
    check_named(configuration, name)
    return plan_for(configuration, name, {})


def _check_device(name: str, configuration: Configuration, problems: list[Problem]) -> None:
    """Add to `problems` what is wrong with a device, but for what only follows from others."""
    settings = settings_for(configuration, name, {})
    wrong = _known_wrong(name, problems)
    for key in KEYS:
        tried = (key, *_BESIDE.get(key, ()))
        if key not in settings or wrong.intersection(tried):
            continue
        try:
            _try({other: settings[other].value for other in tried if other in settings}, key, name)
        except UserError as error:
            wrong.add(key)
            setting = settings[key]
            problems.append(Problem(setting.file, f"{setting.table}.{key}", str(error)))


def _try(values: dict[str, Value], key: str, name: str) -> None:
    """Raise `UserError` unless this key will do, with those beside it."""
    if key in _OF_BACKING and "backing" not in values:
        raise UserError(f"{key} is nothing without backing; name its file too")
    make_plan(name, values)


def _known_wrong(name: str, problems: list[Problem]) -> set[str]:
    """The keys of a device of which is told already.

    If a file could not be read, also those that depend on what may stand in there.
    """
    places = [problem.place.rpartition(".") for problem in problems]
    wrong = {key for table, _, key in places if table in ("defaults", place_of(name))}
    lost = any(not problem.place for problem in problems)
    return wrong | {"memory-limit", *_OF_BACKING} if lost else wrong


def _shared(key: str, configuration: Configuration) -> Iterator[Problem]:
    """Devices that want for themselves what another has already."""
    owners: dict[str, str] = {}
    for name, settings in configuration.devices.items():
        path = _path(key, name, settings)
        if path is None:
            continue
        owner = owners.setdefault(path, name)
        if owner != name:
            # The default mount point of one may be what the other asks for: that one is told.
            teller, other = (name, owner) if key in settings else (owner, name)
            setting = configuration.devices[teller][key]
            reason = f"{key} {setting.value!r} is that of device {other} too"
            yield Problem(setting.file, f"{setting.table}.{key}", reason)


def _path(key: str, name: str, settings: Mapping[str, Setting]) -> str | None:
    with suppress(UserError, OSError):  # told already
        if key == "mount":
            return resolve(str(settings[key].value) if key in settings else default_mount(name))
        if key in settings:
            return os.path.realpath(str(settings[key].value))
    return None
