"""Finding the supervisor of a device, and having another one take its place."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from vswap.errors import UserError
from vswapd.cli.daemon import log_path
from vswapd.cli.status import read_stats
from vswapd.mounts import Device
from vswapd.restarts import address_of, peer_of

__all__ = ["replace_supervisor", "supervisor_of"]

_PROC = Path("/proc")
_SECONDS = 120.0


def supervisor_of(device: Device) -> int:
    """Who supervises a device: as it says itself, or, when no worker answers, as it looks.

    Raises `UserError`.
    """
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


def replace_supervisor(device: Device, supervisor: int) -> None:
    """Have it done, and wait for it. Raises `UserError`, and then the old one goes on."""
    said = _ask(device, supervisor)
    if said != "ok":
        raise UserError(
            f"{device.name} is not restarted and goes on as it was: {said.removeprefix('error ')}"
        )


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
