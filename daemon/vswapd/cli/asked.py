"""What a person asks of a device on the command line: the options of `vswap up`.

They go over the configuration, key by key; so what was typed must be told from what was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click
from click.core import ParameterSource

from vswapd.cli.completers import directories
from vswapd.cli.confcheck import check_named
from vswapd.cli.options import mount_point, store_options
from vswapd.cli.place import DEFAULT_DEVICE, default_mount
from vswapd.conffile import Configuration
from vswapd.config import device_name
from vswapd.confkeys import KEYS, MAX_PRIORITY, Value

__all__ = ["asked_device", "asked_values", "device_options"]

_Command = TypeVar("_Command", bound=Callable[..., object])

_OPTIONS = (
    store_options,
    click.option(
        "--mount",
        metavar="DIR",
        shell_complete=directories,
        help="Where to mount; its last part is the device's name, unless there is DEVICE. "
        "Directories in /run/vswap are made and removed as needed. [default: "
        f"{default_mount(DEFAULT_DEVICE)}]",
    ),
    click.option(
        "--priority",
        type=click.IntRange(0, MAX_PRIORITY),
        metavar="N",
        help="The kernel fills swap areas with a higher priority first.",
    ),
    click.option(
        "--swapon/--no-swapon",
        default=True,
        help="Swap on the device, or stop after the loop device. [default: swapon]",
    ),
    click.option(
        "--tune/--no-tune",
        default=True,
        help="Set four settings of the kernel, for the whole machine, until the last device is "
        "taken down: vm.page-cluster to 5 (swap-in reads ahead up to 32 pages), "
        "guest_halt_poll_ns to 200000 in a guest whose cpuidle governor is haltpoll, "
        "vm.watermark_boost_factor to 0, and vm.watermark_scale_factor to what makes 4 MiB. Or "
        "leave them alone. [default: tune]",
    ),
)


def device_options(command: _Command) -> _Command:
    """Give a command all options that say what a device is to be: one for each of KEYS."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_values(context: click.Context) -> dict[str, Value]:
    """What was typed, by the names of KEYS; and not what click fills in."""
    typed = ParameterSource.COMMANDLINE
    options = {key.name: key.option for key in KEYS.values()}
    return {
        name: context.params[option]
        for name, option in options.items()
        if context.get_parameter_source(option) is typed
    }


def asked_device(
    configuration: Configuration, device: str | None, given: Mapping[str, Value]
) -> str:
    """The device that is meant: the one that was named, or mounted, or else the default one.

    Raises `UserError` if it is not configured, though it was named.
    """
    if device is not None:
        check_named(configuration, device)
        return device
    return device_name(mount_point(str(given["mount"]))) if "mount" in given else DEFAULT_DEVICE
