"""The compressed store: zeromap, swap table, log of segments, and the lanes into them."""

from __future__ import annotations

from vswap.store.lane import Counters, Lane
from vswap.store.state import Shape, State
from vswap.store.stats import StoreStatistics
from vswap.store.store import Policy, Store, segments_for

__all__ = [
    "Counters",
    "Lane",
    "Policy",
    "Shape",
    "State",
    "Store",
    "StoreStatistics",
    "segments_for",
]
