"""What `systemctl status` shows of a device: one line, anew every some seconds.

The worker says it, who alone knows; a unit has to let it (NotifyAccess=all).
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from vswap.geometry import PAGE_SIZE
from vswap.store import StoreStatistics
from vswapd.figures import human, ratio
from vswapd.sdnotify import Keeper

__all__ = ["keep_told", "summary"]

_SECONDS = 10.0


def summary(store: StoreStatistics) -> str:
    """How much is stored, in how much memory, and what is elsewhere."""
    data = store.orig_data_size
    compressed = store.compr_data_size + store.backing_data_size
    found = ratio(data, compressed)
    by = "" if found is None else f" ({found:.2f}:1)"
    parts = [
        f"{data // PAGE_SIZE} pages, {human(data)} in {human(compressed)}{by}",
        f"{human(store.mem_used_total)} of memory taken",
    ]
    if store.backing_state != "none":
        parts.append(f"{human(store.backing_data_size)} on disk")
    return ", ".join(parts)


async def keep_told(keeper: Keeper, statistics: Callable[[], StoreStatistics]) -> None:
    """Say it as long as the worker serves."""
    while True:
        keeper.tell(f"STATUS={summary(statistics())}", wait=False)
        await trio.sleep(_SECONDS)
