"""Upkeep: the work that keeps a store small, and who does it when.

Who wants a piece done takes `Upkeep.lock` for as long as it takes: the background (`step`), a
writer that finds no room (`reclaim`), or a command (`compact`, `recompress`). docs/concurrency.md
has the lock's place in the order: above the cluster locks, so whoever waits for it holds none.

What to do is decided by vswap/store/plan.py, and done by vswap/store/jobs.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vswap.codec import Codec
from vswap.errors import DiskFullError, FullError
from vswap.store import plan
from vswap.store.detach import Detach
from vswap.store.jobs import Job, Jobs, Tier
from vswap.store.parts import Parts
from vswap.store.places import KEPT
from vswap.store.plan import Mood, Outlook
from vswap.store.select import Selection
from vswap.store.stats import UpkeepStatistics

__all__ = ["Step", "Upkeep"]

_BUSY_REQUESTS = 200
"""Requests a second from which on the background gives way to them."""

_LOOK_SECONDS = 0.05
_REST_SECONDS = {Mood.QUIET: 2.0, Mood.BUSY: 0.25, Mood.PRESSING: 0.1}
_FULL_SECONDS = 0.1
_COLD_SECONDS = 20.0


@dataclass(frozen=True)
class Step:
    """What came of one: the seconds after which to come again, and whether all is at rest."""

    pause: float
    resting: bool


class Upkeep:
    """Cleaning and moving down for one store."""

    def __init__(
        self,
        parts: Parts,
        hot: Codec,
        requests: Callable[[], int],
        loaded_first: bool = True,
    ) -> None:
        """`hot` must be its own. `requests` answers how many have been served so far.

        Without `loaded_first` pages that were read are moved down like all others.
        """
        self.lock = threading.Lock()
        self._log = parts.log
        self.jobs = Jobs(parts, hot)
        self._requests = requests
        self._job: Job | None = None
        loaded = Tier(Selection(loaded=True, age=float("inf")))
        old = Tier(Selection(age=_COLD_SECONDS))
        self._tiers = (loaded, old) if loaded_first else (old,)
        self._seen = 0, time.monotonic()
        self._busy = True
        self._duty = 1.0
        self.detach = Detach(parts, self.jobs)

    # --- In the background ----------------------------------------------------------------

    def step(self) -> Step:
        """Do one piece of what is due."""
        with self.lock:
            if self.detach.active:
                self.detach.piece()
                return Step(0.0, False)
            began = time.monotonic()
            mood = self._mood(began)
            if self._job is None or (self._job.is_sweep and mood is Mood.BUSY):
                self._job = self._choose(mood, began)
            if self._job is None:
                return Step(_REST_SECONDS[mood], mood is Mood.QUIET)
            if not self._advance():
                return Step(_FULL_SECONDS, False)
        if mood is not Mood.BUSY:
            self._decide_on_dictionary()
        else:
            return Step((time.monotonic() - began) * (1 / self._duty - 1), False)
        return Step(0.0, False)

    def _decide_on_dictionary(self) -> None:
        """Once there are samples enough."""
        with self.lock:
            samples = self.jobs.samples()
        if samples:
            trial = self.jobs.try_out(samples)
            with self.lock:
                self.jobs.decide(trial)

    def _mood(self, now: float) -> Mood:
        served, when = self._seen
        if now - when >= _LOOK_SECONDS:
            requests = self._requests()
            self._busy = requests - served > _BUSY_REQUESTS * (now - when)
            self._seen = requests, now
        return plan.mood(Outlook(self._log.room() - KEPT, self._log.limit, self._busy))

    def _choose(self, mood: Mood, now: float) -> Job | None:
        sealed = self.jobs.sealed(now)
        self._duty = plan.duty(sealed)
        spare = self.jobs.appender.spare
        if mood is Mood.PRESSING and self.jobs.can_spill():
            # Writing back wins a whole segment at a time: to clean for less, much must be dead.
            victim = plan.choose(sealed, Mood.BUSY, now, spare)
            job = self.jobs.write_back(sealed, now) if victim is None else None
            if job is not None:
                return job
        victim = plan.choose(sealed, mood, now, spare)
        if victim is not None:
            return self.jobs.clean(victim)
        if mood is not Mood.BUSY:
            for tier in self._tiers:
                if tier.due <= now:
                    return self.jobs.sweep(tier, now)
        if mood is Mood.PRESSING:
            victim = plan.hottest(sealed)
            if victim is not None:
                return self.jobs.clean(victim, down=True)
        return None

    def _advance(self) -> bool:
        """One piece of the job; lock held. Whether there was room for it."""
        assert self._job is not None
        try:
            if self.jobs.do_piece(self._job) is None:
                self._job = None
        except FullError:
            self._job = None
            return False
        return True

    # --- For a writer ---------------------------------------------------------------------

    def reclaim(self, room: int = KEPT) -> bool:
        """Do one piece of work for a writer that wants more than `room`; False if none can be won.

        Each cleaning takes dead space away and each moving down leaves fewer hot pages, so
        without other writes the answer is False in the end.
        """
        with self.lock:
            if self._log.room() > room:
                return True
            if self._job is None or self._job.is_sweep:
                self._job = self._choose_for_room()
            return self._job is not None and self._advance()

    def _choose_for_room(self) -> Job | None:
        now = time.monotonic()
        sealed = self.jobs.sealed(now)
        victim = plan.emptiest(sealed, self.jobs.appender.spare)
        if victim is None or sealed.dead.max() < plan.MUCH_DEAD:
            job = self.jobs.write_back(sealed, now)
            if job is not None:
                return job
        if victim is not None:
            return self.jobs.clean(victim)
        victim = plan.hottest(sealed)
        return None if victim is None else self.jobs.clean(victim, down=True)

    def retry(self) -> bool:
        """Try again what was cleaned in vain, if there is such; it may have been published."""
        with self.lock:
            return self.jobs.retry(time.monotonic())

    # --- For a command --------------------------------------------------------------------

    def compact(self) -> int:
        """Clean every segment that is worth it now; how many were."""
        sealed = self._log.sealed()
        before = self.statistics().segments_cleaned
        for at in np.flatnonzero(sealed.dead >= plan.LEAST_GAIN):
            if not self._finish(self.jobs.clean(sealed.victim(int(at)))):
                break
        return self.statistics().segments_cleaned - before

    def _finish(self, job: Job) -> bool:
        """Do a job to its end, with others between its pieces. Whether there was room for it."""
        while True:
            with self.lock:
                try:
                    if self.jobs.do_piece(job) is None:
                        return True
                except FullError:
                    return False

    def recompress(self, selection: Selection, max_pages: int | None = None) -> int:
        """Move down what is selected, about `max_pages` at most; how many pages were moved."""
        tier = Tier(selection)
        began = time.monotonic()
        sweep = self.jobs.sweep(tier, began)
        moved = 0
        while max_pages is None or moved < max_pages:
            with self.lock:
                if self._job is not None and not self._job.is_sweep:
                    if self._advance():  # room is won by finishing what others have begun
                        continue
                    break
                try:
                    pages = self.jobs.do_piece(sweep)
                except FullError:
                    self._job, pages = self._choose_for_room(), 0
                    sweep = self.jobs.sweep(tier, began)
                    if self._job is None:
                        break
            if pages is None:
                break
            moved += pages
            self._decide_on_dictionary()
        return moved

    def write_back(self, *selections: Selection) -> int:
        """Write back what any of these selects, as far as the disk takes it.

        Answers how many pages were moved. Dead space on the disk is won back for it.
        """
        moved = 0
        job: Job | None = None
        while True:
            with self.lock:
                if not self.jobs.may_write_back():
                    return moved
                if job is None:
                    job = self.jobs.write_back_selected(selections, time.monotonic())
                try:
                    pages = self.jobs.do_piece(job)
                    if pages is None:
                        return moved
                    moved += pages
                    continue
                except DiskFullError:
                    job = None  # what it has staged is staged again
            if not self._clean_disk():
                return moved

    def _clean_disk(self) -> bool:
        """Win back dead space on the disk, with others between the pieces; whether it has room."""
        before = -1
        while True:
            with self.lock:
                if self.jobs.can_write_back():
                    return True
                if self._job is None or self._job.is_sweep:
                    room = self.jobs.disk_room()
                    if room <= before:
                        return False  # the last cleaning has won nothing: units do not fit exactly
                    before = room
                    self._job = self.jobs.clean_disk(time.monotonic())
                if self._job is None:
                    return False
                self._advance()

    def statistics(self) -> UpkeepStatistics:
        """What has been done so far."""
        return self.jobs.statistics()
