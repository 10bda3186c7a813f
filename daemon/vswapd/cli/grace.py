"""More time from systemd, as long as something takes that has no limit (sd_notify(3)).

A unit's time for stopping is short then, which is how long a command that hangs, or a daemon that
may not end, can delay a shutdown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["asking_for_time"]

_EVERY_SECONDS = 5.0
_MORE_SECONDS = 30


@contextmanager
def asking_for_time() -> Iterator[None]:
    """Ask for more time, again and again, while the block runs; if a unit's time runs."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        yield
        return
    from vswapd.sdnotify import Keeper  # noqa: PLC0415  # most commands need none

    keeper, done = Keeper(address), threading.Event()
    line = f"EXTEND_TIMEOUT_USEC={_MORE_SECONDS * 1_000_000}"

    def ask() -> None:
        keeper.tell(line, wait=False)
        while not done.wait(_EVERY_SECONDS):
            keeper.tell(line, wait=False)

    asking = threading.Thread(target=ask, name="vswap-grace", daemon=True)
    asking.start()
    try:
        yield
    finally:
        done.set()
        asking.join()
