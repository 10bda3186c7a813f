"""The jobs that keep a store small, cut into bounded pieces, and what outlasts each of them.

Nothing here is locked: it is for whoever holds `Upkeep.lock`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.codec import Codec, Zstd
from vswap.errors import DiskFullError, FullError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import plan
from vswap.store.appender import Appender
from vswap.store.cleaner import Cleaner
from vswap.store.dictionary import Trial, try_out
from vswap.store.disk_log import KEPT_ON_DISK
from vswap.store.mover import Mover
from vswap.store.parts import Parts
from vswap.store.plan import Victim
from vswap.store.relocate import Relocator
from vswap.store.restack import Restack
from vswap.store.select import Selection
from vswap.store.spill import Spill
from vswap.store.stats import UpkeepStatistics
from vswap.store.writeback import WriteBack

__all__ = ["COLD_LEVEL", "Job", "Jobs", "Tier"]

COLD_LEVEL = 8
"""The level of zstd at which pages are moved down. docs/codecs.md has the measurements."""

_PUBLISHING_SECONDS = 1.0
"""How long a segment is left alone in which something waits to be published."""

_DAMAGED_SECONDS = 60.0
"""The same, if a damaged header hides what is in it."""

_FRUITLESS_SECONDS = 5.0
_SWEEP_SHARE = 4
"""After a sweep that found nothing the next waits so many times as long as it took, at least."""


@dataclass
class Tier:
    """Pages that are moved down together, and when a look for them is worth it again."""

    selection: Selection
    due: float = 0.0


@dataclass(frozen=True)
class Job:
    """Pieces of work to be done one after the other; each is the number of pages moved.

    It leaves `kept` segments free. A sweep leaves one, so that the dead space which it makes can
    be won back by cleaning, which may take the last: it gives back what it takes.
    """

    pieces: Iterator[int]
    kept: int = 0

    @property
    def is_sweep(self) -> bool:
        """Whether it moves down what it comes by, rather than emptying one segment."""
        return self.kept > 0


class Jobs:
    """Makes jobs and does them piece by piece."""

    def __init__(self, parts: Parts, hot: Codec) -> None:
        """`hot` must be its own."""
        self._log = parts.log
        self._dictionary = parts.dictionary
        self.appender = Appender(parts.log, parts.memory, self._take)
        known = parts.dictionary.codec(COLD_LEVEL)
        cold = known or Zstd(COLD_LEVEL, MAX_UNIT_PAGES * PAGE_SIZE)
        self.relocator = Relocator(parts, parts.decoder(), self.appender, hot, cold)
        self.cleaner = Cleaner(parts, self.relocator)
        self.mover = Mover(parts, self.relocator)
        self.writeback = WriteBack(parts, self.relocator, self.cleaner)
        # With a batch of its own, for others' jobs may be done between its pieces.
        self._by_command = WriteBack(parts, self.relocator, self.cleaner)
        self.restack = Restack(parts, parts.decoder(), self.writeback)
        self._spill = Spill(parts)
        self._disk = parts.disk
        self._kept = 0
        self._stuck: dict[Victim, float] = {}  # until when
        self._segments_cleaned = self._pages_cleaned = self._pages_moved_down = 0

    def _take(self) -> int:
        """A segment for what is moved. Raises `FullError`."""
        return self._log.take(self._kept)

    def do_piece(self, job: Job) -> int | None:
        """The next piece: how many pages were moved, or None if there is no more.

        Raises `FullError`; the job is at its end then.
        """
        self._kept = job.kept
        return next(job.pieces, None)

    def clean(self, victim: Victim, down: bool = False) -> Job:
        """Empty a segment; `down`: by way of the cold codec."""
        self._log.finish(victim.segment)
        return Job(self._cleaning(victim, down))

    def sweep(self, tier: Tier, now: float) -> Job:
        """Move down a tier's pages, wherever they are."""
        return Job(self._sweeping(tier, now), kept=1)

    def prepare_to_spill(self) -> None:
        """A backing comes: take the memory that spilling needs. Raises `OSError`."""
        self.restack.prepare()

    def can_spill(self) -> bool:
        """Whether `write_back` may have something to do."""
        return self._disk.may_write() and self._disk.log.room() > 0

    def disk_room(self) -> int:
        """How many disk segments are free."""
        return self._disk.log.room()

    def may_write_back(self) -> bool:
        """Whether the disk takes anything now, if it has room."""
        return self._disk.may_write()

    def can_write_back(self) -> bool:
        """Whether the disk would take a segment now."""
        return self._disk.may_write() and self._disk.log.room() > KEPT_ON_DISK

    def write_back(self, sealed: plan.Sealed, now: float) -> Job | None:
        """Fill a disk segment with what memory can spare best; None if there is no way to.

        If disk segments have become few and much of them is dead, those are cleaned first.
        """
        cleaning = self.clean_disk(now)
        if cleaning is not None:
            return cleaning
        victims = self._spill.choose(sealed, now) if self.can_write_back() else []
        return Job(self._writing_back(victims)) if victims else None

    def clean_disk(self, now: float) -> Job | None:
        """Win back dead space of the disk, if free disk segments are few and one can be won."""
        sparse = self.restack.choose(now) if self._disk.may_write() else None
        return None if sparse is None else Job(self._cleaning_disk(sparse))

    def write_back_selected(self, selections: Sequence[Selection], now: float) -> Job:
        """Write back what a command asks for: what any of these selects."""
        return Job(self._by_command.selected(selections, now))

    def sealed(self, now: float) -> plan.Sealed:
        """The sealed segments without those that were just cleaned in vain."""
        self._stuck = {victim: until for victim, until in self._stuck.items() if now < until}
        sequence = self._log.sequence
        stuck = {one.segment for one in self._stuck if sequence[one.segment] == one.sequence}
        return self._log.sealed().without(stuck)

    def retry(self, now: float) -> bool:
        """Try again what waited to be published, if there is such."""
        soon = now + _PUBLISHING_SECONDS
        waiting = [victim for victim, until in self._stuck.items() if until < soon]
        for victim in waiting:
            del self._stuck[victim]
        return bool(waiting)

    def samples(self) -> list[bytes]:
        """What a dictionary is to be tried out on, once, when there is enough to decide."""
        samples = self.relocator.sampler.take()
        return samples if self._dictionary.saving is None else []

    @staticmethod
    def try_out(samples: list[bytes]) -> Trial:
        """Takes half a second, and is for nobody who holds the lock."""
        return try_out(samples, COLD_LEVEL)

    def decide(self, trial: Trial) -> None:
        """Use the dictionary from now on, if it won."""
        self._dictionary.decide(trial)
        self.relocator.cold = self._dictionary.codec(COLD_LEVEL) or self.relocator.cold

    def statistics(self) -> UpkeepStatistics:
        """What has been done so far."""
        return UpkeepStatistics(
            segments_cleaned=self._segments_cleaned,
            pages_compacted=self._pages_cleaned,
            pages_recompressed=self._pages_moved_down,
            writeback_pages=self.writeback.pages_written + self._by_command.pages_written,
            writeback_bytes=self.writeback.bytes_written + self._by_command.bytes_written,
            backing_segments_cleaned=self.restack.segments_cleaned,
        )

    def _cleaning(self, victim: Victim, down: bool) -> Iterator[int]:
        moved = 0
        for pages in self.cleaner.clean(victim, down):
            moved += pages
            if down:
                self._pages_moved_down += pages
            else:
                self._pages_cleaned += pages
            yield pages
        if not self._log.is_sealed(*victim):
            self._segments_cleaned += 1
            return
        waits = moved or self._log.statistics().pages_staged
        patience = _PUBLISHING_SECONDS if waits else _DAMAGED_SECONDS
        self._stuck[victim] = time.monotonic() + patience

    def _writing_back(self, victims: list[Victim]) -> Iterator[int]:
        moved = 0
        try:
            for pages in self.writeback.segments(victims):
                moved += pages
                yield pages
        except DiskFullError:
            return  # memory may have room all the same
        if not moved:
            until = time.monotonic() + _PUBLISHING_SECONDS
            self._stuck.update(dict.fromkeys(victims, until))

    def _cleaning_disk(self, sparse: npt.NDArray[np.int64]) -> Iterator[int]:
        with suppress(DiskFullError):
            yield from self.restack.empty(sparse)

    def _sweeping(self, tier: Tier, now: float) -> Iterator[int]:
        moved = 0
        try:
            for pages in self.mover.sweep(tier.selection, now):
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
