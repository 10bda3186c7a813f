"""Upkeep: the work that keeps a store small, cut into bounded pieces.

Who wants a piece done takes `Upkeep.lock` for as long as it takes: the background (`step`), a
writer that finds no room (`reclaim`), or a command (`compact`, `recompress`). They go on with
the same job, so no work is begun twice. docs/concurrency.md has the lock's place in the order:
above the cluster locks, so whoever waits for it holds none.

What to do is decided by vswap/store/plan.py; this module only carries it out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vswap.codec import Codec, Zstd
from vswap.errors import FullError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import plan
from vswap.store.appender import Appender
from vswap.store.cleaner import Cleaner
from vswap.store.dictionary import try_out
from vswap.store.log import KEPT
from vswap.store.mover import Mover
from vswap.store.parts import Parts
from vswap.store.plan import Mood, Outlook, Victim
from vswap.store.relocate import Relocator
from vswap.store.select import Selection
from vswap.store.stats import UpkeepStatistics

__all__ = ["COLD_LEVEL", "Step", "Upkeep"]

COLD_LEVEL = 8
"""The level of zstd at which pages are moved down. docs/codecs.md has the measurements."""

_BUSY_REQUESTS = 200
"""Requests a second from which on the background gives way to them."""

_REST_SECONDS = {Mood.QUIET: 2.0, Mood.BUSY: 0.25, Mood.PRESSING: 0.1}
_FULL_SECONDS = 0.1
_STUCK_SECONDS = 1.0
_FRUITLESS_SECONDS = 5.0
_SWEEP_SHARE = 4
"""After a sweep that found nothing the next waits so many times as long as it took, at least."""
_COLD_SECONDS = 20.0


class _Tier:
    """Pages that are moved down together, and when a look for them is worth it again."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.due = 0.0


@dataclass(frozen=True)
class Step:
    """What came of one: the seconds after which to come again, and whether all is at rest."""

    pause: float
    resting: bool


@dataclass(frozen=True)
class _Job:
    """Pieces of work to be done one after the other; each is the number of pages moved.

    It leaves `kept` segments free. A sweep leaves one, so that the dead space which it makes can
    be won back by cleaning, which may take the last: it gives back what it takes.
    """

    pieces: Iterator[int]
    kept: int = 0

    @property
    def is_sweep(self) -> bool:
        return self.kept > 0


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
        self._appender = Appender(parts.log, parts.memory, self._take)
        known = parts.dictionary.codec(COLD_LEVEL)
        cold = known or Zstd(COLD_LEVEL, MAX_UNIT_PAGES * PAGE_SIZE)
        relocator = Relocator(parts, parts.decoder(), self._appender, hot, cold)
        self._relocator = relocator
        self._cleaner = Cleaner(parts, relocator)
        self._mover = Mover(parts, relocator)
        self._dictionary = parts.dictionary
        self._requests = requests
        self._job: _Job | None = None
        self._kept = 0
        self._stuck: dict[Victim, float] = {}
        loaded = _Tier(Selection(loaded=True, age=float("inf")))
        old = _Tier(Selection(age=_COLD_SECONDS))
        self._tiers = (loaded, old) if loaded_first else (old,)
        self._seen = 0, time.monotonic()
        self._busy = True
        self._duty = 1.0
        self._segments_cleaned = self._pages_cleaned = self._pages_moved_down = 0

    def _take(self) -> int:
        """A segment for what is moved. Raises `FullError`."""
        return self._log.take(self._kept)

    # --- In the background ----------------------------------------------------------------

    def step(self) -> Step:
        """Do one piece of what is due."""
        with self.lock:
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
        """Once there are samples enough. Takes half a second, so without the lock."""
        relocator = self._relocator
        with self.lock:
            samples = relocator.sampler.take()
        if samples and self._dictionary.saving is None:
            trial = try_out(samples, COLD_LEVEL)
            with self.lock:
                self._dictionary.decide(trial)
                relocator.cold = self._dictionary.codec(COLD_LEVEL) or relocator.cold

    def _mood(self, now: float) -> Mood:
        served, when = self._seen
        if now - when >= 0.05:
            requests = self._requests()
            self._busy = requests - served > _BUSY_REQUESTS * (now - when)
            self._seen = requests, now
        return plan.mood(Outlook(self._log.room() - KEPT, self._log.limit, self._busy))

    def _choose(self, mood: Mood, now: float) -> _Job | None:
        sealed = self._sealed(now)
        self._duty = plan.duty(sealed)
        victim = plan.choose(sealed, mood, now, self._appender.spare)
        if victim is not None:
            return self._clean(victim)
        if mood is not Mood.BUSY:
            for tier in self._tiers:
                if tier.due <= now:
                    return self._sweep(tier, now)
        if mood is Mood.PRESSING:
            victim = plan.hottest(sealed)
            if victim is not None:
                return self._clean(victim, down=True)
        return None

    def _sealed(self, now: float) -> plan.Sealed:
        """The sealed segments without those that were just cleaned in vain."""
        self._stuck = {victim: until for victim, until in self._stuck.items() if now < until}
        sequence = self._log.sequence
        stuck = {one.segment for one in self._stuck if sequence[one.segment] == one.sequence}
        return self._log.sealed().without(stuck)

    def _advance(self) -> bool:
        """One piece of the job; lock held. Whether there was room for it."""
        assert self._job is not None
        self._kept = self._job.kept
        try:
            if next(self._job.pieces, None) is None:
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

    def _choose_for_room(self) -> _Job | None:
        sealed = self._sealed(time.monotonic())
        victim = plan.emptiest(sealed, self._appender.spare)
        if victim is not None:
            return self._clean(victim)
        victim = plan.hottest(sealed)
        return None if victim is None else self._clean(victim, down=True)

    def retry(self) -> bool:
        """Try again what was cleaned in vain, if there is such; it may have been published."""
        with self.lock:
            now = time.monotonic()
            waiting = [one for one, until in self._stuck.items() if until < now + _STUCK_SECONDS]
            for one in waiting:
                del self._stuck[one]
            return bool(waiting)

    # --- For a command --------------------------------------------------------------------

    def compact(self) -> int:
        """Clean every segment that is worth it now; how many were."""
        sealed = self._log.sealed()
        before = self._segments_cleaned
        for at in np.flatnonzero(sealed.dead >= plan.LEAST_GAIN):
            pieces = self._cleaning(sealed.victim(int(at)), down=False)
            done = False
            while not done:
                with self.lock:
                    self._kept = 0
                    try:
                        done = next(pieces, None) is None
                    except FullError:
                        return self._segments_cleaned - before
        return self._segments_cleaned - before

    def recompress(self, selection: Selection, max_pages: int | None = None) -> int:
        """Move down what is selected, about `max_pages` at most; how many pages were moved."""
        tier = _Tier(selection)
        began = time.monotonic()
        sweep = self._sweep(tier, began)
        moved = 0
        while max_pages is None or moved < max_pages:
            with self.lock:
                if self._job is not None and not self._job.is_sweep:
                    if self._advance():  # room is won by finishing what others have begun
                        continue
                    break
                self._kept = sweep.kept
                try:
                    pages = next(sweep.pieces, None)
                except FullError:
                    self._job, pages = self._choose_for_room(), 0
                    sweep = self._sweep(tier, began)
                    if self._job is None:
                        break
            if pages is None:
                break
            moved += pages
            self._decide_on_dictionary()
        return moved

    def statistics(self) -> UpkeepStatistics:
        """What has been done so far."""
        return UpkeepStatistics(
            segments_cleaned=self._segments_cleaned,
            pages_compacted=self._pages_cleaned,
            pages_recompressed=self._pages_moved_down,
        )

    # --- Jobs -----------------------------------------------------------------------------

    def _clean(self, victim: Victim, down: bool = False) -> _Job:
        return _Job(self._cleaning(victim, down))

    def _cleaning(self, victim: Victim, down: bool) -> Iterator[int]:
        moved = 0
        for pages in self._cleaner.clean(victim, down):
            moved += pages
            if down:
                self._pages_moved_down += pages
            else:
                self._pages_cleaned += pages
            yield pages
        if not self._log.is_sealed(*victim):
            self._segments_cleaned += 1
        else:
            # Something in it waits to be published, or its header is damaged.
            patience = _STUCK_SECONDS if moved or self._log.statistics().pages_staged else 60.0
            self._stuck[victim] = time.monotonic() + patience

    def _sweep(self, tier: _Tier, now: float) -> _Job:
        return _Job(self._sweeping(tier, now), kept=1)

    def _sweeping(self, tier: _Tier, now: float) -> Iterator[int]:
        moved = 0
        try:
            for pages in self._mover.sweep(tier.selection, now):
                moved += pages
                self._pages_moved_down += pages
                yield pages
        except FullError:
            moved = 0
            raise
        finally:
            ended = time.monotonic()
            if not moved:
                tier.due = ended + max(_FRUITLESS_SECONDS, _SWEEP_SHARE * (ended - now))
