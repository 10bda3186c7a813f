"""The options that several commands have: what a device is to be, and where that stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict, TypeVar

import click

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswapd.cli.backing_file import absolute
from vswapd.cli.completers import files, one_of
from vswapd.cli.place import check_point
from vswapd.config import (
    CODECS,
    UNIT_PAGES,
    Settings,
    check_backed,
    check_backing_size,
    device_name,
)
from vswapd.confkeys import DEFAULT_SIZE, NONE
from vswapd.mounts import resolve
from vswapd.sizes import parse_size

__all__ = [
    "StoreOptions",
    "backing_room",
    "config_option",
    "make_settings",
    "mount_point",
    "store_options",
]

_Command = TypeVar("_Command", bound=Callable[..., object])


config_option = click.option(
    "--config",
    metavar="FILE",
    help="Read this, not /etc/vswap.toml and /etc/vswap.d/*.toml.",
    shell_complete=files,
)


class StoreOptions(TypedDict):
    """What `store_options` passes to the command, as it was typed."""

    size: str
    memory_limit: str | None
    codec: str
    unit_pages: int
    threads: int
    spin_us: int
    watchdog: int
    spares: int | None
    backing: str | None
    backing_size: str | None
    writeback_limit: str | None


# Choices are left to Settings, which says the same to those who come another way.
_OPTIONS = (
    click.option(
        "--size",
        metavar="SIZE",
        default=DEFAULT_SIZE,
        show_default=True,
        help="Size of the device. A SIZE is 4G, a number of bytes, 50% of the machine's memory, or "
        "what is computed from that memory, ram: 'min(ram / 2, 4G)'.",
    ),
    click.option(
        "--memory-limit",
        metavar="SIZE|none",
        shell_complete=one_of([NONE]),
        help="Most memory that the device may take, with all that it keeps to find its pages. When "
        "it is reached and nothing is left to win back, the kernel keeps what it would swap out. "
        "[default: no limit but the size]",
    ),
    click.option(
        "--codec",
        default=Settings.codec,
        show_default=True,
        metavar="|".join(CODECS),
        shell_complete=one_of(CODECS),
        help="How pages are compressed when they are written; zstd-fast is zstd's level -1. What "
        "lies long is compressed again, harder.",
    ),
    click.option(
        "--unit-pages",
        type=int,
        default=Settings.unit_pages,
        show_default=True,
        metavar="|".join(map(str, UNIT_PAGES)),
        shell_complete=one_of(UNIT_PAGES),
        help="Most pages that are compressed together.",
    ),
    click.option(
        "--threads",
        type=int,
        default=Settings.threads,
        metavar="N",
        help="Threads that serve requests. [default: one per processor, at most 4]",
    ),
    click.option(
        "--spin-us",
        type=int,
        default=Settings.spin_us,
        show_default=True,
        metavar="N",
        help="Longest that a thread looks for the next request before it sleeps, in microseconds.",
    ),
    click.option(
        "--watchdog",
        type=int,
        default=Settings.watchdog,
        show_default=True,
        metavar="SECONDS",
        help="Replace a worker that answers nothing for so long while requests wait; 0 is never.",
    ),
    click.option(
        "--spares",
        type=int,
        metavar="0|1|2",
        shell_complete=one_of(range(3)),
        help="What is kept for the end of a worker: 2, a standby and a process that forks the next "
        "one; 1, a standby, so that after a second end within seconds requests wait for seconds; "
        "0, nothing, so that they do after each. A spare takes some 50 MiB. [default: 2 on "
        "machines with 2 GiB of memory or more, 1 from 300 MiB on]",
    ),
    click.option(
        "--backing",
        metavar="FILE",
        shell_complete=files,
        help="Write what is cold to this file or block device, encrypted, when memory is short. A "
        "file that is not there is made; it stays when the device is taken down.",
    ),
    click.option(
        "--backing-size",
        metavar="SIZE",
        help="Room that the file is to have at least. [default: for a new one the device's size]",
    ),
    click.option(
        "--writeback-limit",
        metavar="SIZE|none",
        shell_complete=one_of([NONE]),
        help="Most that is written to the backing file in a day. [default: what was last said for "
        "this file; for a new one no limit]",
    ),
)


def store_options(command: _Command) -> _Command:
    """Give a command the options of `StoreOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def mount_point(mount: str) -> str:
    """`mount`, as it was typed, as mountinfo has it. Raises `UserError`."""
    if mount == "":  # what an unset variable in a script makes of it
        raise UserError("mount point '' is no directory; leave --mount out for the default")
    point = resolve(mount)
    check_point(point)
    return point


def make_settings(
    mount: str,
    options: StoreOptions,
    *,
    name: str | None = None,
    allow_fusermount: bool = False,
) -> Settings:
    """The settings for a device at `mount`, as it was typed.

    It is called `name`, or as the last part of the mount point. Raises `UserError`.
    """
    point = mount_point(mount)
    limit = options["memory_limit"]
    backing = options["backing"]
    return Settings(
        name=device_name(point) if name is None else name,
        mount=point,
        size=parse_size(options["size"]),
        codec=options["codec"],
        unit_pages=options["unit_pages"],
        threads=options["threads"],
        spin_us=options["spin_us"],
        watchdog=options["watchdog"],
        spares=options["spares"],
        memory_limit=None if limit in (None, NONE) else parse_size(limit, "memory-limit"),
        allow_fusermount=allow_fusermount,
        backing=None if backing is None else absolute(backing),
        writeback_limit=_units(options["writeback_limit"]),
    )


def backing_room(options: StoreOptions, device_size: int) -> int | None:
    """Bytes that the backing file is to have room for, if that was said. Raises `UserError`."""
    check_backed(options["backing"], options["backing_size"], "backing-size")
    if options["backing_size"] is None:
        return None
    size = parse_size(options["backing_size"], "backing-size")
    check_backing_size(size, device_size, "backing-size")
    return size


def _units(limit: str | None) -> int | None:
    """As `Settings.writeback_limit`."""
    if limit is None or limit == NONE:
        return None if limit is None else 0
    return -(-parse_size(limit, "writeback-limit") // PAGE_SIZE)
