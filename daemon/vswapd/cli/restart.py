"""`vswap restart`: the daemon from the code that is installed now, while the device is in use."""

from __future__ import annotations

import click

from vswapd.cli.complete import device_names
from vswapd.cli.replace import replace_supervisor, supervisor_of
from vswapd.mounts import find_device

__all__ = ["restart"]


@click.command(
    epilog="""\b
Examples:
  vswap restart          after an upgrade, while the machine swaps on it
  vswap restart swap0    of several devices this one
"""
)
@click.argument("device", required=False, shell_complete=device_names)
def restart(device: str | None) -> None:
    """Replace the daemon by one of the code that is installed now.

    DEVICE is a name or a mount point; it may be left out when there is only one. Nothing is lost,
    and what is asked of the device meanwhile waits for some milliseconds. The new daemon first
    looks whether it can read what the old one holds. If it cannot, or does not start, the old one
    goes on as if nothing had been, and the reason is told.
    """
    chosen = find_device(device)
    replace_supervisor(chosen, supervisor_of(chosen))
    click.echo(f"{chosen.name} is served by a new daemon")
