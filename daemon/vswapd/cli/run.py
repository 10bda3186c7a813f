"""`vswap run`: only the file, served in the foreground."""

from __future__ import annotations

import os
from typing import NoReturn, Unpack

import click

from vswap.errors import UserError
from vswapd.cli.backing_file import check_backing, is_missing, make_missing
from vswapd.cli.daemon import daemon_command, daemon_environment
from vswapd.cli.interrupt import StoppedError, Undo, interrupts
from vswapd.cli.options import StoreOptions, backing_room, make_settings, store_options
from vswapd.cli.place import check_fuse, check_mount

__all__ = ["become", "make_backing", "run"]


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
    check_fuse()
    check_mount(settings)
    if settings.backing is not None:
        room = backing_room(options, settings.size)
        check_backing(settings.backing, room)
        make_backing(settings.backing, room or settings.size)
    become(daemon_command(settings, "--foreground"))


def become(command: list[str]) -> NoReturn:
    """Be the daemon from now on."""
    environment = daemon_environment()
    os.chdir("/")  # a daemon must not keep a file system busy; and `-m` imports from here
    os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted


def make_backing(path: str, size: int) -> None:
    """Make the backing file, which is there from then on whatever becomes of the daemon.

    Raises `UserError`, and `StoppedError` on Ctrl-C.
    """
    if not is_missing(path):
        return
    try:
        with interrupts(last=False) as signals, Undo(signals) as undo:
            make_missing(path, size, undo)
            undo.keep()
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; {path} is removed again") from None
