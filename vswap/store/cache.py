"""The front cache: the pages that are in memory, in segments or as fill words."""

from __future__ import annotations

from enum import Enum

from vswap.store.entry import EMPTY, FIRST_BACKING, FIRST_FILL
from vswap.store.table import SwapTable

__all__ = ["FrontCache", "Presence"]


class Presence(Enum):
    """How much of a range the front cache holds."""

    NONE = 0
    ALL = 1
    MIXED = 2


class FrontCache:
    """Answers what is in memory, from the swap table's entries."""

    def __init__(self, table: SwapTable) -> None:
        """Keeps nothing but the table."""
        self._table = table

    def presence(self, slot: int, count: int) -> tuple[Presence, int]:
        """Whether ALL, NONE or some (MIXED) of a range is here, and the first run's length.

        The run is how many slots share the first one's state. A MIXED range must be
        assembled run by run: asked again about the run alone, the answer is ALL or NONE.
        Taking "not all of it" for "none of it" is how stale data gets read (mm/zswap.c
        decides the same for whole folios).

        The range must lie in one cluster. The answer is stable only while that cluster's
        lock is held, and must be asked for and used under it.
        """
        entries = self._table.entries(slot, count)
        here = _is_here(entries[0])
        for run, entry in enumerate(entries):
            if _is_here(entry) != here:
                return Presence.MIXED, run
        return (Presence.ALL if here else Presence.NONE), count


def _is_here(entry: int) -> bool:
    """Whether an entry's page is in memory: not empty, and not on disk."""
    return EMPTY < entry < FIRST_BACKING or entry >= FIRST_FILL
