"""Taking the backing away while it is in use: begun by a command, done in the background."""

from __future__ import annotations

import time

from vswap.errors import FullError, UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import plan
from vswap.store.drain import Drain
from vswap.store.jobs import Job, Jobs
from vswap.store.parts import Parts
from vswap.store.places import KEPT

__all__ = ["Detach"]

_LEFT = KEPT + 2
"""Segments of memory that are left for others while pages come back."""

_FILLED = 0.97
"""How full segments are when they are sealed, at least: units do not fit exactly."""


class Detach:
    """At most one at a time. All methods but `active` are for whoever holds `Upkeep.lock`."""

    def __init__(self, parts: Parts, jobs: Jobs) -> None:
        """Nothing to do yet."""
        self._parts = parts
        self._jobs = jobs
        self._drain: Drain | None = None
        self._job: Job | None = None
        self.result = ""
        """How the last one ended; see `BackingStatistics`."""
        self.visits = self.reads = 0

    @property
    def active(self) -> bool:
        """Whether one is under way."""
        return self._drain is not None

    def begin(self) -> None:
        """Nothing is written to the disk from now on, and `piece` has something to do.

        Raises `UserError` if there is no backing, or if memory would not hold what is on it.
        """
        disk = self._parts.disk
        if not disk.attached:
            raise UserError("no backing is attached")
        if self.active:
            raise UserError(f"{disk.name} is being detached already")
        self._check_memory()
        disk.log.emptying = True
        self.resume()

    def resume(self) -> None:
        """Begin anew what an earlier worker was doing when it was killed, if it was.

        Not asking whether memory would hold it: if not, it ends as it would have then.
        """
        disk = self._parts.disk
        if disk.log.emptying:
            disk.closed_for_writing = True
            self.result = ""
            self._drain = Drain(self._parts, self._jobs.relocator)
            self._go_on()

    def _check_memory(self) -> None:
        log = self._parts.log
        wanted = self._parts.disk.log.ledger.live_bytes
        free = (log.limit - _LEFT) * SEGMENT_SIZE * _FILLED - log.published_bytes()
        if wanted > free:
            raise UserError(
                f"memory would not hold what is on {self._parts.disk.name}: {wanted >> 20} MiB, "
                f"and {max(0, int(free)) >> 20} MiB are free below the limit; raise memory_limit"
            )

    def _go_on(self) -> None:
        assert self._drain is not None
        self._job = Job(self._drain.pieces(), _LEFT)

    def stop(self, result: str = "stopped") -> None:
        """Leave what is on disk there, and use it again; also one that is not resumed yet."""
        if self.active:
            self.result = result  # first: who looks without the lock sees it when it has ended
            self._drain = self._job = None
            self._parts.disk.closed_for_writing = False
        self._parts.disk.log.emptying = False

    def piece(self) -> None:
        """Bring back what is in one disk segment, or make room for it; the end lets the disk go."""
        assert self._drain is not None
        assert self._job is not None
        try:
            ended = self._jobs.do_piece(self._job) is None
        except FullError:
            ended = False
            if self._make_room():
                self._go_on()
            else:
                self.stop("memory")
                return
        self.visits, self.reads = self._drain.walk.clusters_visited, self._drain.walk.segments_read
        if ended:
            self._end()

    def _make_room(self) -> bool:
        """Clean a segment of memory; False if that would win nothing."""
        sealed = self._jobs.sealed(time.monotonic())
        victim = plan.emptiest(sealed, self._jobs.appender.spare)
        if victim is None:
            return False
        job = self._jobs.clean(victim)
        try:
            while self._jobs.do_piece(job) is not None:
                pass
        except FullError:
            return False
        return True

    def _end(self) -> None:
        disk = self._parts.disk
        if disk.log.ledger.live_pages:
            self.stop("unreadable")
            return
        self.result = "detached"  # before the name goes
        disk.let_go()
        disk.log.resize(0)
        self.stop("detached")  # a worker that is killed before finds nothing left to be done
