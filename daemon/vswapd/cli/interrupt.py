"""Ctrl-C, SIGTERM and SIGHUP, and the undoing of what a command has done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec

import click

from vswap.errors import VswapError

__all__ = ["Interrupts", "StoppedError", "Undo", "interrupts"]

_P = ParamSpec("_P")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(VswapError):
    """A person stopped the command. Says in one line how things stand now."""


class Interrupts:
    """The first signal raises `KeyboardInterrupt`; more of them are ignored.

    So what is undone because of the first is not torn apart by an impatient second one.
    """

    def __init__(self) -> None:
        """No signal has come yet."""
        self._over = False
        self._held = False
        self._pending = False

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The handler."""
        if self._over:
            return
        self._over = True
        self._pending = self._held
        if not self._held:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From now on not even a first signal counts."""
        self._over = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block run to its end, then raise `KeyboardInterrupt` if a signal came.

        For a step and the noting of how it is undone, which belong together: an exception
        between the two would leave something behind. Only for what ends by itself, and soon.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt


@contextmanager
def interrupts(*, last: bool = True) -> Iterator[Interrupts]:
    """Handle signals so in the block, which is the last that the process does.

    After it they are ignored: all that is left is to say how it went, and a signal would
    make the exit code say something else. One that was ignored before stays so (nohup).
    If the block is not the `last` and ends well, they do what they did before.
    """
    state = Interrupts()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, state.on_signal)
    after: dict[signal.Signals, Any] = dict.fromkeys(heeded, signal.SIG_IGN)
    try:
        yield state
        if not last:
            after = before
    finally:
        for number in heeded:
            signal.signal(number, after[number])


class Undo:
    """What has to be undone, newest first, unless all goes well and it is to be `keep`-t.

    A context manager. An undoing that fails is told on stderr, and the others are done
    still; `complete` says whether there was none such.
    """

    def __init__(self, signals: Interrupts) -> None:
        """While it undoes, it holds `signals`."""
        self._signals = signals
        self._steps: list[Callable[[], None]] = []
        self.kept = False
        self.complete = True

    def later(self, undo: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Undo a step by this call. Safe to note before the step, if it looks what is there."""
        self._steps.append(lambda: undo(*args, **kwargs))

    def keep(self) -> None:
        """All went well: nothing is undone, and it is too late for an interruption."""
        self.kept = True
        self._signals.ignore()

    def __enter__(self) -> Undo:
        """Steps may follow."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Undo, unless told to keep."""
        try:
            self._undo()
        except KeyboardInterrupt:  # the first signal came before it was held; there is no other
            self._undo()
            raise

    def _undo(self) -> None:
        if not self.kept:
            with self._signals.held():
                while self._steps:
                    self._attempt(self._steps.pop())

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (VswapError, OSError) as error:
            self.complete = False
            click.echo(f"vswap: left behind, for {error}", err=True)
