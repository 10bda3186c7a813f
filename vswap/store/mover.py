"""Moving down: pages that will hardly be read again are compressed harder, many to a unit.

Hot units are small and quick to read. What is old, or was loaded and is therefore in its
owner's memory, is compressed again by the cold codec with its neighbours: up to
`MAX_UNIT_PAGES` consecutive slots, whatever segments they were in. The space that they leave
is won back by cleaning.

A sweep goes over the used clusters like a clock's hand, each looked at once in a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS, MAX_UNIT_PAGES
from vswap.store.entry import UNIT_SHIFT
from vswap.store.parts import Parts
from vswap.store.relocate import Relocator
from vswap.store.select import Selection

__all__ = ["Mover"]

_GLANCES = 64
"""Clusters with nothing to move that are looked at in one piece."""


class Mover:
    """Moves down for one thread at a time."""

    def __init__(self, parts: Parts, relocator: Relocator) -> None:
        """`relocator` may be shared with others that run under the same lock."""
        self._parts = parts
        self._relocator = relocator
        self._hand = 0

    def sweep(self, selection: Selection, now: float) -> Iterator[int]:
        """Once round all used clusters from where the last sweep was; yields pages moved.

        May raise `FullError`, with nothing lost.
        """
        glances = 0
        hand = self._hand
        used = np.flatnonzero(self._parts.table.counts)
        for cluster in np.concatenate([used[used >= hand], used[used < hand]]).tolist():
            self._hand = cluster
            with self._parts.locks[cluster]:
                entries = self._parts.table.page(cluster)
            chosen = selection.mask(entries, self._parts.log.born, now)
            if chosen.any():
                first = cluster << CLUSTER_SHIFT
                groups = chosen.reshape(-1, MAX_UNIT_PAGES).any(axis=1)
                for at in (np.flatnonzero(groups) * MAX_UNIT_PAGES).tolist():
                    group = slice(at, at + MAX_UNIT_PAGES)
                    yield self._move(first + at, entries[group].tolist(), chosen[group].tolist())
                glances = 0
            elif (glances := glances + 1) % _GLANCES == 0:
                yield 0
        self._hand = 0

    def _move(self, slot: int, entries: list[int], chosen: list[bool]) -> int:
        """Move the chosen pages of a group, and what lives in the same units."""
        units = {
            entry >> UNIT_SHIFT
            for entry, is_chosen in zip(entries, chosen, strict=True)
            if is_chosen
        }
        moved = 0
        at = 0
        for goes, run in groupby(entries, lambda entry: entry >> UNIT_SHIFT in units):
            part = list(run)
            if goes:
                moved += self._relocator.down(slot + at, part)
            at += len(part)
        return moved


assert CLUSTER_SLOTS % MAX_UNIT_PAGES == 0
