"""`vswap ctl`: a command for a running daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from click.shell_completion import CompletionItem

from vswapd.cli.complete import device_names
from vswapd.cli.completers import beginning, files
from vswapd.cli.interrupt import StoppedError, interrupts
from vswapd.cli.status import Stats, read_stats
from vswapd.figures import human
from vswapd.mounts import Device, find_device
from vswapd.tell import FindingsError, write_ctl
from vswapd.usage import COMMANDS, choices, usage

__all__ = ["ctl"]


class _Command(click.Command):
    """Lists what the daemon can be told in its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In the place of an epilog."""
        with formatter.section("Commands"):
            formatter.write_dl(list(usage()), col_max=24)
        with formatter.section("Examples"):
            formatter.width = 100
            for line in _EXAMPLES:
                formatter.write_text(line)


_EXAMPLES = (
    "vswap ctl memory_limit 512M",
    "vswap ctl recompress type=idle max_pages=10000",
    "vswap ctl check && echo sound",
)


def _words(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What may come next: a command, the first word behind it, or a file."""
    match context.params.get("command") or ():
        case ():
            return beginning(incomplete, {name: about for name, (_, about) in COMMANDS.items()})
        case (command,):
            return beginning(incomplete, dict.fromkeys(choices(command), ""))
        case ("backing", "attach"):
            return files(context, parameter, incomplete)
    return []


@click.command(cls=_Command)
@click.argument("command", nargs=-1, required=True, shell_complete=_words)
@click.option(
    "--device",
    metavar="DEVICE",
    help="Name or mount point; needed if there are more.",
    shell_complete=device_names,
)
@click.pass_context
def ctl(context: click.Context, command: tuple[str, ...], device: str | None) -> None:
    """Give the daemon a COMMAND and print its result.

    Waits as long as that takes. Ctrl-C leaves at once, and the daemon goes on with it. Exit code 1
    means that a check has found something, which is printed.
    """
    chosen = find_device(device)
    with interrupts():
        try:
            with _meter(chosen, command[0]) as alive:
                result = write_ctl(chosen, " ".join(command), alive)
        except FindingsError as findings:
            click.echo(str(findings))
            context.exit(1)
        except KeyboardInterrupt:
            raise StoppedError(f"interrupted; the daemon goes on with {command[0]}") from None
    if result:
        click.echo(result)


@contextmanager
def _meter(device: Device, command: str) -> Iterator[Callable[[], None]]:
    """What to call now and then while the daemon works; raises `UserError` if it does not answer.

    On a terminal it shows how far a command is that may take long.
    """
    if command not in _PROGRESS or not sys.stderr.isatty():
        yield lambda: _look(device)
        return
    from vswapd.cli.bar import ticker  # noqa: PLC0415  # it takes longer than most commands do

    before = read_stats(device)
    with ticker(command) as draw:
        yield lambda: draw(_PROGRESS[command](before, read_stats(device)))


def _look(device: Device) -> None:
    read_stats(device)


def _since(name: str, before: Stats, now: Stats) -> int:
    return int(now.get(name, 0)) - int(before.get(name, 0))


def _compacted(before: Stats, now: Stats) -> str:
    return f"{_since('segments_cleaned', before, now)} segments cleaned"


def _recompressed(before: Stats, now: Stats) -> str:
    saved = -_since("compr_data_size", before, now)
    return f"{_since('pages_recompressed', before, now)} pages, {human(max(0, saved))} smaller"


def _written_back(before: Stats, now: Stats) -> str:
    written = _since("writeback_bytes", before, now)
    return f"{_since('writeback_pages', before, now)} pages, {human(written)} written"


_PROGRESS: dict[str, Callable[[Stats, Stats], str]] = {
    "compact": _compacted,
    "recompress": _recompressed,
    "writeback": _written_back,
    "check": lambda _before, _now: "reading all that is stored",
}
