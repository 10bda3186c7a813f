"""`vswap doctor`: is this machine fit for a device, and are those that are there well?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click

from vswap.errors import UserError
from vswapd.cli.backing_file import absolute
from vswapd.cli.completers import files
from vswapd.cli.status import status_of
from vswapd.cli.text import escaped
from vswapd.conffile import ConfigError
from vswapd.config import parse_size
from vswapd.doctor import Finding, Level, Machine, examine, guarded, worst
from vswapd.doctor.serving import answer, discards, silence
from vswapd.mounts import Device, devices

__all__ = ["doctor"]

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "red"}
_WIDTH = max(len(level.word) for level in Level)


@click.command(
    epilog="""\b
Examples:
  vswap doctor                         what is wrong here, and what to do about it
  vswap doctor --backing /var/lib/vswap.img --backing-size 8G
  vswap doctor --json
"""
)
@click.option(
    "--backing",
    metavar="FILE",
    help="Look at this place for a backing, too.",
    shell_complete=files,
)
@click.option("--backing-size", metavar="SIZE", help="Room that it is to have.")
@click.option("--json", "as_json", is_flag=True, help="Print what is found as JSON.")
@click.pass_context
def doctor(
    context: click.Context, backing: str | None, backing_size: str | None, as_json: bool
) -> None:
    """Look whether this machine is fit, and its devices are well.

    Nothing is changed, and no root is needed; what only root can see is said. Each line has a
    verdict (OK, warning, failure), what was found, and what to do about it. The exit code is the
    worst of them: 0 if all is OK, 1 with warnings, 2 with failures.
    """
    if backing is None and backing_size is not None:
        raise UserError("--backing-size is nothing without --backing FILE")
    place = None if backing is None else absolute(backing)
    size = None if backing_size is None else parse_size(backing_size, "backing-size")
    found = []
    for finding in _all(Machine(), place, size):
        found.append(finding)
        if not as_json:
            _print(finding)
    level = worst(found)
    if as_json:
        findings = [finding.to_json() for finding in found]
        click.echo(json.dumps({"level": level.word, "findings": findings}, indent=2))
    context.exit(level)


def _all(machine: Machine, backing: str | None, size: int | None) -> Iterator[Finding]:
    yield from examine(machine)
    yield from guarded("devices", _devices(machine))
    places: dict[str, int | None] = {}
    yield from guarded("configuration", _configuration(places))
    if backing is not None:
        places[backing] = size
    if places:
        from vswapd.cli.backing_look import examine_backing  # noqa: PLC0415  # few ask for it

        for path, room in places.items():
            yield from guarded("backing", examine_backing(path, room))


def _configuration(places: dict[str, int | None]) -> Iterator[Finding]:
    """On the configuration. Adds to `places` its backings, and the bytes that each is to have.

    But for those of devices that are there, which have them.
    """
    from vswapd.cli.confcheck import configured, plan_for  # noqa: PLC0415
    from vswapd.doctor.configuration import right, wrong  # noqa: PLC0415

    try:
        configuration = configured(None)
    except ConfigError as error:
        yield from wrong(error)
        return
    yield from right(configuration)
    there = {device.name for device in devices()}
    plans = [plan_for(configuration, name, {}) for name in configuration.devices]
    for plan in plans:
        if plan.settings.backing is not None and plan.settings.name not in there:
            places[plan.settings.backing] = plan.room


def _devices(machine: Machine) -> Iterator[Finding]:
    """On each device that is there. One is asked after the other, for some seconds each at most."""
    for device in devices():
        yield from guarded("devices", _device(machine, device))


def _device(machine: Machine, device: Device) -> Iterator[Finding]:
    now = status_of(device)
    if now.stats is None:
        yield from silence(now.name, now.error or f"{now.name} gives no answer")
    else:
        yield from answer(now.name, now.stats)
    if now.loop is not None:
        yield from discards(machine, now.name, now.loop)


def _print(finding: Finding) -> None:
    """One line; coloured only on a terminal, and nowhere if NO_COLOR is set."""
    verdict = click.style(finding.level.word.ljust(_WIDTH), fg=_COLOURS[finding.level])
    colour = False if os.environ.get("NO_COLOR") else None
    click.echo(f"{verdict}  {escaped(finding.line)}", color=colour)
