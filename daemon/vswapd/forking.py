"""Forking processes that serve, or stand by: what a fork server does once it is warm.

A fork takes a few milliseconds, and it needs nothing from a disk: what it runs is here already,
and locked. Where memory is short one is made, and the parent ends.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence

from vswapd import memory, standby
from vswapd.config import Settings
from vswapd.messages import Link
from vswapd.ownpages import Run, reserve_heap, resident
from vswapd.warmup import warm_up, warm_up_backing
from vswapd.worker import policy_of

__all__ = ["fork_on_demand", "get_warm"]

_LOOK_SECONDS = 0.001


def get_warm(settings: Settings) -> None:
    """Let everything run once that a fork will run."""
    warm_up(policy_of(settings))
    warm_up_backing(policy_of(settings))
    reserve_heap()


def fork_on_demand(link: Link, settings: Settings, preparation: memory.Preparation) -> int:
    """Until the link ends; the exit status."""
    gc.collect()
    gc.freeze()  # what is here already is not looked at again, or the forks would copy it
    memory.take_precedence()  # nobody may serve until it has forked, and so may its forks
    pages = resident()
    while (received := link.receive()) is not None:
        message, (fd,) = received
        hurry = bool(message.get("hurry"))  # a supervisor of older code does not say
        if settings.is_small:
            parent = _fork_and_end()
            _wait_until_gone(parent)  # its pages are ours then, and need no copies
            link.close()
            _be(fd, settings, preparation, pages, hurry=hurry, parent=parent)
        middle = os.fork()
        if not middle:
            # The child's parent ends at once, so that the supervisor, who takes orphans in,
            # becomes its parent, and learns how it ends.
            parent = _fork_and_end()
            link.close()
            _be(fd, settings, preparation, pages, hurry=hurry, parent=parent)
        os.close(fd)
        os.waitpid(middle, 0)
    return 0


def _fork_and_end() -> int:
    """Go on as a fork; the number of the process that was here, and ends."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    return parent


def _wait_until_gone(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)


def _be(
    fd: int,
    settings: Settings,
    preparation: memory.Preparation,
    pages: Sequence[Run],
    *,
    hurry: bool,
    parent: int,
) -> None:
    """Live and end as a process of its own; not before it is the supervisor's child."""
    status = 1
    try:
        status = standby.main(Link.of(fd), settings, preparation, pages, hurry=hurry)
    finally:
        _wait_until_gone(parent)
        os._exit(status)
