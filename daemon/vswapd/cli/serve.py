"""`vswap serve`: the first half of `up`, in the foreground, for a service manager.

systemd is told when the device serves (Type=notify), keeps its descriptors, and hands them to the
next start, which goes on with the device: then nothing is looked at that could keep it from that.
A supervisor that was to be stopped and could not be, since its device was in use, is in the unit
still, without being its main process. It is replaced, and its heir is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from vswap.errors import UserError
from vswapd.cli import place
from vswapd.cli.bringup import become, check_swap, make_backing
from vswapd.cli.complete import device_names
from vswapd.cli.confcheck import named_plan
from vswapd.cli.daemon import daemon_command, locked_log, log_path
from vswapd.cli.grace import asking_for_time
from vswapd.cli.options import config_option
from vswapd.cli.plan import Plan
from vswapd.cli.replace import replace_supervisor, supervisor_of
from vswapd.config import Settings
from vswapd.mounts import find_device, is_mount_point

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
    from vswapd.kept import clear_away, rival  # noqa: PLC0415  # no other command needs it
    from vswapd.sdnotify import Keeper, keeps_device  # noqa: PLC0415

    other = rival(os.environ) if keeps_device(os.environ) else _left_over(device)
    if other is not None:
        replace_supervisor(find_device(device), other)
        click.echo(f"{device} was served still; it is by a new daemon now")
        return
    clear_away(os.environ, Keeper(os.environ.get("NOTIFY_SOCKET")))
    if keeps_device(os.environ):
        _go_on(device, config)
    try:
        _begin(named_plan(config, device))
    except OSError as error:  # nobody relies on it yet: what fails once is not tried for ever
        raise UserError(f"{device} cannot be served: {error}") from None


def _left_over(device: str) -> int | None:
    """The supervisor that serves a device already, in our unit; None if there is none."""
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    with suppress(UserError, OSError):
        supervisor = supervisor_of(find_device(device))
        if _cgroup(supervisor) == _cgroup(os.getpid()):
            return supervisor
    return None


def _cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def _go_on(device: str, config: str | None) -> NoReturn:
    """With the device that systemd has kept, whatever is wrong by now."""
    settings: Settings | None = None
    try:
        settings = named_plan(config, device).settings
        if not is_mount_point(settings.mount):  # to look at one could come to wait for us
            place.make_own_mount(settings.mount)
    except (UserError, OSError) as error:
        click.echo(f"vswap: warning: {error}; {device} goes on as it was", err=True)
    _become_daemon(settings)


def _begin(plan: Plan) -> NoReturn:
    """A device that is not there yet, and nobody else can begin meanwhile. Raises `UserError`."""
    settings = plan.settings
    check_swap("serve", plan)
    with locked_log(log_path(settings.name), lambda: place.check_mount(settings)) as lock:
        if settings.backing is not None:
            _make_backing(settings.backing, plan.room or settings.size)
        place.make_own_mount(settings.mount)
        os.set_inheritable(lock, True)
        _become_daemon(settings, "--lock-fd", str(lock))


def _make_backing(path: str, size: int) -> None:
    made = 0

    def note(done: int) -> None:
        nonlocal made
        made = done

    with asking_for_time(lambda: size - made):
        make_backing(path, size, note)


def _become_daemon(settings: Settings | None, *options: str) -> NoReturn:
    # An heir of the daemon becomes the main process of a unit; a shell waits for the first one.
    stay = [] if "NOTIFY_SOCKET" in os.environ else ["--foreground"]
    become(daemon_command(settings, *stay, *options))
