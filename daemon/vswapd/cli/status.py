"""`vswap status`: what devices there are, and what their daemons say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from vswap.errors import UserError
from vswapd.cli.columns import ALL, DEFAULT, Column, Style, columns, described, raw
from vswapd.cli.complete import device_names
from vswapd.cli.completers import list_of
from vswapd.cli.text import table
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

    def number(self, name: str) -> int | None:
        """A number that the daemon says; None if it does not."""
        return _integer(self.stats, name)


class _Command(click.Command):
    """Lists the columns in its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In the place of an epilog."""
        with formatter.section("Columns"):
            formatter.write_dl(described())
        with formatter.section("Examples"):
            formatter.write_dl(_EXAMPLES, col_max=40)


_EXAMPLES = (
    ("vswap status", "what each device holds, and in how much memory"),
    ("vswap status -o NAME,TOTAL,LIMIT", "these columns only"),
    ("vswap status -bnro SIZE,DATA swap0", "for a script: bytes, no headings, one blank between"),
    ("vswap status --json", "all that the daemons say"),
)


@click.command(cls=_Command)
@click.argument("device", required=False, shell_complete=device_names)
@click.option(
    "-o",
    "--output",
    metavar="COLUMNS",
    help="The columns to print: NAME,SIZE,...",
    shell_complete=list_of(dict(described())),
)
@click.option("--output-all", is_flag=True, help="Print all columns.")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Print bytes, and seconds, in full.")
@click.option("-n", "--noheadings", is_flag=True, help="Print no headings.")
@click.option("-r", "--raw", "as_raw", is_flag=True, help="Do not align; write blanks as \\x20.")
@click.option("--json", "as_json", is_flag=True, help="Print all there is, as JSON.")
@click.pass_context
def status(
    context: click.Context,
    device: str | None,
    output: str | None,
    output_all: bool,
    exact: bool,
    noheadings: bool,
    as_raw: bool,
    as_json: bool,
) -> None:
    """Show the devices and what they hold.

    DEVICE, a name or a mount point, selects one. What is not known, or not there, is a dash.
    Exit code 1 means that the daemon of one does not answer.
    """
    form = {
        "--output": output is not None,
        "--output-all": output_all,
        "--bytes": exact,
        "--noheadings": noheadings,
        "--raw": as_raw,
    }
    _check_form([option for option, given in form.items() if given], as_json)
    wanted = ALL if output_all else DEFAULT if output is None else columns(output)
    chosen = devices() if device is None else [find_device(device)]
    found = [status_of(each) for each in chosen]
    if as_json:
        click.echo(json.dumps({"devices": [each.to_json() for each in found]}, indent=2))
    else:
        _print(_lines(found, wanted, Style(exact), headings=not noheadings, as_raw=as_raw), found)
    if any(each.error for each in found):
        context.exit(1)


def _check_form(given: Sequence[str], as_json: bool) -> None:
    """Raise `UserError` for options that say nothing together."""
    if as_json and given:
        raise UserError(f"{given[0]} says nothing with --json, which prints all there is")
    if {"--output", "--output-all"} <= set(given):
        raise UserError("--output and --output-all say different things; give one of them")


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


def _lines(
    found: Sequence[Status], wanted: Sequence[Column], style: Style, *, headings: bool, as_raw: bool
) -> Iterator[str]:
    """The table, a line for each device, below the headings if they are wanted."""
    rows = [[column.cell(each, style) for column in wanted] for each in found]
    names = [column.name for column in wanted]
    if as_raw:
        for row in [names] * headings + rows:
            yield " ".join(map(raw, row))
    else:
        right = [column.name for column in wanted if column.right]
        yield from islice(table(names, rows, right), int(not headings), None)


def _print(lines: Iterable[str], found: Sequence[Status]) -> None:
    if not found:
        click.echo("no vswap device is here; `vswap up` makes one", err=True)
        return
    for line in lines:
        click.echo(line)
    for each in found:
        if each.error:
            click.echo(f"vswap: {each.error}", err=True)
