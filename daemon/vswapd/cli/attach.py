"""`vswap attach`: the second half of `up`, loop device and swap for a device that is served."""

from __future__ import annotations

import os

import click

from vswap.errors import UserError
from vswapd.cli.bringup import attach_file, swap_as_planned
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import named_plan
from vswapd.cli.interrupt import StoppedError, Undo, interrupts
from vswapd.cli.options import config_option
from vswapd.cli.plan import Plan
from vswapd.cli.status import read_stats
from vswapd.mounts import Device, find_device, loop_devices
from vswapd.swapdev import has_label, swap_area

__all__ = ["attach"]

_STORED = ("stored_pages", "backing_pages", "same_pages")


@click.command(
    epilog="""\b
Examples:
  vswap attach swap0     after `vswap serve swap0`; twice does no harm
"""
)
@click.argument("device", shell_complete=device_names)
@config_option
def attach(device: str, config: str | None) -> None:
    """Swap on DEVICE, which is served already.

    Makes what `vswap up` would make and is not there yet: a loop device, and swap on it if that is
    configured. Prints the loop device. If a step fails, or on Ctrl-C, every step before it is
    undone. A loop device that somebody has put something else on is not swapped on.
    """
    if os.geteuid() != 0:
        raise UserError("attach needs root")
    found = find_device(device)
    loops = loop_devices(found)
    loop = _in_use(found, loops)
    if loop is None:  # else all is done, whatever the configuration says by now
        loop = _attach_or_undo(found, named_plan(config, found.name), loops)
    click.echo(loop)


def _in_use(device: Device, loops: list[str]) -> str | None:
    """A loop device that is to stay as it is; None if there is something to be done.

    In a unit one that is there was there before the daemon was started again, and was meant for
    whatever it is used for, unless it was to be swapped on and something came between.
    """
    swapped = next(filter(swap_area, loops), None)
    if swapped is None and loops and "MAINPID" in os.environ:
        return None if has_label(loops[0], device.name) else loops[0]
    return swapped


def _attach_or_undo(device: Device, plan: Plan, loops: list[str]) -> str:
    if loops and plan.swapon:
        _check_ours(device, loops[0])
    with interrupts() as signals:
        undo = Undo(signals)
        try:
            with undo:
                loop = loops[0] if loops else attach_file(device, plan, signals, undo)
                swap_as_planned(loop, plan, signals, undo)
                undo.keep()
        except KeyboardInterrupt:
            if not undo.kept:  # else it came too late to be heeded
                raise StoppedError(f"interrupted; {device.name} is served still") from None
    return loop


def _check_ours(device: Device, loop: str) -> None:
    """Raise `UserError` if swap on a loop device that was there would be the end of what is on it.

    A virtual machine can have it, which the kernel knows nothing of.
    """
    if has_label(loop, device.name):
        return
    stats = read_stats(device)
    if any(stats.get(name) for name in _STORED):
        raise UserError(
            f"{loop} is attached to {device.name} and has something else than its swap on it; "
            f"`losetup -d {loop}` first, if that can go"
        )
