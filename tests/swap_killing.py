"""Killing a device's worker again and again, as somebody does who means it.

The worker is found among the supervisor's children by its name, so it may be one that has only
begun to take over. Every choice is drawn from a seed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Killer", "killing", "worker_of"]

WORKER = "vswap-worker"
PATIENCE_SECONDS = 30.0


def worker_of(supervisor: int) -> int | None:
    """The process that serves, or is about to; None if there is none at the moment."""
    children = ""
    with suppress(OSError):  # it ends
        for task in Path(f"/proc/{supervisor}/task").iterdir():
            children += (task / "children").read_text()
    for child in children.split():
        with suppress(OSError):
            comm = Path(f"/proc/{child}/comm").read_text().strip()
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if comm == WORKER and state != "Z":
                return int(child)
    return None


class Killer:
    """Kills one worker after the other, until it has killed enough."""

    def __init__(
        self, supervisor: int, pause: Callable[[], float], after: Callable[[int], None]
    ) -> None:
        """`pause` says for how many seconds to leave a worker alone.

        `after` is called after each kill, with how many that were.
        """
        self._supervisor = supervisor
        self._pause = pause
        self._after = after
        self._stop = threading.Event()
        self.kills = 0
        self.failure: BaseException | None = None
        self._last = 0

    def run(self, kills: int) -> None:
        """Kill so many, or until `stop`."""
        try:
            while self.kills < kills and not self._stop.wait(self._pause()):
                self._last = kill_worker(self._supervisor, self._last)
                self.kills += 1
                self._after(self.kills)
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """That is enough."""
        self._stop.set()


def kill_worker(supervisor: int, last: int = 0) -> int:
    """Wait for a worker that is not the `last` one, and kill it; answers its number."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        pid = worker_of(supervisor)
        if pid not in (None, last):
            assert pid is not None
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.001)
    raise AssertionError(f"no worker for {PATIENCE_SECONDS} s")


@contextmanager
def killing(
    supervisor: int,
    kills: int,
    seed: int,
    *,
    shortest: float = 0.02,
    longest: float = 0.2,
    after: Callable[[int], None] = lambda _kills: None,
) -> Iterator[Killer]:
    """Kill from another thread while the block runs. What failed there is raised at the end."""
    choice = random.Random(seed)
    killer = Killer(supervisor, lambda: choice.uniform(shortest, longest), after)
    thread = threading.Thread(target=killer.run, args=(kills,))
    thread.start()
    try:
        yield killer
    finally:
        killer.stop()
        thread.join()
    if killer.failure is not None:
        raise killer.failure
