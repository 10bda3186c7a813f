"""`vswap top`: the devices, live."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vswap.errors import UserError
from vswapd.cli.complete import device_names
from vswapd.cli.interrupt import StoppedError, interrupts
from vswapd.mounts import Device, find_device

if TYPE_CHECKING:
    from vswapd.samples import Look, Watcher

__all__ = ["top"]

_SHORTEST, _LONGEST = 0.1, 3600.0
_END_SECONDS = 0.2
_QUIT = b"qQ"


@click.command(
    epilog="""\b
Examples:
  vswap top                            all devices, every second; q quits
  vswap top swap0 --interval 5
  vswap top --once                     one picture, as text
  vswap top --once --interval 10 >now.txt
""",
)
@click.argument("device", required=False, shell_complete=device_names)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=float,
    default=1.0,
    show_default=True,
    help="Time between two looks.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print one picture as text and end: with rates, so after one interval. Also what is done "
    "when stdout is no terminal, or one that can do nothing.",
)
@click.pass_context
def top(context: click.Context, device: str | None, interval: float, once: bool) -> None:
    """Watch what the devices hold and do.

    DEVICE, a name or a mount point, selects one. q quits.

    Shown are pages in memory, of one word again and again, and on disk; what the device takes of
    its memory limit; how much is swapped in and out; the median and the 99th percentile of how long
    requests took in the last interval (of all since the worker's start in the first picture, and
    with --once); what is cleaned, recompressed, written to the disk and read from it. With --once,
    exit code 1 means that a daemon does not answer.
    """
    if not _SHORTEST <= interval <= _LONGEST:
        raise UserError(f"--interval is {_SHORTEST:g} to {_LONGEST:g} seconds, not {interval:g}")
    chosen = None if device is None else find_device(device)
    if once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        context.exit(_print(chosen, interval))
    _watch(chosen, interval)


def _is_plain() -> bool:
    return not (sys.stdout.encoding or "").lower().startswith("utf")


def _print(chosen: Device | None, interval: float) -> int:
    """The exit code."""
    from vswapd.cli.topview import Frame, lines  # noqa: PLC0415  # rich is only imported here
    from vswapd.samples import Watcher  # noqa: PLC0415

    watcher = Watcher(chosen)
    with interrupts(last=False):
        try:
            if watcher.look().samples:
                time.sleep(interval)
            look = watcher.look()
        except KeyboardInterrupt:
            raise StoppedError("interrupted") from None
    if not look.samples:
        click.echo(look.problem, err=True)
        return 0
    for line in lines(look, Frame(plain=_is_plain(), overall=True), _title(interval)):
        click.echo(line.plain.rstrip())
    return int(any(each.error for each in look.samples))


def _title(interval: float) -> str:
    return f"every {interval:g} s, {time.strftime('%H:%M:%S')}"


class _Looking(threading.Thread):
    """Looks at the devices, so that who draws never waits for one of them."""

    def __init__(
        self, watcher: Watcher, first: Look, interval: float, tell: Callable[[], None]
    ) -> None:
        super().__init__(daemon=True)
        self.latest = first
        self.fault: str | None = None
        self._watcher = watcher
        self._interval = interval
        self._tell = tell
        self._telling = threading.Lock()
        self._ended = threading.Event()

    def run(self) -> None:
        """Until it is told to `end`, or cannot go on: then `fault` says why."""
        try:
            self._look_again_and_again()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            self._wake()

    def _look_again_and_again(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(max(0.0, began - time.monotonic())):
            began = max(time.monotonic(), began) + self._interval
            self.latest = self._watcher.look()
            self._wake()

    def _wake(self) -> None:
        with self._telling:
            if not self._ended.is_set():
                self._tell()

    def end(self) -> None:
        """Tell nothing from now on, and wait for a moment: one look may wait for a daemon."""
        with self._telling:
            self._ended.set()
        self.join(_END_SECONDS)


def _watch(chosen: Device | None, interval: float) -> None:
    """Until q or a signal. Raises `StoppedError`, and `UserError` if nobody looks any more."""
    from vswapd.cli.screen import ending, screen  # noqa: PLC0415
    from vswapd.cli.topview import Frame, lines  # noqa: PLC0415
    from vswapd.samples import Look, Watcher  # noqa: PLC0415

    with screen() as terminal:
        looking = _Looking(Watcher(chosen), Look(problem="looking"), interval, terminal.wake)
        try:
            looking.start()
        except RuntimeError as error:
            raise UserError(f"the devices cannot be looked at: {error}") from None
        try:
            while looking.fault is None:
                frame = Frame(*terminal.size, plain=_is_plain())
                terminal.show(lines(looking.latest, frame, f"{_title(interval)}, q quits"))
                keys, signals = terminal.wait()
                if not set(keys).isdisjoint(_QUIT):
                    return
                if ending(signals):
                    raise StoppedError("interrupted")
            raise UserError(f"the devices cannot be looked at any more: {looking.fault}")
        finally:
            looking.end()
