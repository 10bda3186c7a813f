"""The fork server: a process in which everything is imported and has run once, to be forked.

``python -m vswapd.forkserver SETTINGS --link-fd N``. For each socket that comes over the link it
makes one process, which goes on in `vswapd.standby` with that socket. A fork takes a few
milliseconds, and it needs nothing from a disk: what it runs is here already, and locked. Where
memory is short it makes one, and ends.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
import time
from collections.abc import Sequence

from vswap import libc
from vswapd import memory, standby
from vswapd.config import Settings
from vswapd.messages import Link
from vswapd.notify import reason
from vswapd.ownpages import Run, reserve_heap, resident
from vswapd.warmup import warm_up, warm_up_backing
from vswapd.worker import policy_of

__all__ = ["main"]

_LOOK_SECONDS = 0.001
_SWITCH_SECONDS = 100e-6
"""How long a data thread waits at most while the control plane runs Python code."""


def main() -> int:
    """Fork until the link ends; the exit status is 2 if it could not come to that."""
    parser = argparse.ArgumentParser(prog="vswapd.forkserver")
    parser.add_argument("settings")
    parser.add_argument("--link-fd", type=int, required=True)
    arguments = parser.parse_args()
    os.set_inheritable(arguments.link_fd, False)
    libc.prctl(libc.PR_SET_NAME, b"vswap-forks")
    link = Link.of(arguments.link_fd)
    # They are the supervisor's, also those that a terminal sends to all of us.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_SECONDS)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="surrogateescape")  # paths are bytes
    try:
        settings = Settings.from_json(arguments.settings)
        warnings: list[str] = []
        preparation = memory.prepare_process(warnings.append)
        warm_up(policy_of(settings))
        warm_up_backing(policy_of(settings))
        reserve_heap()
    except Exception as error:
        link.send("failed", why=reason(error))
        return 2
    link.send("warm", warnings=warnings, settings=settings.to_json(), point=settings.mount)
    gc.collect()
    gc.freeze()  # what is here already is not looked at again, or the forks would copy it
    memory.take_precedence()  # nobody may serve until it has forked, and so may its forks
    return _fork_on_demand(link, settings, preparation)


def _fork_on_demand(link: Link, settings: Settings, preparation: memory.Preparation) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
