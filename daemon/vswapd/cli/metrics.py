"""`vswap metrics`: what Prometheus wants to know, printed or served."""

from __future__ import annotations

import sys

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.interrupt import StoppedError, interrupts
from vswapd.mounts import find_device

__all__ = ["metrics"]


@click.command(
    epilog="""\b
Examples:
  vswap metrics                                 all devices' metrics, on stdout
  vswap metrics swap0
  vswap metrics --listen 127.0.0.1:18792        for a Prometheus on this machine
  vswap metrics --listen unix:/run/vswap/metrics.sock
  curl --unix-socket /run/vswap/metrics.sock http://localhost/metrics
""",
)
@click.argument("device", required=False, shell_complete=device_names)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Serve GET /metrics over HTTP, in the foreground, for all devices that there are at the "
    "time: at HOST:PORT or unix:/PATH.",
)
@click.option(
    "--public", is_flag=True, help="Listen where other machines can reach it, if that was said."
)
@click.pass_context
def metrics(context: click.Context, device: str | None, listen: str | None, public: bool) -> None:
    """Show the devices' metrics in Prometheus' text format, or serve them.

    DEVICE, a name or a mount point, selects one. A device whose daemon does not answer within
    three seconds has a vswap_up of 0; exit code 1 means that there is one.
    """
    if listen is None:
        if public:
            raise UserError("--public is nothing without --listen ADDRESS")
        context.exit(_print(device))
    if device is not None:
        raise UserError("--listen serves all devices; leave DEVICE out")
    _serve(listen, public)


def _print(device: str | None) -> int:
    """The exit code."""
    from vswapd.exposition import merged  # noqa: PLC0415  # as few commands need it
    from vswapd.scraper import Scraper  # noqa: PLC0415

    answers = Scraper().ask(None if device is None else [find_device(device)])
    if not answers:
        click.echo("no vswap device is here; `vswap up` makes one", err=True)
    click.echo(merged(answers), nl=False)
    failed = [each.error for each in answers if each.error]
    for error in failed:
        click.echo(f"vswap: {error}", err=True)
    return int(bool(failed))


def _serve(listen: str, public: bool) -> None:
    """Until a signal comes. Raises `UserError`, `NotYetError`, `StoppedError`."""
    from vswapd.address import parse_address  # noqa: PLC0415
    from vswapd.exposition import merged  # noqa: PLC0415
    from vswapd.listener import cached, listening  # noqa: PLC0415
    from vswapd.scraper import Scraper  # noqa: PLC0415

    address = parse_address(listen)
    if address.is_public and not public:
        raise UserError(f"{address} can be reached from other machines; if they may, say --public")
    scraper = Scraper()
    with interrupts():
        try:
            with listening(address, cached(lambda: merged(scraper.ask()))) as listener:
                sys.stderr.write(f"vswap: {listener.place} has the metrics\n")
                sys.stderr.flush()
                listener.serve_forever()
        except KeyboardInterrupt:
            raise StoppedError(f"interrupted; nothing listens at {address} any more") from None
