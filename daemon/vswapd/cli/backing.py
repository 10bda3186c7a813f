"""`vswap backing`: give a running device a file for its cold pages, and take it away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from vswap.errors import UserError
from vswapd.cli.backing_file import absolute, check_backing, is_missing, make_missing
from vswapd.cli.complete import device_names
from vswapd.cli.completers import files
from vswapd.cli.drain import take_away
from vswapd.cli.interrupt import StoppedError, Undo, interrupts
from vswapd.cli.status import read_stats
from vswapd.config import check_backing_size, parse_size
from vswapd.mounts import Device, find_device
from vswapd.tell import write_ctl

__all__ = ["backing"]

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group(
    no_args_is_help=False,
    epilog="""\b
Examples:
  vswap backing attach /var/lib/vswap.img --size 8G   make the file, and use it
  vswap backing attach /dev/sdb2                      a partition that is empty
  vswap backing grow 16G
  vswap backing detach                                bring all of it back to memory
""",
)
def backing() -> None:
    """Give a device a file for its cold pages, or take it away again.

    While memory is short, what is cold is written there, encrypted with a key that only the daemon
    has. `vswap status` shows how much that is.
    """


def _of_device(command: _Command) -> _Command:
    option = click.option(
        "--device",
        metavar="DEVICE",
        help="Name or mount point; needed if there are more.",
        shell_complete=device_names,
    )
    return option(command)


@backing.command(
    epilog="""\b
Examples:
  vswap backing attach /var/lib/vswap.img --size 8G   make the file if it is not there
  vswap backing attach /dev/sdb2 --device swap1       a partition that is empty
"""
)
@click.argument("file", shell_complete=files)
@click.option("--size", metavar="SIZE", help="Room that it is to have at least; makes the file.")
@_of_device
def attach(file: str, size: str | None, device: str | None) -> None:
    """Write cold pages to FILE from now on.

    FILE is a file that only the daemon's user may read and write, or a block device. With --size a
    file that is not there is made, and on Ctrl-C removed again. It must be empty, or have been a
    backing before: what was on it is lost then.
    """
    path = _tellable(absolute(file))
    room = None if size is None else parse_size(size)
    chosen = find_device(device)
    _check_device(chosen, room)
    if room is None and is_missing(path):
        raise UserError(f"{path} does not exist; --size SIZE makes it")
    if room is not None:
        check_backing(path, room)
        _ask(chosen, "backing status")  # who may not tell it anything need not make a file
    with interrupts() as signals:
        try:
            with Undo(signals) as undo:
                if room is not None:
                    make_missing(path, room, undo)
                result = _ask(chosen, f"backing attach {path}")
                undo.keep()
        except KeyboardInterrupt:
            attached = read_stats(chosen).get("backing") == path
            outcome = f"{path} is attached all the same" if attached else "nothing is attached"
            raise StoppedError(f"interrupted; {outcome}") from None
    click.echo(result)


@backing.command(
    epilog="""\b
Examples:
  vswap backing grow 16G
  vswap backing grow 16G --device swap1
"""
)
@click.argument("size")
@_of_device
def grow(size: str, device: str | None) -> None:
    """Let the backing have room for SIZE.

    A file is made longer; of a block device that was enlarged all is used. Waits as long as that
    takes. Ctrl-C leaves at once, and the daemon goes on with it.
    """
    room = parse_size(size)
    chosen = find_device(device)
    with interrupts():
        try:
            with _clock(chosen, "growing") as alive:
                result = write_ctl(chosen, f"backing grow {room}", alive)
        except KeyboardInterrupt:
            raise StoppedError("interrupted; the daemon goes on growing the backing") from None
    click.echo(result)


@backing.command(
    epilog="""\b
Examples:
  vswap backing detach                   bring all of it back to memory
  vswap backing detach --device swap1
"""
)
@_of_device
def detach(device: str | None) -> None:
    """Bring back to memory what is on the backing, and let go of it.

    Refuses if memory would not hold it. Ctrl-C stops it at any time: what is not back yet stays on
    the backing and in use, and the next `detach` goes on.
    """
    chosen = find_device(device)
    with interrupts():
        path = take_away(chosen)
    click.echo(f"{path} is detached")


def _ask(device: Device, command: str) -> str:
    return write_ctl(device, command, lambda: read_stats(device))


def _check_device(device: Device, room: int | None) -> None:
    """Before a file is made in vain.

    Raises `UserError` if the device has a backing, or cannot use one with room for so many bytes.
    """
    stats = read_stats(device)
    if stats.get("backing_state", "none") != "none":
        raise UserError(f"{stats.get('backing')} is attached already; detach it first")
    if room is not None and isinstance(size := stats.get("size"), int):
        check_backing_size(room, size)


def _tellable(path: str) -> str:
    """`path`, if `ctl` takes it as it is. Raises `UserError`."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path!r} is not UTF-8; rename it, or give it to `vswap up`") from None
    if "\n" in path:
        raise UserError(f"{path!r} has a line break; rename it, or give it to `vswap up`")
    return path


@contextmanager
def _clock(device: Device, doing: str) -> Iterator[Callable[[], object]]:
    """What to call now and then while the daemon works; on a terminal it shows for how long."""
    if not sys.stderr.isatty():
        yield lambda: read_stats(device)
        return
    from vswapd.cli.bar import ticker  # noqa: PLC0415  # it takes longer than most commands do

    with ticker(doing) as draw:
        yield lambda: draw(str(read_stats(device).get("backing", "")))
