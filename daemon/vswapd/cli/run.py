"""`vswap run`: only the file, served in the foreground."""

from __future__ import annotations

import os
from typing import Unpack

import click

from vswap.errors import UserError
from vswapd.cli.bringup import become, check_file, make_backing
from vswapd.cli.completers import directories
from vswapd.cli.daemon import daemon_command
from vswapd.cli.options import StoreOptions, backing_room, make_settings, store_options

__all__ = ["run"]


@click.command(
    epilog="""\b
Examples:
  vswap run --mount DIR                    1 GiB, until Ctrl-C or `vswap down DIR`
  vswap run --mount DIR --size 64M --memory-limit 16M
  vswap run --mount DIR --backing FILE --backing-size 8G
"""
)
@store_options
@click.option(
    "--mount",
    metavar="DIR",
    help="The empty directory to mount the file on. Required.",
    shell_complete=directories,
)
def run(mount: str | None, **options: Unpack[StoreOptions]) -> None:
    """Serve only the file, in the foreground.

    Neither loop device nor swap. Works for any user, on a directory of theirs. Ends on
    Ctrl-C, and when it is unmounted.
    """
    if not mount:  # '' is what an unset variable in a script makes of it
        raise UserError("run needs --mount DIR, an empty directory")
    settings = make_settings(mount, options, allow_fusermount=os.geteuid() != 0)
    room = backing_room(options, settings.size)
    check_file(settings, room)
    if settings.backing is not None:
        make_backing(settings.backing, room or settings.size)
    become(daemon_command(settings, "--foreground"))
