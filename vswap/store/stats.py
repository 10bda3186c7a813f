"""What a store says about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StoreStatistics"]


@dataclass(frozen=True)
class StoreStatistics:
    """Sizes in bytes; pages, clusters and segments in numbers.

    Names that zram has (Documentation/admin-guide/blockdev/zram.rst) mean what they mean
    there. `compr_data_size` includes unit headers and padding. `mem_used_total` is the kernel's
    own count of the memory behind the state: segments (those kept ready included), table,
    zeromap and receive buffers. The last group only grows.
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
    zero_pages: int
    clusters_used: int
    segment_bytes: int
    table_bytes: int
    zeromap_bytes: int
    buffer_bytes: int
    segments_open: int
    segments_sealed: int
    segments_ready: int

    reads: int
    writes: int
    discards: int
    pages_read: int
    pages_written: int
    failed_reads: int
    failed_writes: int
    invalid_io: int
    notify_free: int
