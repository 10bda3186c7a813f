"""`vswap status`: what devices there are, and what their daemons say of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswapd.cli.complete import device_names
from vswapd.cli.text import human, table
from vswapd.mounts import Device, devices, find_device, loop_devices, read_file
from vswapd.swapdev import swap_area

__all__ = ["Status", "read_stats", "serving", "status", "status_of"]

Stats = dict[str, Any]


@dataclass(frozen=True)
class Status:
    """One element of `status --json`. `size` in bytes.

    `stats` is what the daemon says of itself. It is None if there is no answer, and then
    `error` says why and what only the daemon knows is None too.
    """

    name: str
    size: int | None
    mount: str
    loop: str | None
    swap: bool
    supervisor_pid: int | None
    worker_pid: int | None
    stats: Stats | None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is printed: with an "error" only if there is one."""
        values = asdict(self)
        if self.error is None:
            del values["error"]
        return values


@click.command()
@click.argument("device", required=False, shell_complete=device_names)
@click.option("--json", "as_json", is_flag=True, help="Print all there is, as JSON.")
@click.pass_context
def status(context: click.Context, device: str | None, as_json: bool) -> None:
    """Show the devices and what they hold.

    DEVICE, a name or a mount point, selects one. Exit code 1 means that the daemon of one
    does not answer.
    """
    chosen = devices() if device is None else [find_device(device)]
    found = [status_of(each) for each in chosen]
    if as_json:
        click.echo(json.dumps({"devices": [each.to_json() for each in found]}, indent=2))
    else:
        _print_table(found)
    if any(each.error for each in found):
        context.exit(1)


def status_of(device: Device) -> Status:
    """What is known of a device: from its daemon, from sysfs and from /proc/swaps."""
    loops = loop_devices(device)
    stats: Stats | None = None
    error = None
    try:
        stats = read_stats(device)
    except UserError as problem:
        error = str(problem)
    return Status(
        name=device.name,
        size=_integer(stats, "size") or (_loop_size(loops[0]) if loops else None),
        mount=device.mount,
        loop=loops[0] if loops else None,
        swap=any(swap_area(loop) for loop in loops),
        supervisor_pid=_integer(stats, "supervisor_pid"),
        worker_pid=_integer(stats, "worker_pid"),
        stats=stats,
        error=error,
    )


def read_stats(device: Device) -> Stats:
    """The device's stats.json. Raises `UserError` if there is no answer, or no sense in it."""
    try:
        stats = json.loads(read_file(device, "stats.json"))
    except ValueError:
        raise UserError(f"the daemon of {device.name} answers, but not with JSON") from None
    if not isinstance(stats, dict):
        raise UserError(f"the daemon of {device.name} answers, but not with a JSON object")
    return stats


def serving(device: Device) -> list[int]:
    """The processes that serve a device, as it says itself. Raises `UserError` as `read_stats`."""
    stats = read_stats(device)
    pids = {_integer(stats, "supervisor_pid"), _integer(stats, "worker_pid")}
    return [pid for pid in pids if pid is not None and pid > 1]


def _integer(stats: Stats | None, name: str) -> int | None:
    value = (stats or {}).get(name)
    return value if isinstance(value, int) else None


def _loop_size(loop: str) -> int | None:
    try:
        return int((Path("/sys/block") / Path(loop).name / "size").read_text()) * 512
    except (OSError, ValueError):
        return None


_NUMBERS = ("SIZE", "DATA", "COMPR", "USED", "BACKING", "ZERO", "RATIO")
_HEADINGS = ("NAME", *_NUMBERS, "SWAP", "LOOP", "MOUNT")


def _print_table(found: list[Status]) -> None:
    if not found:
        click.echo("no vswap device is here; `vswap up` makes one", err=True)
        return
    for line in table(_HEADINGS, [_row(each) for each in found], right=_NUMBERS):
        click.echo(line)
    for each in found:
        if each.error:
            click.echo(f"vswap: {each.error}", err=True)


def _row(of: Status) -> list[str]:
    stats = of.stats
    data, compressed = _integer(stats, "orig_data_size"), _integer(stats, "compr_data_size")
    zero = _integer(stats, "zero_pages")
    backed = (stats or {}).get("backing_state", "none") != "none"
    on_disk = _integer(stats, "backing_data_size") if backed else None
    kept = (compressed or 0) + (on_disk or 0)
    return [
        of.name,
        human(of.size),
        human(data),
        human(compressed),
        human(_integer(stats, "mem_used_total")),
        human(on_disk),
        human(None if zero is None else zero * PAGE_SIZE),
        f"{data / kept:.2f}" if data and kept else "-",
        "on" if of.swap else "off",
        of.loop or "-",
        of.mount,
    ]
