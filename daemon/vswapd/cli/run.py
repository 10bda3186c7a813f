"""`vswap run`: only the file, served in the foreground."""

from __future__ import annotations

import os
from typing import Unpack

import click

from vswap.errors import UserError
from vswapd.cli.bringup import become, check_file, make_backing
from vswapd.cli.daemon import daemon_command
from vswapd.cli.options import StoreOptions, backing_room, make_settings, store_options

__all__ = ["run"]


@click.command()
@store_options
@click.option("--mount", metavar="DIR", help="The empty directory to mount the file on. Required.")
def run(mount: str | None, **options: Unpack[StoreOptions]) -> None:
    """Serve only the file, in the foreground.

    Neither loop device nor swap. Works for any user, on a directory of theirs. Ends on
    Ctrl-C, and when it is unmounted.
    """
    if mount is None:
        raise UserError("run needs --mount DIR, an empty directory")
    settings = make_settings(mount, options, allow_fusermount=os.geteuid() != 0)
    room = backing_room(options, settings.size)
    check_file(settings, room)
    if settings.backing is not None:
        make_backing(settings.backing, room or settings.size)
    become(daemon_command(settings, "--foreground"))
