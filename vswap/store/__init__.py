"""The compressed store: zeromap, swap table, log of segments, and the lanes into them."""

from __future__ import annotations

from vswap.store.audit import Findings
from vswap.store.cache import Presence
from vswap.store.fetch import Gap, Parked
from vswap.store.lane import Counters, FetchLane, Lane
from vswap.store.policy import Policy, least_memory, segments_for
from vswap.store.select import Selection
from vswap.store.state import Shape, State
from vswap.store.stats import StoreStatistics
from vswap.store.store import Store

__all__ = [
    "Counters",
    "FetchLane",
    "Findings",
    "Gap",
    "Lane",
    "Parked",
    "Policy",
    "Presence",
    "Selection",
    "Shape",
    "State",
    "Store",
    "StoreStatistics",
    "least_memory",
    "segments_for",
]
