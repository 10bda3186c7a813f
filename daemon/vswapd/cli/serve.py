"""`vswap serve`: the first half of `up`, in the foreground, for a service manager.

systemd is told when the device serves (Type=notify), keeps its descriptors, and hands them to the
next start, which goes on with the device: then nothing is looked at that could keep it from that.
"""

from __future__ import annotations

import os

import click

from vswap.errors import UserError
from vswapd.cli import place
from vswapd.cli.backing_file import check_backing
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import check_named, configured, plan_for
from vswapd.cli.daemon import daemon_command
from vswapd.cli.options import config_option
from vswapd.cli.plan import Plan
from vswapd.cli.run import become, make_backing
from vswapd.config import Settings
from vswapd.mounts import is_mount_point

__all__ = ["serve"]


@click.command(
    epilog="""\b
Examples:
  vswap serve swap0                    until it is ended by `vswap down swap0`
  vswap attach swap0                   when it serves, from elsewhere
  systemctl enable --now vswap@swap0   does both
"""
)
@click.argument("device", shell_complete=device_names)
@config_option
def serve(device: str, config: str | None) -> None:
    """Serve DEVICE of the configuration, in the foreground.

    For service managers: `vswap attach DEVICE` swaps on it when it is ready, which systemd is told
    of, and `vswap down DEVICE` ends it.
    """
    from vswapd.sdnotify import keeps_device  # noqa: PLC0415  # no other command needs it

    settings: Settings | None = None
    kept = keeps_device(os.environ)
    try:
        settings = _prepared(device, config, kept=kept)
    except (UserError, OSError) as error:
        if not kept:
            raise
        click.echo(f"vswap: warning: {error}; {device} goes on as it was", err=True)
    # An heir of the daemon becomes the main process of a unit; a shell waits for the first one.
    options = [] if "NOTIFY_SOCKET" in os.environ else ["--foreground"]
    become(daemon_command(settings, *options))


def _prepared(device: str, config: str | None, *, kept: bool) -> Settings:
    """The settings, with everything in its place that the daemon needs. Raises `UserError`."""
    configuration = configured(config)
    check_named(configuration, device)
    plan = plan_for(configuration, device, {})
    if not kept:
        _check(plan)
    if not is_mount_point(plan.settings.mount):  # to look at one could come to wait for us
        place.make_own_mount(plan.settings.mount)
    return plan.settings


def _check(plan: Plan) -> None:
    """As `up` does. Raises `UserError`."""
    settings = plan.settings
    if os.geteuid() != 0:
        raise UserError("serve needs root; `vswap run --mount DIR` serves the file without")
    place.check_fuse()
    place.check_mount(settings)
    if settings.backing is not None:
        check_backing(settings.backing, plan.room)
        make_backing(settings.backing, plan.room or settings.size)
