"""A configuration as a whole: whether each of its devices could be brought up as it says.

Each key is tried by itself, with only those beside it that it depends on. So every key that is
wrong is found, and what is said of it is what `vswap up` says of the option.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from vswap.errors import UserError
from vswapd.cli.place import DEFAULT_DEVICE, default_mount
from vswapd.cli.plan import Plan, make_plan
from vswapd.conffile import (
    COMMAND_LINE,
    ConfigError,
    Configuration,
    Problem,
    Setting,
    place_of,
    read_configuration,
)
from vswapd.confkeys import KEYS, Value
from vswapd.mounts import resolve

__all__ = ["check_named", "configured", "named_plan", "plan_for", "settings_for"]

_BESIDE = {
    "size": ("swapon",),
    "memory-limit": ("size", "threads"),
    "backing": ("mount",),
    "backing-size": ("size", "backing"),
    "writeback-limit": ("backing",),
}
_OF_BACKING = ("backing-size", "writeback-limit")
_NEVER_ALONE = ("memory-limit", *_OF_BACKING)
"""Whether a value of these is right depends on values that each device may have for itself."""


def configured(file: str | None) -> Configuration:
    """The configuration in `file`, or if it is None in the usual places. All of it is right.

    Raises `ConfigError`, which tells of everything that is not.
    """
    problems: list[Problem] = []
    configuration = read_configuration(file, problems)
    for name in configuration.devices or [DEFAULT_DEVICE]:
        settings = settings_for(configuration, name, {})
        problems += list(_mistakes(name, settings, _known_wrong(name, problems)))
    problems += list(_mistakes_in_defaults(configuration, _known_wrong("", problems)))
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
    """What was said for a device: in the configuration, and over that `given`, which was typed.

    What [defaults] say of backings is nothing to a device without one.
    """
    typed = {key: Setting(value, COMMAND_LINE, "") for key, value in given.items()}
    found = {**configuration.settings(name), **typed}
    backed = "backing" in found
    return {
        key: setting
        for key, setting in found.items()
        if backed or key not in _OF_BACKING or not setting.is_default
    }


def plan_for(configuration: Configuration, name: str, given: Mapping[str, Value]) -> Plan:
    """The plan for a device, with `given` over the configuration.

    Raises `UserError`: a `ConfigError` if it is known of which keys.
    """
    settings = settings_for(configuration, name, given)
    try:
        return make_plan(name, _values(settings))
    except UserError:
        if problems := list(_mistakes(name, settings, set())):
            raise ConfigError(problems) from None
        raise


def named_plan(file: str | None, name: str) -> Plan:
    """The plan for a device as it is configured. Raises `UserError`, also if it is not."""
    configuration = configured(file)
    check_named(configuration, name)
    return plan_for(configuration, name, {})


def _mistakes(name: str, settings: Mapping[str, Setting], wrong: set[str]) -> Iterator[Problem]:
    """What is wrong with a device, but for what only follows from others, or is known to be."""
    for key in KEYS:
        tried = (key, *_BESIDE.get(key, ()))
        if key not in settings or wrong.intersection(tried):
            continue
        found = {other: settings[other] for other in tried if other in settings}
        try:
            make_plan(name, _values(found))
        except UserError as error:
            wrong = wrong | {key}
            yield found[key].problem(key, f"{_asked_beside(key, found)}{error}")


def _mistakes_in_defaults(configuration: Configuration, wrong: set[str]) -> Iterator[Problem]:
    """What is wrong with [defaults] whatever a device says, even if every device says otherwise."""
    for key, setting in configuration.defaults.items():
        if key not in _NEVER_ALONE and key not in wrong:
            try:
                make_plan(DEFAULT_DEVICE, {"swapon": False, key: setting.value})
            except UserError as error:
                yield setting.problem(key, str(error))


def _asked_beside(key: str, found: Mapping[str, Setting]) -> str:
    """What was typed and makes the value of a key wrong that was not, if anything."""
    typed = [
        _option(other, setting.value)
        for other, setting in found.items()
        if setting.is_typed and not found[key].is_typed
    ]
    return f"with {' '.join(typed)}, " if typed else ""


def _option(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return f"--{key}" if value else f"--no-{key}"
    return f"--{key} {value}"


def _values(settings: Mapping[str, Setting]) -> dict[str, Value]:
    return {key: setting.value for key, setting in settings.items()}


def _known_wrong(name: str, problems: list[Problem]) -> set[str]:
    """The keys of a device of which is told already.

    If a file could not be read, also those that depend on what may stand in there.
    """
    places = [problem.place.rpartition(".") for problem in problems]
    wrong = {key for table, _, key in places if table in ("defaults", place_of(name))}
    lost = any(not problem.place for problem in problems)
    return wrong.union(_NEVER_ALONE) if lost else wrong


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
            yield setting.problem(key, f"{key} {setting.value!r} is that of device {other} too")


def _path(key: str, name: str, settings: Mapping[str, Setting]) -> str | None:
    with suppress(UserError, OSError):  # told already
        if key == "mount":
            return resolve(str(settings[key].value) if key in settings else default_mount(name))
        if key in settings:
            return os.path.realpath(str(settings[key].value))
    return None
