"""The processes that a supervisor has: a fork server, and what it forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vswapd.ending import open_thread
from vswapd.memory import give_precedence_to
from vswapd.messages import Link, Message

__all__ = ["FORK_SERVER", "Child", "ForkServer", "Predecessor"]

FORK_SERVER = (sys.executable, "-m", "vswapd.forkserver")


class Death(NamedTuple):
    """How a process ended: by SIGKILL or not, and its exit status or the signal's number."""

    killed: bool
    status: int


class Child:
    """A standby, which becomes a worker when it is told to serve."""

    def __init__(self, link: Link) -> None:
        """A process that is about to be forked, with the other end of `link`."""
        self.link = link
        self.pid = 0
        self.pidfd: int | None = None
        self.prepared = False
        self.is_worker = False
        """Whether it was told to serve."""
        self.hurries = False
        """Whether it has been told that nobody serves."""
        self._made = time.monotonic()
        self.serving_since: float | None = None
        self.threads: list[int] = []
        """Descriptors that are readable when a thread of it has ended."""
        self.why = ""
        """What it said when it failed."""

    def is_born(self, pid: int) -> None:
        """It has said which process it is. Raises `ProcessLookupError` if it has gone."""
        self.pidfd = os.pidfd_open(pid)
        self.pid = pid

    def hurry(self) -> None:
        """Nobody serves: let it do without what can be done without."""
        if not self.hurries and self.pidfd is not None:
            self.hurries = True
            self.link.send("hurry")  # first: see `standby`, which may just give up precedence
            self.let_first()

    def let_first(self) -> None:
        """Have it go before ordinary tasks: it may be waiting for memory, and not hear."""
        give_precedence_to(self.pid)

    def open_threads(self, tids: Iterable[int]) -> None:
        """Have `threads` for these, where the kernel gives such descriptors."""
        found = [open_thread(tid) for tid in tids]
        self.threads = [fd for fd in found if fd is not None]

    def close_threads(self) -> None:
        """They are not of interest any more."""
        for fd in self.threads:
            os.close(fd)
        self.threads = []

    def age(self) -> float:
        """In seconds."""
        return time.monotonic() - self._made

    def last_words(self) -> Iterator[tuple[Message, list[int]]]:
        """It has ended: what it said before, and nobody has heard yet."""
        while self.link.is_readable and (received := self.link.receive()) is not None:
            yield received

    def kill(self) -> None:
        """At once."""
        if self.pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> Death:
        """It has ended: close what it leaves.

        Who is not our child, but was another supervisor's, tells nothing: that counts as killed.
        """
        self.link.close()
        if self.pidfd is None:
            return Death(killed=False, status=0)
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            result = None
        os.close(self.pidfd)
        self.pidfd = None
        if result is None:
            return Death(killed=True, status=signal.SIGKILL)
        killed = result.si_code == os.CLD_KILLED and result.si_status == signal.SIGKILL
        return Death(killed, result.si_status)

    def served(self) -> float | None:
        """For how many seconds; None if it has not come to that."""
        since = self.serving_since
        return None if since is None else time.monotonic() - since


class Predecessor:
    """A worker that another supervisor has left."""

    def __init__(self, pidfd: int) -> None:
        """`pidfd` belongs to it."""
        self.pidfd = pidfd
        self.pid = _pid_of(pidfd)
        self._killed = False

    def kill(self) -> None:
        """At once, if that has not been done."""
        if not self._killed:
            self._killed = True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """It has ended."""
        os.close(self.pidfd)


def _pid_of(pidfd: int) -> int:
    """The process's number; -1 if it has been reaped (see proc(5), fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


class ForkServer:
    """The process that forks the others, from the code that is installed when it is started."""

    def __init__(self, command: Sequence[str], settings: str) -> None:
        """Start it. Raises `OSError`."""
        self.link, theirs = Link.pair()
        self.warm = False
        """Whether it has said that it can fork."""
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*command, settings, "--link-fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a terminal's signals are for the supervisor
                )
            except BaseException:
                self.link.close()
                raise

    def fork(self, *, hurry: bool) -> Child:
        """A new child, which will say more. It may fail: then its link ends.

        `hurry` is whether nobody serves.
        """
        link, theirs = Link.pair()
        with theirs:
            self.link.send("fork", [theirs.fileno()], hurry=hurry)
        child = Child(link)
        child.hurries = hurry
        return child

    def close(self) -> None:
        """Let it end, and see that it does."""
        self.link.close()
        self.process.kill()
        self.process.wait()
