"""The steps from nothing to enabled swap, for the commands that take all of them or some.

`up` takes all; `run` is only the file; `serve` and `attach` are the halves for a service manager.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import click

from vswap.errors import UserError
from vswapd.cli import place
from vswapd.cli.backing_file import check_backing, is_missing, make_missing
from vswapd.cli.daemon import daemon_environment
from vswapd.cli.interrupt import Interrupts, StoppedError, Undo, interrupts
from vswapd.cli.plan import Plan
from vswapd.config import Settings
from vswapd.mounts import Device, loop_devices
from vswapd.swapdev import (
    attach_loop,
    check_free_loop,
    detach_loop,
    disable_swap,
    enable_swap,
    make_swap,
    restrict,
)
from vswapd.tuning import restore, tune

__all__ = [
    "attach_file",
    "become",
    "check_file",
    "check_swap",
    "make_backing",
    "swap_as_planned",
]


def check_file(settings: Settings, room: int | None) -> None:
    """Raise `UserError` for what can be known to be wrong before a file is served.

    A file for the backing that is there is to have `room` bytes, if that is given.
    """
    place.check_fuse()
    place.check_mount(settings)
    if settings.backing is not None:
        check_backing(settings.backing, room)


def check_swap(command: str, plan: Plan) -> None:
    """Raise `UserError` for what can be known to be wrong before anything is changed."""
    if os.geteuid() != 0:
        raise UserError(f"{command} needs root; `vswap run --mount DIR` serves the file without")
    check_file(plan.settings, plan.room)
    check_free_loop()


def make_backing(path: str, size: int, note: Callable[[int], None] = lambda _done: None) -> None:
    """Make the backing file, which is there from then on whatever becomes of the daemon.

    `note` is told how many bytes of it are made. Raises `UserError`, and `StoppedError` on Ctrl-C.
    """
    if not is_missing(path):
        return
    try:
        with interrupts(last=False) as signals, Undo(signals) as undo:
            make_missing(path, size, undo, note)
            undo.keep()
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; {path} is removed again") from None


def become(command: list[str]) -> NoReturn:
    """Be the daemon from now on."""
    environment = daemon_environment()
    os.chdir("/")  # a daemon must not keep a file system busy; and `-m` imports from here
    os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted


def attach_file(device: Device, plan: Plan, signals: Interrupts, undo: Undo) -> str:
    """Attach the file of a device that is served to a loop device, which is returned."""
    with signals.held():
        undo.later(_detach_all, device)
        loop = attach_loop(f"{device.mount}/swap")
        restrict(loop, settled=not plan.swapon)
    return loop


def swap_as_planned(loop: str, plan: Plan, signals: Interrupts, undo: Undo) -> None:
    """Tune the kernel and swap on a loop device, as far as that is wanted. Raises `UserError`."""
    name = plan.settings.name
    if plan.tune:
        _tune_kernel(name, signals, undo)
    if plan.swapon:
        _swap_on(loop, name, plan.priority, signals, undo)


def _tune_kernel(device: str, signals: Interrupts, undo: Undo) -> None:
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
        restrict(loop)  # again: udev has seen a change, and resets the mode


def _detach_all(device: Device) -> None:
    """Detach what is attached to the device's file. Raises `UserError`."""
    for loop in loop_devices(device):
        detach_loop(loop)
