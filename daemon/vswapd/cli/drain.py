"""Taking a backing away, with progress, so that it can be stopped at any time.

The daemon does it in the background; here it is begun, watched, and stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from vswap.errors import UserError
from vswapd.cli.interrupt import StoppedError
from vswapd.cli.status import read_stats
from vswapd.mounts import Device
from vswapd.tell import write_ctl

__all__ = ["take_away"]

_POLL_SECONDS = 0.2
_GOES_ON = "`vswap backing detach` goes on"


@dataclass(frozen=True)
class _Look:
    """What the daemon says of its backing (`vswap.store.stats.BackingStatistics`)."""

    path: str
    state: str
    result: str
    pages: int

    @property
    def over(self) -> bool:
        """Whether the detaching has ended, and how is known."""
        return self.state == "none" or (self.state != "detaching" and bool(self.result))


def _look(device: Device) -> _Look:
    stats = read_stats(device)
    return _Look(
        str(stats.get("backing", "")),
        str(stats.get("backing_state", "none")),
        str(stats.get("detach_result", "")),
        int(stats.get("backing_pages", 0)),
    )


def take_away(device: Device) -> str:
    """Have the device's backing detached, and wait until it is; the path that it had.

    One that is being detached already is waited for. Raises `UserError` if there is none, if the
    daemon does not do it, or has stopped: then what is left is readable where it is. On an
    interruption it is stopped, and `StoppedError` tells what is left.
    """
    before = _look(device)
    if before.state == "none":
        raise UserError(f"no backing is attached to {device.name}")
    try:
        if before.state != "detaching":
            write_ctl(device, "backing detach", lambda: _look(device))
        last = _watch(device, before)
    except KeyboardInterrupt:
        raise _stop(device, before.path) from None
    if last.state != "none" and last.result != "detached":
        readable = "" if last.result == "unreadable" else ", and readable"
        raise UserError(f"{_left(last)}{readable}: {_REASONS[last.result]}")
    return before.path


def _watch(device: Device, before: _Look) -> _Look:
    """Show the progress until it has ended; how it has."""
    with _meter(before) as show:
        while not (now := _look(device)).over:
            show(now.pages)
            time.sleep(_POLL_SECONDS)
    return now


def _stop(device: Device, path: str) -> StoppedError:
    """Have the daemon stop, and say what came of it. Raises `UserError` if it does not answer."""
    write_ctl(device, "backing stop", lambda: _look(device))
    now = _look(device)
    if now.state == "none":
        return StoppedError(f"interrupted, but {path} was detached by then")
    return StoppedError(f"stopped; {_left(now)}, and readable; {_GOES_ON}")


def _left(now: _Look) -> str:
    return f"{'1 page is' if now.pages == 1 else f'{now.pages} pages are'} still on {now.path}"


_REASONS = {
    "memory": "memory is too short to go on; raise the limit (`vswap ctl memory_limit SIZE`) or "
    f"free some, then {_GOES_ON}",
    "unreadable": "the disk does not give back what was written; the kernel's log may tell why, "
    "and `vswap backing detach` tries again",
    "stopped": f"somebody has stopped it; {_GOES_ON}",
}
"""By `detach_result`, which is the engine's word for how it ended."""


@contextmanager
def _meter(before: _Look) -> Iterator[Callable[[int], None]]:
    """Takes the pages left, and tells on stderr: a bar on a terminal, else a line before."""
    if not sys.stderr.isatty():
        click.echo(f"detaching {before.path}: {before.pages} pages to bring back", err=True)
        yield lambda _left: None
        return
    from vswapd.cli.bar import page_bar  # noqa: PLC0415  # it takes longer than most commands do

    with page_bar(f"detaching {before.path}", before.pages) as draw:
        yield lambda left: draw(max(0, before.pages - left))
