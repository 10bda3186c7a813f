"""What a store says about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LogStatistics", "StoreStatistics", "UpkeepStatistics"]


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
    """Segments cleaned, pages moved by cleaning, pages moved down: since the start."""

    segments_cleaned: int
    pages_compacted: int
    pages_recompressed: int


@dataclass(frozen=True)
class StoreStatistics:
    """Sizes in bytes; pages, clusters and segments in numbers.

    Names that zram has (Documentation/admin-guide/blockdev/zram.rst) mean what they mean
    there. `compr_data_size` includes unit headers and padding. `mem_used_total` is the kernel's
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
    segments_cleaned: int
    pages_compacted: int
    pages_recompressed: int
