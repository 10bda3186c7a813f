"""`vswap report`: a device's history as one page for a browser."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.completers import files
from vswapd.cli.interrupt import StoppedError, interrupts
from vswapd.mounts import Device, find_device, read_file
from vswapd.paths import unusable

__all__ = ["parse_period", "report"]

_DEFAULT = "vswap-report.html"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PERIOD = re.compile(r"([0-9]{1,9})([smhd])")


@click.command(
    epilog="""\b
Examples:
  vswap report                         of the only device, to vswap-report.html
  vswap report swap0 --since 2h -o today.html
  vswap report --since 3d -o - | gzip >week.html.gz
""",
)
@click.argument("device", required=False, shell_complete=device_names)
@click.option(
    "--since",
    metavar="PERIOD",
    help="Only so long ago and later: 30m, 2h, 3d. [default: all there is, a week at most]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=_DEFAULT,
    show_default=True,
    help="Where to write the page; - is stdout.",
    shell_complete=files,
)
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
def report(device: str | None, since: str | None, output: str, force: bool) -> None:
    """Write a device's history as one HTML page, with pictures and tables.

    The page needs nothing but itself. The daemon keeps a sample every 10 seconds for an hour, and
    every 5 minutes for a week, and goes on when its worker is replaced, which the page tells of.
    """
    period = None if since is None else parse_period(since)
    if not output:
        raise UserError("--output '' is no file; name one, or leave it out")
    path = None if output == "-" else Path(output)
    if path is not None and not force:
        _check_new(path)
    with interrupts():
        try:
            html = _page(find_device(device), period)
            _write(path, html, force)
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None


def parse_period(text: str) -> int:
    """Seconds in `30m`, `2h` or `3d`. Raises `UserError`."""
    match = _PERIOD.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise UserError(f"--since {text[:40]!r} is no period; write it like 30m, 2h or 3d")
    return int(match[1]) * _SECONDS[match[2]]


def _page(device: Device, period: int | None) -> str:
    from vswapd.cli.report_page import page  # noqa: PLC0415  # as few commands need it
    from vswapd.records import parse_timeline  # noqa: PLC0415

    timeline = parse_timeline(read_file(device, "history.json"), device.name)
    now = time.time()
    if not timeline.points:
        raise UserError(
            f"{device.name} has no history yet: it has just begun; try in a few seconds"
        )
    if period is not None:
        timeline = timeline.since(now - period)
    if not timeline.points:
        raise UserError(f"{device.name} has no history of that time; say more, or no --since")
    return page(timeline, now)


def _check_new(path: Path) -> None:
    try:
        there = path.exists() or path.is_symlink()
    except OSError as error:
        raise unusable(path, error.strerror) from None
    if there:
        raise UserError(f"{path} exists; --force overwrites it, and -o FILE names another")


def _write(path: Path | None, html: str, force: bool) -> None:
    """Write the page, and say where it is; one that cannot be written to its end leaves nothing."""
    if path is None:
        click.echo(html.encode(), nl=False)
        return
    try:
        if force and path.exists() and not path.is_file():  # a pipe, say
            path.write_text(html, encoding="utf-8")
        elif force:
            _replace(path.resolve(), html)
        else:
            _write_new(path, html)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    click.echo(click.format_filename(path))


def _replace(path: Path, html: str) -> None:
    """Put the page in the place of what is there, which stays until the page is whole."""
    beside = path.with_name(f".vswap-report-{os.getpid()}")
    _write_new(beside, html)
    try:
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    except BaseException:
        beside.unlink()
        raise


def _write_new(path: Path, html: str) -> None:
    file = path.open("x", encoding="utf-8")
    try:
        with file:
            file.write(html)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
