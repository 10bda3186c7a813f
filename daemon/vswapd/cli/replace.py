"""`vswap restart`: the daemon from the code that is installed now, while the device is in use."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.daemon import log_path
from vswapd.cli.status import read_stats
from vswapd.mounts import Device, find_device
from vswapd.restarts import address_of, peer_of

__all__ = ["restart"]

_PROC = Path("/proc")
_SECONDS = 120.0


@click.command(
    epilog="""\b
Examples:
  vswap restart          after an upgrade, while the machine swaps on it
  vswap restart swap0    of several devices this one
"""
)
@click.argument("device", required=False, shell_complete=device_names)
def restart(device: str | None) -> None:
    """Replace the daemon by one of the code that is installed now.

    DEVICE is a name or a mount point; it may be left out when there is only one. Nothing is lost,
    and what is asked of the device meanwhile waits for some milliseconds. The new daemon first
    looks whether it can read what the old one holds. If it cannot, or does not start, the old one
    goes on as if nothing had been, and the reason is told.
    """
    chosen = find_device(device)
    supervisor = _supervisor(chosen)
    said = _ask(chosen, supervisor)
    if said != "ok":
        raise UserError(
            f"{chosen.name} is not restarted and goes on as it was: {said.removeprefix('error ')}"
        )
    click.echo(f"{chosen.name} is served by a new daemon")


def _supervisor(device: Device) -> int:
    """Who supervises a device: as it says itself, or, when no worker answers, as it looks."""
    try:
        supervisor = read_stats(device).get("supervisor_pid")
    except UserError:
        supervisor = _keeper_of(device)
        if supervisor is None:
            raise
    if not isinstance(supervisor, int) or supervisor < 2:
        raise UserError(f"the daemon of {device.name} does not say who supervises it")
    return supervisor


def _keeper_of(device: Device) -> int | None:
    """The supervisor that writes to the device's log, or that its unit has started.

    None if there is none, or none that may be seen.
    """
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            keeps = (process / "comm").read_text().strip() == "vswap-keeper"
            if keeps and (_logs_to(process, device) or _is_of_unit(process, device)):
                return int(process.name)
    return None


def _logs_to(process: Path, device: Device) -> bool:
    return (process / "fd/2").readlink() == log_path(device.name)


def _is_of_unit(process: Path, device: Device) -> bool:
    """Its standard error is the journal's then. (Another user's units may be called the same.)"""
    groups = (process / "cgroup").read_text().splitlines()
    ours = process.stat().st_uid == os.geteuid()
    return ours and any(group.endswith(f"/vswap@{device.name}.service") for group in groups)


def _ask(device: Device, supervisor: int) -> str:
    """Have it done, and answer what is said of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.settimeout(_SECONDS)
        try:
            end.connect(address_of(supervisor))
        except PermissionError:
            raise UserError(f"{device.name} is another user's: restart needs root") from None
        except OSError:
            raise UserError(
                f"the supervisor of {device.name} (process {supervisor}) is gone or of another "
                "version; the device works on, and `vswap down` ends it safely"
            ) from None
        if peer_of(end)[0] != supervisor:
            raise UserError(f"another process has taken the place of {device.name}'s supervisor")
        try:
            said = end.makefile(errors="replace").readline().strip()
        except TimeoutError:
            raise UserError(
                f"{device.name} is not restarted after {_SECONDS:g} s; its log tells more"
            ) from None
    if not said:
        raise UserError(f"{device.name} is another user's: restart needs root")
    return said
