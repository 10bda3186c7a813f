"""Everything the store derives, computed again from what is really there.

`audit` walks the swap table, the zeromap and the log of a quiet store (one that no thread is
using) and names each invariant that does not hold:

TABLE-COUNT, TABLE-HOLE, TABLE-NULL  vswap/store/table.py
LOG-LIVE, LOG-REUSE, LOG-PLACE       vswap/store/log.py
ONE-STATE                            vswap/store/parts.py
UNIT                                 each entry names a unit of its slot that can be read
LOCKS                                a quiet store holds none

It looks at the regions through their descriptors where a look through the mapping would
allocate a hole, so that an audit changes nothing it is about.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from model.memory import data_extents, data_pages, peek

from vswap.codec import CODECS, STORED
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Store
from vswap.store import entry as entries
from vswap.store.log import _BUSY, _HOLE, _OPEN, _READY, _SEALED, Log
from vswap.store.unit import Decoder

__all__ = ["audit"]

_HEADER = struct.Struct("<IHBBI")  # as vswap/store/unit.py draws it, field by field
_KNOWN_FLAGS = entries.HUGE
_FLAGS_MASK = (1 << entries.SHARE_SHIFT) - 1
_PLACES = {_HOLE: "hole", _READY: "ready", _OPEN: "open", _SEALED: "sealed", _BUSY: "busy"}


@dataclass
class _Live:
    """What lives in one segment."""

    pages: int = 0
    bytes: int = 0
    huge: int = 0


def audit(store: Store) -> list[str]:
    """What is wrong with a quiet store, one line each; nothing if nothing is."""
    table = _table_entries(store)
    zeros = _zero_slots(store)
    live = _live(store, table)
    return [
        *_check_locks(store),
        *_check_table(store, table),
        *_check_zeromap(store, zeros),
        *_check_slots(store, set(table), zeros),
        *_check_units(store, table),
        *_check_live(store, live),
        *_check_places(store),
        *_check_memory(store),
        *_check_statistics(store, len(table), len(zeros), live),
    ]


def _table_entries(store: Store) -> dict[int, int]:
    """Every entry that is not empty, by slot: what the memory holds, whatever the counts say."""
    region = store._state.table
    found = {}
    for start, stop in data_extents(region):
        words = np.frombuffer(peek(region, start, stop - start), np.uint64)
        for at in np.flatnonzero(words).tolist():
            found[start // 8 + at] = int(words[at])
    return found


def _zero_slots(store: Store) -> set[int]:
    region = store._state.zeromap
    found = set()
    for start, stop in data_extents(region):
        octets = np.frombuffer(peek(region, start, stop - start), np.uint8)
        bits = np.unpackbits(octets, bitorder="little")
        found.update((start * 8 + np.flatnonzero(bits)).tolist())
    return found


def _live(store: Store, table: dict[int, int]) -> dict[int, _Live]:
    found: dict[int, _Live] = {}
    for entry in table.values():
        of = found.setdefault(entries.segment_of(entry), _Live())
        of.pages += 1
        of.bytes += entries.share_of(entry)
        of.huge += entry & entries.HUGE
    return found


def _check_locks(store: Store) -> Iterator[str]:
    parts = store._parts
    for stripe, lock in enumerate(parts.locks._locks):
        if lock.locked():
            yield f"LOCKS: cluster lock {stripe} is held"
    if parts.log._lock.locked():
        yield "LOCKS: the log's lock is held"


def _check_table(store: Store, table: dict[int, int]) -> Iterator[str]:
    counts = store._parts.table.counts
    in_use = Counter(slot // CLUSTER_SLOTS for slot in table)
    for cluster in {*in_use, *np.flatnonzero(counts).tolist()}:
        if in_use[cluster] != counts[cluster]:
            has, says = in_use[cluster], counts[cluster]
            yield f"TABLE-COUNT: cluster {cluster} has {has} entries, its count is {says}"
    present = data_pages(store._state.table)
    for cluster in sorted(present - set(in_use)):
        yield f"TABLE-HOLE: cluster {cluster} is empty, and its page is no hole"
    for cluster in np.flatnonzero(counts).tolist():
        if cluster not in present:
            yield f"TABLE-NULL: cluster {cluster} is in use, and its page was given back"


def _check_zeromap(store: Store, zeros: set[int]) -> Iterator[str]:
    counts = store._parts.zeromap.counts
    in_use = Counter(slot // CLUSTER_SLOTS for slot in zeros)
    for cluster in {*in_use, *np.flatnonzero(counts).tolist()}:
        if in_use[cluster] != counts[cluster]:
            has, says = in_use[cluster], counts[cluster]
            yield f"zeromap: cluster {cluster} has {has} bits, its count is {says}"


def _check_slots(store: Store, stored: set[int], zeros: set[int]) -> Iterator[str]:
    for slot in sorted(stored & zeros):
        yield f"ONE-STATE: slot {slot} is stored and zero"
    for slot in sorted(stored | zeros):
        if slot >= store.geometry.slots:
            yield f"ONE-STATE: slot {slot} is beyond the device's end"


def _check_units(store: Store, table: dict[int, int]) -> Iterator[str]:
    log, segments = store._parts.log, store._state.segments
    codecs = sorted((make() for make in CODECS.values()), key=lambda made: made.number)
    decoder = Decoder(segments.view, codecs)
    extents: dict[int, int] = {}
    for slot, entry in table.items():
        segment = entries.segment_of(entry)
        if entry >> 62 != entries.KIND_CACHE or entry & _FLAGS_MASK & ~_KNOWN_FLAGS:
            yield f"UNIT: slot {slot}: {entry:#x} is no entry of the front cache"
        elif segment >= len(log.pages) or log._state[segment] not in (_OPEN, _SEALED):
            yield f"LOG-REUSE: slot {slot} lives in segment {segment}, which is not in use"
        else:
            position = entries.position_of(entry)
            header = _HEADER.unpack(peek(segments, position, _HEADER.size))
            yield from _check_unit(slot, entry, header)
            size = entries.share_of(entry) * header[2]
            if extents.setdefault(position, position + size) != position + size:
                yield f"UNIT: the entries of the unit at {position:#x} disagree on its share"
            yield from _check_decodes(decoder, slot, entry)
    yield from _check_extents(store, extents)


def _check_unit(slot: int, entry: int, header: tuple[int, int, int, int, int]) -> Iterator[str]:
    first, length_less_one, pages, codec, _checksum = header
    index = entries.index_of(entry)
    if first + index != slot or index >= pages:
        yield f"UNIT: slot {slot} is page {index} of a unit of slot {first}, {pages} pages"
        return
    step = 4 * pages
    size = -(-(_HEADER.size + length_less_one + 1) // step) * step
    if entries.share_of(entry) * pages != size:
        yield f"UNIT: slot {slot}: {pages} shares of {entries.share_of(entry)} are not {size}"
    if bool(entry & entries.HUGE) != (codec == STORED):
        yield f"UNIT: slot {slot}: HUGE does not agree with codec {codec}"
    if first // CLUSTER_SLOTS != (first + pages - 1) // CLUSTER_SLOTS:
        yield f"UNIT: slot {slot}: its unit crosses a cluster"


def _check_decodes(decoder: Decoder, slot: int, entry: int) -> Iterator[str]:
    try:
        data, pages = decoder.unit(entry, slot)
    except CorruptError as error:
        yield f"UNIT: {error}"
    else:
        if len(data) != pages * PAGE_SIZE:
            yield f"UNIT: slot {slot}: {len(data)} bytes for {pages} pages"
        elif not any(data[entries.index_of(entry) * PAGE_SIZE :][:PAGE_SIZE]):
            yield f"UNIT: slot {slot} holds zeros, and is no zero page"


def _check_extents(store: Store, extents: dict[int, int]) -> Iterator[str]:
    """Units lie each in one segment, one after the other, below where the next will go."""
    used = {lane._writer._appender._segment: lane._writer._appender._used for lane in store._lanes}
    before = 0
    for start, stop in sorted(extents.items()):
        segment = start // SEGMENT_SIZE
        if start < before:
            yield f"UNIT: the unit at {start:#x} begins in the one before it"
        if stop > segment * SEGMENT_SIZE + used.get(segment, SEGMENT_SIZE):
            yield f"UNIT: the unit at {start:#x} ends beyond what its segment has in use"
        before = stop


def _check_live(store: Store, live: dict[int, _Live]) -> Iterator[str]:
    log = store._parts.log
    for segment in range(len(log.pages)):
        has = live.get(segment, _Live())
        if has.pages != log.pages[segment]:
            yield f"LOG-LIVE: segment {segment}: {has.pages} pages, not {log.pages[segment]}"
        if has.bytes != log.bytes[segment]:
            yield f"LOG-LIVE: segment {segment}: {has.bytes} bytes, not {log.bytes[segment]}"
    for name, total, says in (
        ("pages", sum(has.pages for has in live.values()), log._live_pages),
        ("bytes", sum(has.bytes for has in live.values()), log._live_bytes),
        ("huge", sum(has.huge for has in live.values()), log._live_huge),
    ):
        if total != says:
            yield f"LOG-LIVE: {total} {name} live in all, not {says}"


def _check_places(store: Store) -> Iterator[str]:
    log = store._parts.log
    places = list(log._state)
    lanes = [lane._writer._appender._segment for lane in store._lanes]
    for state, listed in ((_HOLE, holes(log)), (_READY, log._ready), (_OPEN, lanes), (_BUSY, [])):
        if sorted(listed) != [s for s, place in enumerate(places) if place == state]:
            yield f"LOG-PLACE: the {_PLACES[state]} segments are not {sorted(listed)}"
    for segment, place in enumerate(places):
        if place == _SEALED and not log.pages[segment]:
            yield f"LOG-REUSE: segment {segment} is sealed and empty, and not freed"
        if place not in (_SEALED, _OPEN) and log.pages[segment]:
            yield f"LOG-REUSE: segment {segment} is {_PLACES[place]}, and pages live in it"
    for appender in (lane._writer._appender for lane in store._lanes):
        if appender._pages or appender._size or appender._huge:
            yield f"LOG-LIVE: segment {appender._segment} holds what has not been counted"
    in_use = len(places) - places.count(_HOLE)
    if log._in_use != in_use:
        yield f"LOG-PLACE: {in_use} segments are in use, not {log._in_use}"
    if not in_use <= log._in_use_max <= log._limit:
        yield f"LOG-PLACE: {in_use} in use, {log._in_use_max} at most, limit {log._limit}"


def holes(log: Log) -> list[int]:
    """The segments without memory: those that were given back, and those never used."""
    return [*log._holes, *range(log._untouched, len(log._state))]


def _check_memory(store: Store) -> Iterator[str]:
    """Segments that count as holes have no memory behind them: the limit is of memory."""
    log = store._parts.log
    holding = {page * PAGE_SIZE // SEGMENT_SIZE for page in data_pages(store._state.segments)}
    for segment in sorted(holding):
        if log._state[segment] == _HOLE:
            yield f"LOG-PLACE: segment {segment} counts as a hole and has memory"


def _check_statistics(
    store: Store, stored: int, zeros: int, live: dict[int, _Live]
) -> Iterator[str]:
    says = store.statistics()
    for name, value in (
        ("stored_pages", stored),
        ("zero_pages", zeros),
        ("orig_data_size", stored * PAGE_SIZE),
        ("compr_data_size", sum(has.bytes for has in live.values())),
        ("huge_pages", sum(has.huge for has in live.values())),
        ("table_bytes", len(data_pages(store._state.table)) * PAGE_SIZE),
    ):
        if getattr(says, name) != value:
            yield f"statistics: {name} is {getattr(says, name)}, and should be {value}"
