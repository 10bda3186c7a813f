"""`vswap up`: from nothing to enabled swap, or back to nothing."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Unpack

import click

from vswap.errors import UserError
from vswapd.cli import daemon, place
from vswapd.cli.backing_file import check_backing, make_missing
from vswapd.cli.interrupt import Interrupts, StoppedError, Undo, interrupts
from vswapd.cli.options import StoreOptions, backing_room, make_settings, store_options
from vswapd.config import Settings
from vswapd.mounts import Device, loop_devices
from vswapd.swapdev import (
    MIN_SWAP_SIZE,
    attach_loop,
    check_free_loop,
    detach_loop,
    disable_swap,
    enable_swap,
    make_swap,
    restrict,
)
from vswapd.tuning import restore, tune

__all__ = ["up"]


@click.command()
@store_options
@click.option(
    "--mount",
    metavar="DIR",
    help="Where to mount; its last part is the device's name. Directories in /run/vswap are "
    f"made and removed as needed. [default: {place.DEFAULT_MOUNT}]",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 32767),
    metavar="N",
    help="The kernel fills swap areas with a higher priority first.",
)
@click.option("--no-swapon", is_flag=True, help="Stop after the loop device.")
@click.option(
    "--no-tune",
    is_flag=True,
    help="Leave the kernel's settings alone. Else these are set, for the whole machine, until the "
    "last device is taken down: vm.page-cluster to 5 (swap-in reads ahead up to 32 pages), "
    "guest_halt_poll_ns to 200000 in a guest whose cpuidle governor is haltpoll, "
    "vm.watermark_boost_factor to 0, and vm.watermark_scale_factor to what makes 4 MiB.",
)
def up(
    mount: str | None,
    priority: int | None,
    no_swapon: bool,
    no_tune: bool,
    **options: Unpack[StoreOptions],
) -> None:
    """Start a daemon in the background and swap on it.

    Returns when all of it works, and prints the loop device. If a step fails, or on Ctrl-C,
    every step before it is undone.
    """
    settings = make_settings(mount, options)
    room = backing_room(options, settings.size)
    _check(settings, room, swapon=not no_swapon)
    log = daemon.log_path(settings.name)
    with interrupts() as signals, ExitStack() as held:
        with signals.held():
            held.enter_context(daemon.locked_log(log, lambda: place.check_mount(settings)))
        undo = Undo(signals)
        try:
            with undo:
                if settings.backing is not None:
                    make_missing(settings.backing, room or settings.size, undo)
                loop = _attach(settings, signals, undo)
                if not no_tune:
                    _tune(settings.name, signals, undo)
                if not no_swapon:
                    _swap_on(loop, settings.name, priority, signals, undo)
                undo.keep()
        except KeyboardInterrupt:
            if not undo.kept:  # else it came too late to be heeded
                outcome = "everything undone" if undo.complete else "not everything undone"
                raise StoppedError(f"interrupted; {outcome}") from None
    click.echo(loop)


def _check(settings: Settings, room: int | None, *, swapon: bool) -> None:
    """Raise `UserError` for what can be known before anything is changed."""
    if os.geteuid() != 0:
        raise UserError("up needs root; `vswap run --mount DIR` serves the file without")
    if swapon and settings.size < MIN_SWAP_SIZE:
        raise UserError(f"size must be at least 40 KiB for swap, not {settings.size} bytes")
    place.check_fuse()
    place.check_mount(settings)
    check_free_loop()
    if settings.backing is not None:
        check_backing(settings.backing, room)


def _attach(settings: Settings, signals: Interrupts, undo: Undo) -> str:
    """Start the daemon and attach its file to a loop device, which is returned."""
    mount, log = settings.mount, daemon.log_path(settings.name)
    undo.later(place.remove_own_mount, mount)
    place.make_own_mount(mount)
    with signals.held():
        started = daemon.start_daemon(daemon.daemon_command(settings), log)
        undo.later(daemon.stop_daemon, started, mount)
    daemon.wait_ready(started)
    for warning in daemon.warnings(log):
        click.echo(warning, err=True)
    with signals.held():
        undo.later(_detach_all, Device(settings.name, mount))
        loop = attach_loop(f"{mount}/swap")
        restrict(loop)
    return loop


def _tune(device: str, signals: Interrupts, undo: Undo) -> None:
    """Set the kernel's settings. A device works without, so what fails is only warned of."""
    with signals.held():
        undo.later(_restore, device)
        try:
            problems = tune(place.RUN_DIRECTORY, device)
        except (UserError, OSError) as error:
            problems = [f"the kernel is not tuned: {error}"]
    for problem in problems:
        click.echo(f"vswap: warning: {problem}", err=True)


def _restore(device: str) -> None:
    for note in restore(place.RUN_DIRECTORY, device):
        click.echo(f"vswap: {note}", err=True)


def _swap_on(loop: str, label: str, priority: int | None, signals: Interrupts, undo: Undo) -> None:
    with signals.held():
        make_swap(loop, label)
    with signals.held():
        undo.later(disable_swap, loop)
        enable_swap(loop, priority)
        restrict(loop)  # again: udev sees mkswap's change, and resets the mode


def _detach_all(device: Device) -> None:
    for loop in loop_devices(device):
        detach_loop(loop)
