"""`vswap config`: what the configuration comes to, and whether it is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import click

from vswapd.cli.asked import asked_device, asked_values, device_options
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import configured, plan_for, settings_for
from vswapd.cli.options import config_option
from vswapd.cli.place import DEFAULT_DEVICE, default_mount
from vswapd.cli.text import table
from vswapd.conffile import Configuration, place_of
from vswapd.confkeys import KEYS, NONE, Key, Value
from vswapd.sizes import parse_size

__all__ = ["Entry", "config", "entries"]

_HEADINGS = ("KEY", "VALUE", "BYTES", "FROM")


@dataclass(frozen=True)
class Entry:
    """A key of a device. `size` in bytes, None for what is no size or has none.

    `value` is as it was written, None if it is left to the machine, the kernel or other keys:
    then `otherwise` says to what. `origin` is a file, "command line" or "default".
    """

    key: str
    value: Value | None
    size: int | None
    origin: str
    otherwise: str = ""

    def to_json(self) -> dict[str, Value | None]:
        """As it is printed, under its key."""
        values: dict[str, Value | None] = {"value": self.value, "from": self.origin}
        return values | {"bytes": self.size} if KEYS[self.key].is_size else values


def entries(configuration: Configuration, name: str, given: Mapping[str, Value]) -> list[Entry]:
    """What results for a device, by the order of KEYS, with what is `given` on the command line."""
    settings = settings_for(configuration, name, given)
    resolved = plan_for(configuration, name, given).settings
    defaults: Mapping[str, Value | None] = {
        "mount": default_mount(name),
        "threads": resolved.threads,
        "spares": resolved.spares,
    }
    found = []
    for key in KEYS.values():
        setting = settings.get(key.name)
        value = defaults.get(key.name, key.default) if setting is None else setting.value
        origin = "default" if setting is None else setting.file
        found.append(Entry(key.name, value, _bytes(key, value), origin, key.otherwise))
    return found


def _bytes(key: Key, value: Value | None) -> int | None:
    known = key.is_size and value not in (None, NONE)
    return parse_size(str(value), key.name) if known else None


@click.group(
    epilog="""\b
Examples:
  vswap config show                    what results, and which file said so
  vswap config show swap0 --json
  vswap config check --config FILE     before it becomes /etc/vswap.toml
"""
)
def config() -> None:
    """Look at the configuration that `vswap up` goes by.

    It is read from /etc/vswap.toml, then from /etc/vswap.d/*.toml by name: a later file goes over
    an earlier one key by key, and a device's own keys over [defaults].
    """


@config.command(
    epilog="""\b
Examples:
  vswap config show
  vswap config show swap1 --config FILE
  vswap config show --size 4G            what `vswap up --size 4G` would make of it
"""
)
@click.argument("device", required=False, shell_complete=device_names)
@device_options
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print all there is, as JSON.")
@click.pass_context
def show(
    context: click.Context,
    /,
    device: str | None,
    config: str | None,
    as_json: bool,
    **_options: object,
) -> None:
    """Show what each device is to be, and which file says so.

    DEVICE selects one, and so does an option that is for one device, as it does for `vswap up`.
    Where nothing is configured it is swap0. Options go over the files, as those of `vswap up` do.
    """
    given = asked_values(context)
    configuration = configured(config)
    if device is not None or any(not KEYS[key].common for key in given):
        names = [asked_device(configuration, device, given)]
    else:
        names = list(configuration.devices) or [DEFAULT_DEVICE]
    found = {name: entries(configuration, name, given) for name in names}
    if as_json:
        _print_json(configuration, found)
    else:
        _print_tables(found)


@config.command(
    epilog="""\b
Examples:
  vswap config check
  vswap config check --config FILE && vswap up --all --config FILE
"""
)
@config_option
def check(config: str | None) -> None:
    """Say whether the configuration is right, and if not everything that is wrong.

    One line for each mistake, with its file and key, and exit code 2. What only the running
    machine can tell, as whether a file for a backing will do, is for `vswap up` to find.
    """
    count = len(configured(config).devices)
    click.echo(f"ok: {count} device{'' if count == 1 else 's'}")


def _print_json(configuration: Configuration, found: Mapping[str, list[Entry]]) -> None:
    devices = [
        {"name": name, "settings": {each.key: each.to_json() for each in of}}
        for name, of in found.items()
    ]
    click.echo(json.dumps({"files": configuration.files, "devices": devices}, indent=2))


def _print_tables(found: Mapping[str, list[Entry]]) -> None:
    for number, (name, of) in enumerate(found.items()):
        if number:
            click.echo()
        click.echo(f"[{place_of(name)}]")
        for line in table(_HEADINGS, [_row(each) for each in of], right=("BYTES",)):
            click.echo(line)


def _row(entry: Entry) -> list[str]:
    size = "-" if entry.size is None else str(entry.size)
    return [entry.key, _shown(entry), size, entry.origin]


def _shown(entry: Entry) -> str:
    if entry.value is None:
        return f"({entry.otherwise})"
    if isinstance(entry.value, bool):
        return "true" if entry.value else "false"
    text = str(entry.value)
    return text if text.isprintable() else json.dumps(text)
