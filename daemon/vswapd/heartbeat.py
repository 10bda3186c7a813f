"""The sign of life that systemd wants from the main process of a unit (WatchdogSec=)."""

from __future__ import annotations

from collections.abc import Mapping

from vswapd.sdnotify import Keeper

__all__ = ["Heartbeat"]


class Heartbeat:
    """Of a supervisor: it comes from the loop that does everything else."""

    def __init__(self, keeper: Keeper, environment: Mapping[str, str]) -> None:
        """As often as `environment` wants it, if it does.

        WATCHDOG_PID is not looked at: it names the first supervisor, and this may be an heir.
        """
        microseconds = environment.get("WATCHDOG_USEC", "")
        self._keeper = keeper
        self._every = int(microseconds) / 2e6 if microseconds.isdigit() else 0.0
        self._next = 0.0

    def look(self, now: float) -> None:
        """To be called from time to time, with the time (`time.monotonic`)."""
        if self._every and now >= self._next:
            self._next = now + self._every
            self._keeper.tell("WATCHDOG=1", wait=False)
