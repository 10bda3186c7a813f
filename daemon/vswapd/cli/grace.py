"""More time from systemd, as long as something gets on that has no limit (sd_notify(3)).

A unit's time is short, which is how long a command that hangs can delay a boot or a shutdown. So
what does not get on is given no more of it: two minutes are enough for whatever is waited for
meanwhile, such as memory or another swapoff, and then the unit's own time runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

__all__ = ["asking_for_time"]

_EVERY_SECONDS = 5.0
_MORE_SECONDS = 30
_IDLE_SECONDS = 120.0


@contextmanager
def asking_for_time(left: Callable[[], int]) -> Iterator[None]:
    """Ask for more time while the block runs and gets on; if a unit's time runs.

    `left` is asked, in a thread of its own, how much there is still to be done; less than ever
    before is progress. It must not hang when the block does.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        yield
        return
    from vswapd.sdnotify import Keeper  # noqa: PLC0415  # most commands need none

    keeper, done = Keeper(address), threading.Event()
    line = f"EXTEND_TIMEOUT_USEC={_MORE_SECONDS * 1_000_000}"

    def ask() -> None:
        for _ in _getting_on(left, done):
            keeper.tell(line, wait=False)

    asking = threading.Thread(target=ask, name="vswap-grace", daemon=True)
    asking.start()
    try:
        yield
    finally:
        done.set()
        asking.join()


def _getting_on(left: Callable[[], int], done: threading.Event) -> Iterator[None]:
    """Each time that more is to be asked for, until it is done."""
    least, since = left(), monotonic()
    yield
    while not done.wait(_EVERY_SECONDS):
        now, at = left(), monotonic()
        if now < least:
            least, since = now, at
        if at - since < _IDLE_SECONDS:
            yield
