"""`vswap run`: only the file, served in the foreground."""

from __future__ import annotations

import os
from typing import Unpack

import click

from vswap.errors import UserError
from vswapd.cli.daemon import worker_command, worker_environment
from vswapd.cli.options import StoreOptions, make_settings, store_options
from vswapd.cli.place import DEFAULT_MOUNT, check_fuse, check_mount, make_own_mount

__all__ = ["run"]


@click.command()
@store_options
@click.option(
    "--mount", metavar="DIR", help=f"Where to mount the file. [default for root: {DEFAULT_MOUNT}]"
)
def run(mount: str | None, **options: Unpack[StoreOptions]) -> None:
    """Serve only the file, in the foreground.

    Neither loop device nor swap. Works for any user, on a directory of theirs. Ends on
    Ctrl-C, and when it is unmounted.
    """
    root = os.geteuid() == 0
    if mount is None and not root:
        raise UserError("run needs --mount DIR, an empty directory of yours, when not root")
    settings = make_settings(mount, options, allow_fusermount=not root)
    check_fuse()
    check_mount(settings)
    make_own_mount(settings.mount)
    command = worker_command(settings)
    environment = worker_environment()
    os.chdir("/")  # a daemon must not keep a file system busy; and `-m` imports from here
    os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted
