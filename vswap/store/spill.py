"""What to write back when memory is full: the policy.

Whole segments of memory go, for then their memory is free at once. Old ones first; and sooner
those of which much does not compress (it gains most), or has been loaded (its reader has it in
memory, and will hardly ask for it again). Never what was just written: the youngest part of the
segments is left out, however full it is.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from vswap.geometry import CLUSTER_SLOTS, SEGMENT_SIZE
from vswap.store.entry import HUGE, LOADED
from vswap.store.parts import Parts
from vswap.store.plan import Sealed, Victim
from vswap.store.select import in_cache, segments_of

__all__ = ["Marks", "Spill", "order"]

_JUST_WRITTEN = 1 / 8
"""This share of the sealed segments, the youngest, is what was just written."""

_HUGE_WEIGHT = _LOADED_WEIGHT = 3.0
"""A segment that is all huge, or all loaded, is taken as if it were so much older, and 1 more."""

_CHUNK = 256
_FRESH_SECONDS = 1.0
_FRESH_TIMES = 8
"""An order is good for a second, or for so many times as long as it took to make; or until all
that is in it has gone."""

Array = npt.NDArray[np.int64]


class Marks:
    """How many live pages of each segment have been loaded, and are huge: counted at one time."""

    def __init__(self, parts: Parts, segments: int) -> None:
        """Looks at each used cluster once, under its lock."""
        self.loaded: Array = np.zeros(segments, np.int64)
        self.huge: Array = np.zeros(segments, np.int64)
        self.pages: Array = np.zeros(segments, np.int64)
        used = np.flatnonzero(parts.table.counts)
        for at in range(0, len(used), _CHUNK):
            clusters = used[at : at + _CHUNK].tolist()
            entries = np.zeros((len(clusters), CLUSTER_SLOTS), np.uint64)
            for row, cluster in enumerate(clusters):
                with parts.locks[cluster]:
                    entries[row] = parts.table.page(cluster)
            self._count(entries.ravel())

    def _count(self, entries: npt.NDArray[np.uint64]) -> None:
        entries = entries[in_cache(entries)]
        segments = segments_of(entries)
        count = len(self.pages)
        self.pages += np.bincount(segments, minlength=count)
        loaded, huge = (entries & np.uint64(flag) != 0 for flag in (LOADED, HUGE))
        self.loaded += np.bincount(segments[loaded], minlength=count)
        self.huge += np.bincount(segments[huge], minlength=count)


def order(sealed: Sealed, marks: Marks, now: float) -> list[Victim]:
    """The sealed segments in the order in which they should go, without what was just written."""
    segments = sealed.segments
    pages = np.maximum(marks.pages[segments], 1)
    weight = (
        1 + (_HUGE_WEIGHT * marks.huge[segments] + _LOADED_WEIGHT * marks.loaded[segments]) / pages
    )
    score = (now - sealed.born) * weight
    by_age = np.argsort(sealed.born, kind="stable")
    old = by_age[: len(by_age) - int(np.ceil(len(by_age) * _JUST_WRITTEN))]
    return [sealed.victim(int(at)) for at in old[np.argsort(-score[old], kind="stable")]]


class Spill:
    """Chooses what to write back, batch by batch."""

    def __init__(self, parts: Parts) -> None:
        """Nothing chosen yet."""
        self._parts = parts
        self._order: list[Victim] = []
        self._good_until = 0.0

    def choose(self, sealed: Sealed, now: float) -> list[Victim]:
        """Segments that together fill a disk segment, best first; none if there are none to go."""
        chosen = [] if now >= self._good_until else self._next(sealed)
        if not chosen:
            began = time.monotonic()
            marks = Marks(self._parts, len(self._parts.log.born))
            self._order = order(sealed, marks, now)
            took = time.monotonic() - began
            self._good_until = now + max(_FRESH_TIMES * took, _FRESH_SECONDS)
            chosen = self._next(sealed)
        return chosen

    def _next(self, sealed: Sealed) -> list[Victim]:
        """The first that are left and together fill a disk segment."""
        at = {int(segment): place for place, segment in enumerate(sealed.segments)}
        # What has gone meanwhile, or is another filling of the same segment, is passed over.
        self._order = [
            victim
            for victim in self._order
            if victim.segment in at and sealed.victim(at[victim.segment]) == victim
        ]
        chosen: list[Victim] = []
        size = 0
        for victim in self._order:
            if size >= SEGMENT_SIZE:
                break
            chosen.append(victim)
            size += int(sealed.live[at[victim.segment]])
        return chosen
