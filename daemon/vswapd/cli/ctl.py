"""`vswap ctl`: a command for a running daemon."""

from __future__ import annotations

import click

from vswapd.mounts import find_device, write_ctl

__all__ = ["ctl"]


@click.command()
@click.argument("command", nargs=-1, required=True)
@click.option("--device", metavar="DEVICE", help="Name or mount point; needed if there are more.")
def ctl(command: tuple[str, ...], device: str | None) -> None:
    """Give the daemon a COMMAND and print its result."""
    result = write_ctl(find_device(device), " ".join(command))
    if result:
        click.echo(result)
