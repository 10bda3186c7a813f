"""Threads that end, and whose failures are the test's; and a look at what they call."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["StuckError", "before_each", "hurried", "run_threads"]


class StuckError(AssertionError):
    """Threads that did not end in time. Where each stood is on stderr."""


def run_threads(bodies: Sequence[Callable[[], object]], timeout: float = 60) -> None:
    """Run each body in a thread of its own, all at once; back when all have ended.

    Raises what they raised, as an `ExceptionGroup`, or `StuckError` after `timeout` seconds.
    """
    start = threading.Barrier(len(bodies))
    failures: list[Exception] = []

    def run(body: Callable[[], object]) -> None:
        start.wait()
        try:
            body()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    if stuck := sum(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback()
        raise StuckError(f"{stuck} of {len(threads)} threads did not end in {timeout} s")
    if failures:
        raise ExceptionGroup("in threads", failures)


@contextmanager
def hurried() -> Iterator[None]:
    """Let Python change threads as often as it can, so that more interleavings happen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def before_each(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, check: Callable[..., Any]
) -> None:
    """Call `check` with the arguments, self left out, before each call of a method."""
    method: Callable[..., Any] = getattr(owner, name)

    def checked(self: object, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        check(*args)
        return method(self, *args, **named)

    monkeypatch.setattr(owner, name, checked)
