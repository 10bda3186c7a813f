"""`vswap up`: from nothing to enabled swap, or back to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import click

from vswap.errors import UserError
from vswapd.cli import daemon, place
from vswapd.cli.asked import asked_device, asked_values, device_options
from vswapd.cli.backing_file import make_missing
from vswapd.cli.bringup import attach_file, check_swap, swap_as_planned
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import configured, plan_for
from vswapd.cli.interrupt import Interrupts, StoppedError, Undo, interrupts
from vswapd.cli.options import config_option
from vswapd.cli.plan import Plan
from vswapd.conffile import Configuration
from vswapd.config import Settings
from vswapd.confkeys import KEYS, Value
from vswapd.mounts import Device

__all__ = ["up"]


@click.command(
    epilog="""\b
Examples:
  vswap up                                 swap0, as configured or by default
  vswap up --size 'min(ram / 2, 4G)' --memory-limit 25%
  vswap up swap1 --no-swapon               swap1 as /etc/vswap.toml has it, but for swapon
  vswap up --all                           all devices of /etc/vswap.toml and /etc/vswap.d
"""
)
@click.argument("device", required=False, shell_complete=device_names)
@device_options
@config_option
@click.option("--all", "every", is_flag=True, help="Bring up all devices of the configuration.")
@click.pass_context
def up(
    context: click.Context,
    /,
    device: str | None,
    config: str | None,
    every: bool,
    **_options: object,
) -> None:
    """Start a daemon in the background and swap on it.

    Returns when all of it works, and prints the loop device. If a step fails, or on Ctrl-C,
    every step before it is undone. DEVICE is one of the configuration; options go over what that
    says. With --all a device that fails is no reason not to try the others.
    """
    given = asked_values(context)
    configuration = configured(config)
    if every:
        _check_for_all(device, given)
        context.exit(_up_all(configuration, given))
    plan = plan_for(configuration, asked_device(configuration, device, given), given)
    check_swap("up", plan)
    with interrupts() as signals:
        loop = _bring_up(plan, signals)
    click.echo(loop)


def _check_for_all(device: str | None, given: Mapping[str, Value]) -> None:
    if device is not None:
        raise UserError(f"--all brings up every device; leave {device} out, or --all")
    for key in KEYS.values():
        if not key.common and key.name in given:
            raise UserError(f"--{key.name} is for one device, and --all brings up every one")


def _up_all(configuration: Configuration, given: Mapping[str, Value]) -> int:
    """Bring up one after the other, whichever fail, and return the exit code."""
    names = list(configuration.devices)
    if not names:
        raise UserError(f"no device in {configuration.source}; --all brings up those named there")
    plans = [plan_for(configuration, name, given) for name in names]
    codes = [_try_one(plan, last=plan is plans[-1]) for plan in plans]
    return max(codes)


def _try_one(plan: Plan, *, last: bool) -> int:
    """Bring up a device, say how that went, and return the exit code for it."""
    name = plan.settings.name
    with interrupts(last=last) as signals:
        try:
            check_swap("up", plan)
            loop = _bring_up(plan, signals)
        except StoppedError as error:
            raise StoppedError(f"{name}: {error}") from None
        except (UserError, OSError) as error:
            click.echo(f"vswap: {name}: {error}", err=True)
            return 2 if isinstance(error, UserError) else 1
    click.echo(f"{name} {loop}")
    return 0


def _bring_up(plan: Plan, signals: Interrupts) -> str:
    """All the steps for one device, or none. Returns the loop device."""
    settings = plan.settings
    log = daemon.log_path(settings.name)
    with ExitStack() as held:
        with signals.held():
            held.enter_context(daemon.locked_log(log, lambda: place.check_mount(settings)))
        undo = Undo(signals)
        try:
            with undo:
                if settings.backing is not None:
                    make_missing(settings.backing, plan.room or settings.size, undo)
                device = _start(settings, signals, undo)
                loop = attach_file(device, plan, signals, undo)
                swap_as_planned(loop, plan, signals, undo)
                undo.keep()
        except KeyboardInterrupt:
            if not undo.kept:  # else it came too late to be heeded
                outcome = "everything undone" if undo.complete else "not everything undone"
                raise StoppedError(f"interrupted; {outcome}") from None
    return loop


def _start(settings: Settings, signals: Interrupts, undo: Undo) -> Device:
    """Start the daemon, and wait until it serves."""
    mount, log = settings.mount, daemon.log_path(settings.name)
    undo.later(place.remove_own_mount, mount)
    place.make_own_mount(mount)
    with signals.held():
        started = daemon.start_daemon(daemon.daemon_command(settings), log)
        undo.later(daemon.stop_daemon, started, mount)
    daemon.wait_ready(started)
    for warning in daemon.warnings(log):
        click.echo(warning, err=True)
    return Device(settings.name, mount)
