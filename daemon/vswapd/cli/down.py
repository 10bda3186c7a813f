"""`vswap down`: swap off, loop device detached, daemon gone."""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack, suppress
from functools import partial

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.daemon import EXIT_SECONDS, log_path, remove_log
from vswapd.cli.grace import asking_for_time
from vswapd.cli.interrupt import Interrupts, StoppedError, interrupts
from vswapd.cli.place import RUN_DIRECTORY, remove_own_mount, unmount
from vswapd.cli.status import serving
from vswapd.cli.swapoff import swap_off
from vswapd.mounts import Device, devices, find_device, is_of_root, loop_devices
from vswapd.swapdev import detach_loop, still_out, swap_area
from vswapd.tuning import restore

__all__ = ["down"]


@click.command(
    epilog="""\b
Examples:
  vswap down                     the only device
  vswap down swap1               of several this one
  vswap down /run/vswap/swap1    the same, by where it is mounted
"""
)
@click.argument("device", required=False, shell_complete=device_names)
@click.option(
    "--of-unit", is_flag=True, help="For ExecStop= of a unit: only if its main process is there."
)
def down(device: str | None, of_unit: bool) -> None:
    """Disable swap, detach the loop device, stop the daemon.

    With the last device, the settings that `up` has changed are put back.

    DEVICE is a name or a mount point; it may be left out when there is only one. Refuses,
    and changes nothing, when memory does not suffice for what is swapped out. Ctrl-C stops
    it at any time: what is not back yet stays swapped out.
    """
    if of_unit and not os.environ.get("MAINPID"):
        return  # the unit's device is gone: one of that name is somebody else's by now
    if not devices():  # it died, and somebody unmounted it: what `up` has set may still be so
        _restore("")
    chosen = find_device(device)
    loops = loop_devices(chosen)
    if loops and os.geteuid() != 0:
        raise UserError(f"{chosen.name} is attached to {loops[0]}: down needs root")
    if os.geteuid() != 0 and is_of_root(chosen):
        raise UserError(f"{chosen.name} is another user's: down needs root")
    with interrupts() as signals:
        try:
            _take_down(chosen, loops, signals)
        except KeyboardInterrupt:
            raise StoppedError(f"interrupted; `vswap down {chosen.mount}` goes on") from None


def _take_down(device: Device, loops: list[str], signals: Interrupts) -> None:
    for loop in loops:
        area = swap_area(loop)
        if area:
            with asking_for_time(partial(_swapped_out, loop)):
                swap_off(device, area, signals)
        with signals.held():
            detach_loop(loop)
    with signals.held(), ExitStack() as watched:  # once unmounted there is no second `down`
        running = _watch(device, watched)
        unmount(device.mount)
        _restore(device.name)
        remove_own_mount(device.mount)
        _wait_end(device, running)
        if running:  # else it died before, and its log may tell why
            remove_log(log_path(device.name))


def _swapped_out(loop: str) -> int:
    """How many bytes are still to be taken back: the kernel says it, also when the daemon hangs."""
    area = swap_area(loop)
    return still_out(area) if area else 0


def _restore(device: str) -> None:
    """Put the kernel's settings back if it was the last device.

    What fails is told and no more: the daemon's end is still to be waited for.
    """
    if os.geteuid() != 0:  # then it is from `run`, which raises none
        return
    try:
        notes = restore(RUN_DIRECTORY, device)
    except (UserError, OSError) as error:
        notes = [f"the kernel's settings stay as they are: {error}"]
    for note in notes:
        click.echo(f"vswap: {note}", err=True)


def _watch(device: Device, watched: ExitStack) -> dict[int, int]:
    """The device's processes by their pidfds, to be had only while the daemon answers.

    They are waited for and no more: a file on somebody's mount names them, which is no
    reason to kill.
    """
    running: dict[int, int] = {}
    with suppress(UserError):
        for pid in serving(device):
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                watched.callback(os.close, pidfd)
                running[pidfd] = pid
    return running


def _wait_end(device: Device, running: dict[int, int]) -> None:
    """Wait until all have ended. Raises `UserError` if one takes too long."""
    deadline = time.monotonic() + EXIT_SECONDS
    for pidfd, pid in running.items():
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise UserError(
                f"{device.mount} is unmounted, but its daemon (process {pid}) still runs after "
                f"{EXIT_SECONDS:g} s; `kill {pid}` ends it"
            )
