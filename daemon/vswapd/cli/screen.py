"""A terminal as a screen: keys one by one, signals as events, and all as it was in the end."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vswapd.cli.interrupt import StoppedError

__all__ = ["Screen", "ending", "screen"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_VSUSP_OFF = b"\0"


class Screen:
    """The terminal that stdout is, while `screen` lasts."""

    def __init__(
        self, live: Live, console: Console, wake: tuple[int, int], keys: int | None
    ) -> None:
        """`wake` is a pipe that signals, and other threads, write to; `keys` a terminal."""
        self._live = live
        self._console = console
        self._woken, self._wake = wake
        self._keys = keys

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self._console.size

    def show(self, lines: Sequence[Text]) -> None:
        """Instead of what was shown before."""
        self._live.update(Group(*lines), refresh=True)

    def wake(self) -> None:
        """Have `wait` return; from any thread."""
        with suppress(BlockingIOError):  # it has more than enough reasons to
            os.write(self._wake, b"\0")

    def wait(self) -> tuple[bytes, set[int]]:
        """Wait for keys, signals or `wake`: the keys that were pressed, the signals that came.

        Raises `OSError` (EIO) when the terminal goes away.
        """
        watched = [self._woken] + ([] if self._keys is None else [self._keys])
        ready, _, _ = select.select(watched, [], [])
        signals = set(os.read(self._woken, 1024)) - {0} if self._woken in ready else set[int]()
        return self._pressed() if self._keys in ready else b"", signals

    def _pressed(self) -> bytes:
        assert self._keys is not None
        keys = os.read(self._keys, 1024)
        if not keys:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return keys


def ending(signals: set[int]) -> bool:
    """Whether one of these asks for the end."""
    return not signals.isdisjoint(_ENDING)


@contextmanager
def screen() -> Iterator[Screen]:
    """The alternate screen, without a cursor; in the end the terminal is what it was before.

    Signals interrupt nothing in the block: `Screen.wait` tells of them. Afterwards those that end
    a command are ignored, as by `vswapd.cli.interrupt.interrupts`. Raises `StoppedError` when the
    terminal goes away.
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    try:
        try:
            with _opened() as found:
                yield found
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        for fd in terminals:  # what is still to be said, nobody can hear
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        raise StoppedError("the terminal is gone") from None


@contextmanager
def _opened() -> Iterator[Screen]:
    console = Console(highlight=False, force_terminal=True)  # also when it has just gone away
    with ExitStack() as undo:
        wake = os.pipe()
        for fd in wake:
            undo.callback(os.close, fd)
            os.set_blocking(fd, False)
        undo.enter_context(_signals_to(wake[1]))
        keys = undo.enter_context(_key_by_key())
        live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        undo.enter_context(live)
        yield Screen(live, console, wake, keys)


@contextmanager
def _signals_to(fd: int) -> Iterator[None]:
    heeded = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    for each in (*heeded, signal.SIGWINCH):
        signal.signal(each, _noted)
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.set_wakeup_fd(before)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe."""


@contextmanager
def _key_by_key() -> Iterator[int | None]:
    """The descriptor that keys come from; None if stdin is no terminal.

    Ctrl-Z is a key as all others: the shell would get a terminal that is still a screen.
    """
    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    if keys is None:
        yield None
        return
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        now = termios.tcgetattr(keys)
        now[6][termios.VSUSP] = _VSUSP_OFF
        termios.tcsetattr(keys, termios.TCSANOW, now)
        yield keys
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
