"""`vswap attach`: the second half of `up`, loop device and swap for a device that is served."""

from __future__ import annotations

import os

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import configured, plan_for
from vswapd.cli.interrupt import Interrupts, StoppedError, Undo, interrupts
from vswapd.cli.options import config_option
from vswapd.cli.plan import Plan
from vswapd.cli.up import detach_all, swap_on, tune_kernel
from vswapd.mounts import Device, find_device, loop_devices
from vswapd.swapdev import attach_loop, restrict, swap_area

__all__ = ["attach"]


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
    undone.
    """
    if os.geteuid() != 0:
        raise UserError("attach needs root")
    found = find_device(device)
    loops = loop_devices(found)
    loop = next(filter(swap_area, loops), None)
    if loop is None:  # else all is done, whatever the configuration says by now
        plan = plan_for(configured(config), found.name, {})
        loop = _attach_or_undo(found, plan, loops)
    click.echo(loop)


def _attach_or_undo(device: Device, plan: Plan, loops: list[str]) -> str:
    with interrupts() as signals:
        undo = Undo(signals)
        try:
            with undo:
                loop = loops[0] if loops else _attach_loop(device, signals, undo)
                if plan.tune:
                    tune_kernel(device.name, signals, undo)
                if plan.swapon:
                    swap_on(loop, device.name, plan.priority, signals, undo)
                undo.keep()
        except KeyboardInterrupt:
            if not undo.kept:  # else it came too late to be heeded
                raise StoppedError(f"interrupted; {device.name} is served still") from None
    return loop


def _attach_loop(device: Device, signals: Interrupts, undo: Undo) -> str:
    with signals.held():
        undo.later(detach_all, device)
        loop = attach_loop(f"{device.mount}/swap")
        restrict(loop)
    return loop
