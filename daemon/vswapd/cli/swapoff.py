"""Taking back what is swapped out, with progress, so that it can be stopped at any time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import NoReturn

import click

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE
from vswapd.cli.ahead import reading_ahead, worthwhile
from vswapd.cli.cgroups import groups, tightest
from vswapd.cli.interrupt import Interrupts, StoppedError
from vswapd.cli.status import read_stats, serving
from vswapd.figures import human
from vswapd.mounts import Device
from vswapd.swapdev import (
    SwapArea,
    room_for_swapoff,
    start_swapoff,
    still_out,
    swap_area,
    swap_areas,
)

__all__ = ["Progress", "swap_off"]

_POLL_SECONDS = 0.2
# swapoff looks for a signal only between two processes, and one can take minutes to bring
# back. So what is waited for is an end, or no progress for this long.
_IDLE_SECONDS = 10.0
# What swapoff says of an area of which somebody else's swapoff is in the middle (at shutdown
# systemd's, that begins with ours): then that one is waited for, or followed if it gives up.
_ANOTHER = b"Invalid argument"
_WAIT_SECONDS = 0.5
_ROOM_SECONDS = 5.0
_OTHERS_IDLE_SECONDS = 60.0
_STILL_ON = "interrupted; swap is still on, nothing was lost"


def swap_off(device: Device, area: SwapArea, signals: Interrupts) -> None:
    """Disable swap on `area`, which is the device's.

    Raises `UserError` when memory does not suffice or swapoff fails, and `StoppedError`; the
    area is enabled then, and what is on it is still there.
    """
    _check_room(device, area)
    process, said = None, b""
    with _meter(device, area) as show:
        try:
            with _helped(device, area, signals) as leads:
                while not leads(_POLL_SECONDS):
                    show()
                for _ in _attempts(area):
                    with signals.held():
                        process = start_swapoff(area.path)
                    while not _ended(process, _POLL_SECONDS):
                        show()
                    _, said = process.communicate()
                    if _ANOTHER not in said:
                        break
        except KeyboardInterrupt:
            if process is None:
                raise StoppedError(_STILL_ON) from None
            _stop(process, device, area, show)
    if process and process.returncode and swap_area(area.path):  # else another was first
        reason = said.decode(errors="replace").strip().splitlines()
        why = reason[-1] if reason else f"exit code {process.returncode}"
        raise UserError(f"swap is still on: {why}")


def _attempts(area: SwapArea) -> Iterator[None]:
    """One, and others for as long as the area is there and somebody else's swapoff gets on.

    Waits before all but the first.
    """
    now, used, idle = swap_area(area.path), area.used, 0.0
    for attempt in count():
        if now is None or idle >= _OTHERS_IDLE_SECONDS:
            return
        yield
        if attempt == 0:
            click.echo(f"another swapoff of {area.path} is at work; waiting for it", err=True)
        time.sleep(_WAIT_SECONDS)
        now = swap_area(area.path)
        if now is not None:
            idle = idle + _WAIT_SECONDS if now.used >= used else 0.0
            used = now.used


@contextmanager
def _helped(
    device: Device, area: SwapArea, signals: Interrupts
) -> Iterator[Callable[[float], bool]]:
    """Read ahead in the block, if that is worth it and there is somebody to read from.

    The block gets what says whether it is swapoff's turn, and waits for that so many seconds.
    """
    with ExitStack() as stack:
        leads: Callable[[float], bool] = _at_once
        with suppress(UserError, OSError):  # then swapoff does without
            if worthwhile(area):
                apart = serving(device)
                with signals.held():
                    leads = stack.enter_context(reading_ahead(apart)).leads
        yield leads


def _at_once(_seconds: float) -> bool:
    """It is swapoff's turn: nothing is read ahead."""
    return True


def _check_room(device: Device, area: SwapArea) -> None:
    """Raise `UserError` if somebody would be killed for the memory.

    What processes had that have just ended comes back when the kernel has discarded it.
    """
    deadline = time.monotonic() + _ROOM_SECONDS
    while missing := room_for_swapoff(swap_area(area.path) or area):
        if time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        raise UserError(
            f"not enough memory to take back the {human(area.used)} on {device.name}: "
            f"{human(missing)} more is needed; stop something or add other swap, then try again"
        )
    elsewhere = sum(other.size for other in swap_areas() if other.path != area.path)
    tight = tightest(groups(), elsewhere)
    if tight:
        raise UserError(
            f"the memory limit of cgroup {tight.path} is {human(tight.missing(elsewhere))} too low "
            f"to take back what it has on {device.name}, and processes in it would be killed; "
            "raise the limit or stop some, then try again"
        )


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(
    process: subprocess.Popen[bytes], device: Device, area: SwapArea, show: Callable[[], None]
) -> NoReturn:
    """Interrupt swapoff, wait until it heeds that, and say what came of it."""
    process.send_signal(signal.SIGINT)
    click.echo("stopping when the process that is being brought back is whole", err=True)
    used, idle = area.used, 0.0
    while not _ended(process, _POLL_SECONDS):
        show()
        now = swap_area(area.path)
        idle = idle + _POLL_SECONDS if now and now.used >= used else 0.0
        used = now.used if now else 0
        if idle > _IDLE_SECONDS:
            raise StoppedError(
                f"interrupted; swapoff of {area.path} hangs, swap is on until it ends"
            )
    process.communicate()
    if swap_area(area.path):
        raise StoppedError(_STILL_ON)
    raise StoppedError(f"interrupted; swap is off by now, `vswap down {device.name}` does the rest")


class Progress:
    """How much of `used` bytes is back: by the kernel's count or the daemon's, whichever leads.

    The daemon is asked only as long as it answers; what it does not say, the kernel does.
    """

    def __init__(self, device: Device, used: int) -> None:
        """Nothing is back yet."""
        self._device = device
        self._used = used
        self._pages_at_start = self._pages()
        self.back = 0

    def update(self, used: int) -> int:
        """The bytes that are back, never less than before; `used` is the kernel's count."""
        back = max(self.back, self._used - used)
        if self._pages_at_start:
            pages = self._pages()
            if pages is None:
                self._pages_at_start = None
            else:
                back = max(back, (self._pages_at_start - pages) * PAGE_SIZE)
        self.back = min(back, self._used)
        return self.back

    def _pages(self) -> int | None:
        """The pages that the daemon holds."""
        try:
            stats = read_stats(self._device)
        except UserError:
            return None
        counts = [stats.get(name) for name in ("stored_pages", "backing_pages", "zero_pages")]
        return sum(count for count in counts if isinstance(count, int))


@contextmanager
def _meter(device: Device, area: SwapArea) -> Iterator[Callable[[], None]]:
    """Tell about progress on stderr: a bar on a terminal, else a line before and after."""
    if not sys.stderr.isatty():
        click.echo(f"swapoff of {area.path}: {human(area.used)} to take back", err=True)
        yield lambda: None
        if not swap_area(area.path):
            click.echo(f"swapoff of {area.path}: done", err=True)
        return
    from vswapd.cli.bar import bar  # noqa: PLC0415  # it takes longer than most commands do

    progress = Progress(device, area.used)
    with bar(f"swapoff {area.path}", area.used) as draw:

        def show() -> None:
            now = swap_area(area.path)
            draw(progress.update(still_out(now) if now else 0))

        show()
        yield show
