"""What the store says of its disk, computed again from the table and from what lies there.

A part of `model.audit.audit`, which has the names of the invariants:

DISK-LIVE, DISK-REUSE, DISK-AGE      vswap/store/disk_log.py
NONCE-ONCE                           vswap/store/cipher.py
UNIT                                 each entry names a unit of its slot that can be read
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from model.sealed import given_out, sequences, unit_on_disk

from vswap.codec import STORED
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Store
from vswap.store import entry as entries
from vswap.store.decoder import Decoder
from vswap.store.disk_log import FULL

__all__ = ["HEADER", "KNOWN_FLAGS", "Live", "audit_disk", "bad_pages", "disk_statistics", "live_in"]

HEADER = struct.Struct("<IHBBI")  # as vswap/store/unit.py draws it, field by field
KNOWN_FLAGS = entries.HUGE | entries.COLD | entries.LOADED | entries.IDLE
_FREE, _BAD = 0, 3  # the others are taken, which none is in a quiet store, and FULL
_ALIGNMENT = 64
_TAG_SIZE = 16


@dataclass
class Live:
    """What lives in one segment, or in all of them."""

    pages: int = 0
    bytes: int = 0
    hot: int = 0
    huge: int = 0
    cold: int = 0

    def add(self, entry: int) -> None:
        self.pages += 1
        self.bytes += entries.share_of(entry)
        self.hot += not entry & (entries.HUGE | entries.COLD)
        self.huge += bool(entry & entries.HUGE)
        self.cold += bool(entry & entries.COLD)


def live_in(found: dict[int, int]) -> tuple[dict[int, Live], Live]:
    """What lives where by these entries, and in all."""
    live: dict[int, Live] = {}
    total = Live()
    for entry in found.values():
        live.setdefault(entries.segment_of(entry), Live()).add(entry)
        total.add(entry)
    return live, total


def bad_pages(slot: int, pages: bytes, index: int, words_ran_out: bool) -> Iterator[str]:
    """What is wrong with page `index` of a unit, that of `slot`."""
    page = pages[index * PAGE_SIZE :][:PAGE_SIZE]
    if not any(page):
        yield f"UNIT: slot {slot} holds zeros, and is no zero page"
    elif page == page[:8] * (PAGE_SIZE // 8) and not words_ran_out:
        yield f"UNIT: slot {slot} holds one word again and again, in a unit"


def audit_disk(store: Store, away: dict[int, int], words_ran_out: bool) -> Iterator[str]:
    """What is wrong with the disk; `away` are the entries of the slots whose pages are there."""
    yield from _check_live(store, away)
    yield from _check_places(store, away)
    yield from _check_sequences(store)
    yield from _check_units(store, away, words_ran_out)
    yield from _check_overlaps(store, away)


def disk_statistics(store: Store, away: dict[int, int]) -> list[tuple[str, int]]:
    """What the store should say of it, by name."""
    _, total = live_in(away)
    log = store._parts.disk.log
    full = [segment for segment, state in enumerate(log._state) if state == FULL]
    return [
        ("backing_pages", total.pages),
        ("backing_data_size", total.bytes),
        ("bd_count", -(-total.bytes // 4096)),
        ("backing_dead_bytes", sum(log.used_of(segment) for segment in full) - total.bytes),
        ("backing_segments_free", list(log._state[: log.size]).count(_FREE)),
        ("backing_size", log.size * SEGMENT_SIZE),
    ]


def _check_live(store: Store, away: dict[int, int]) -> Iterator[str]:
    ledger = store._parts.disk.log.ledger
    live, total = live_in(away)
    for what in ("pages", "bytes", "hot"):
        for segment, says in enumerate(getattr(ledger, what).tolist()):
            has = getattr(live.get(segment, Live()), what)
            if has != says:
                yield f"DISK-LIVE: disk segment {segment}: {has} {what}, not {says}"
    for name, has, says in (
        ("pages", total.pages, ledger.live_pages),
        ("bytes", total.bytes, ledger.live_bytes),
        ("huge", total.huge, ledger.huge),
        ("cold", total.cold, ledger.cold),
        ("staged", 0, ledger.staged),
    ):
        if has != says:
            yield f"DISK-LIVE: {has} {name} in all, not {says}"


def _check_places(store: Store, away: dict[int, int]) -> Iterator[str]:
    """A disk segment is in use if anything lives in it, and else it is free, or bad."""
    log = store._parts.disk.log
    in_use = {entries.segment_of(entry) for entry in away.values()}
    for segment in sorted(in_use):
        if segment >= log.size:
            yield f"DISK-REUSE: pages live in disk segment {segment}, of {log.size}"
    for segment, state in enumerate(log._state):
        if state not in (_FREE, FULL, _BAD):
            yield f"DISK-REUSE: disk segment {segment} is taken by nobody"
        elif (state == FULL) != (segment in in_use):
            named = "is" if segment in in_use else "is not"
            yield f"DISK-REUSE: disk segment {segment} has state {state}, and {named} named"
    free = [segment for segment in range(log.size) if log._state[segment] == _FREE]
    if sorted(log._free) != free:
        yield f"DISK-REUSE: the free disk segments are {free}, not {sorted(log._free)}"


def _check_sequences(store: Store) -> Iterator[str]:
    region, log = store._state.backing, store._parts.disk.log
    last, found = given_out(region), sequences(region)
    used = [sequence for sequence in found if sequence]
    if len(set(used)) != len(used):
        yield f"DISK-AGE: two disk segments have the same sequence: {sorted(used)}"
    if max(used, default=0) > last:
        yield f"NONCE-ONCE: {max(used)} is used, and {last} was given out last"
    for segment, state in enumerate(log._state):
        if state == FULL and not found[segment]:
            yield f"DISK-AGE: disk segment {segment} is in use, and has no sequence"
    if log.sequence.tolist() != found[: log.most] or any(found[log.most :]):
        yield "DISK-AGE: the sequences are not those in memory that outlives the worker"


def _check_units(store: Store, away: dict[int, int], words_ran_out: bool) -> Iterator[str]:
    decoder = store._parts.decoder()
    units: dict[entries.Extent, bytes | None] = {}
    for slot, entry in away.items():
        if entry & entries.FLAGS_MASK & ~KNOWN_FLAGS:
            yield f"UNIT: slot {slot}: {entry:#x} has flags that there are not"
            continue
        extent = entries.extent_of(entry)
        if extent.segment >= store._parts.disk.log.size:
            continue  # which has been said
        if extent not in units:
            units[extent] = unit_on_disk(store, extent)
        unit = units[extent]
        if unit is None:
            yield f"UNIT: slot {slot}: its unit is not what lies at {extent}"
        else:
            yield from _check_unit(decoder, slot, entry, unit, words_ran_out)


def _check_unit(
    decoder: Decoder, slot: int, entry: int, unit: bytes, words_ran_out: bool
) -> Iterator[str]:
    first, length_less_one, pages, codec, _checksum = HEADER.unpack_from(unit)
    index, extent = entries.index_of(entry), entries.extent_of(entry)
    length = HEADER.size + length_less_one + 1
    if first + index != slot or index >= pages or pages != extent.pages:
        yield f"UNIT: slot {slot} is page {index} of a unit of slot {first}, {pages} pages"
    elif first // CLUSTER_SLOTS != (first + pages - 1) // CLUSTER_SLOTS:
        yield f"UNIT: slot {slot}: its unit crosses a cluster"
    elif bool(entry & entries.HUGE) != (codec == STORED):
        yield f"UNIT: slot {slot}: HUGE does not agree with codec {codec}"
    elif not length <= len(unit) < length + lcm(_ALIGNMENT, 4 * pages) or any(unit[length:]):
        yield f"UNIT: slot {slot}: {length} bytes, and something else, of {len(unit)}"
    else:
        try:
            found = bytes(decoder.decode(memoryview(unit), 0, first, slot))
        except CorruptError as error:
            yield f"UNIT: {error}"
            return
        if len(found) != pages * PAGE_SIZE:
            yield f"UNIT: slot {slot}: {len(found)} bytes for {pages} pages"
        yield from bad_pages(slot, found, index, words_ran_out)


def _check_overlaps(store: Store, away: dict[int, int]) -> Iterator[str]:
    """Units lie one after the other, within what was written."""
    of, before = -1, 0
    for extent in sorted({entries.extent_of(entry) for entry in away.values()}):
        if extent.segment != of:
            of, before = extent.segment, 0
        if extent.offset < before or extent.offset % _ALIGNMENT or extent.size <= _TAG_SIZE:
            yield f"UNIT: the unit at {extent} begins in the one before it, or ends in itself"
        before = extent.offset + extent.size
        if of < store._parts.disk.log.size and before > store._parts.disk.log.used_of(of):
            yield f"UNIT: the unit at {extent} ends beyond what was written there"
