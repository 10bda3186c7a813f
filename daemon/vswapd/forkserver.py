"""The fork server: a process in which everything is imported and has run once, to be forked.

``python -m vswapd.forkserver SETTINGS --link-fd N``. For each socket that comes over the link it
makes one process, which goes on in `vswapd.standby` with that socket (`vswapd.forking`).

Nobody may serve while this one is started, and memory be short. A page of its own that were swapped
out would be on the device, so it locks its memory before it has much: all else is imported then.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys

from vswap import libc
from vswapd import memory
from vswapd.config import Settings
from vswapd.messages import Link
from vswapd.notify import reason

__all__ = ["main"]

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
        warnings: list[str] = []
        preparation = memory.prepare_process(warnings.append)
        settings = Settings.from_json(arguments.settings)
        from vswapd import forking  # noqa: PLC0415 - see above

        forking.get_warm(settings)
    except Exception as error:
        link.send("failed", why=reason(error))
        return 2
    link.send("warm", warnings=warnings, settings=settings.to_json(), point=settings.mount)
    return forking.fork_on_demand(link, settings, preparation)


if __name__ == "__main__":
    sys.exit(main())
