"""What a store says about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BackingStatistics", "LogStatistics", "StoreStatistics", "UpkeepStatistics"]


@dataclass(frozen=True)
class LogStatistics:
    """Counts of pages and of segments. `bytes_live` is the sum of live pages' shares."""

    pages_live: int
    bytes_live: int
    pages_staged: int
    pages_cold: int
    huge_pages: int
    huge_pages_since: int
    segments_limit: int
    segments_in_use: int
    segments_open: int
    segments_sealed: int
    segments_ready: int
    segments_busy: int


@dataclass(frozen=True)
class UpkeepStatistics:
    """Segments cleaned, pages moved by cleaning, pages moved down: since the start.

    Pages written to the disk, bytes that their units take there, disk segments cleaned.
    """

    segments_cleaned: int
    pages_compacted: int
    pages_recompressed: int
    writeback_pages: int
    writeback_bytes: int
    backing_segments_cleaned: int


@dataclass(frozen=True)
class BackingStatistics:
    """The backing: what is on it, what it does, and what may be written to it.

    The first three are zram's ``bd_stat``, in units of 4 KiB: data on disk that is alive, blocks
    read, blocks written. `backing_state` is "none", "attached", "detaching", or "resting" while
    writing rests because it has failed; `detach_result` says how the last detaching ended: "" (it
    has not), "detached", "stopped", "memory", "unreadable". The writeback limit is in units of
    4 KiB a day. `drain_visits` and `drain_reads` are clusters looked at and disk segments read by
    the last detaching.
    """

    bd_count: int
    bd_reads: int
    bd_writes: int
    backing: str
    backing_state: str
    backing_size: int
    backing_pages: int
    backing_data_size: int
    backing_dead_bytes: int
    backing_segments_free: int
    detach_result: str
    drain_visits: int
    drain_reads: int
    writeback_limit: int
    writeback_limit_enable: bool
    writeback_limit_left: int
    backing_failed_reads: int
    backing_failed_writes: int
    backing_corrupt: int


@dataclass(frozen=True)
class StoreStatistics(UpkeepStatistics, BackingStatistics):
    """Sizes in bytes; pages, clusters and segments in numbers.

    Names that zram has (Documentation/admin-guide/blockdev/zram.rst) mean what they mean
    there: so `orig_data_size` counts pages on disk too, and `compr_data_size`, which includes unit
    headers and padding, does not. `promoted_pages` have been read from the disk again, and are back
    in memory. `mem_used_total` is the kernel's
    own count of the memory behind the state: segments (those kept ready included), table,
    zeromap, fill words and receive buffers. `dictionary_saving` is the
    share of bytes that a dictionary saved when it was tried out; with 0 `dictionary_bytes` it was
    not kept, or not tried yet. `pool_limit_hit` is zswap's word for writes refused
    for want of room. The last group only grows.
    """

    size: int
    orig_data_size: int
    compr_data_size: int
    mem_used_total: int
    mem_limit: int
    mem_used_max: int
    huge_pages: int
    huge_pages_since: int
    stored_pages: int
    cold_pages: int
    zero_pages: int
    fill_pages: int
    same_pages: int
    clusters_used: int
    segment_bytes: int
    table_bytes: int
    zeromap_bytes: int
    buffer_bytes: int
    segments_open: int
    segments_sealed: int
    segments_ready: int
    dead_bytes: int
    dictionary_bytes: int
    dictionary_saving: float

    reads: int
    writes: int
    discards: int
    pages_read: int
    pages_written: int
    failed_reads: int
    failed_writes: int
    invalid_io: int
    notify_free: int
    pool_limit_hit: int
    promoted_pages: int
