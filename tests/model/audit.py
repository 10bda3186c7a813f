"""Everything the store derives, computed again from what is really there.

`audit` walks the swap table, the zeromap, the fill words and the log of a quiet store (one that
no thread is using) and names each invariant that does not hold:

TABLE-COUNT, TABLE-HOLE, TABLE-NULL  vswap/store/table.py
LOG-LIVE                             vswap/store/ledger.py
LOG-REUSE, LOG-PLACE, LOG-AGE        vswap/store/log.py
FILL-COUNT, FILL-WORD                vswap/store/words.py
ONE-STATE                            vswap/store/parts.py
DISK-LIVE, DISK-REUSE, DISK-AGE      vswap/store/disk_log.py
NONCE-ONCE                           vswap/store/cipher.py
UNIT                                 each entry names a unit of its slot that can be read
LIMIT                                memory is bounded by what was asked for
LOCKS                                a quiet store holds none

It looks at the regions through their descriptors where a look through the mapping would
allocate a hole, so that an audit changes nothing it is about. It shares no code with the
store's own audit (vswap/store/audit.py), which must come to the same result and is asked too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from model.audit_disk import (
    HEADER,
    KNOWN_FLAGS,
    Live,
    audit_disk,
    bad_pages,
    disk_statistics,
    live_in,
)
from model.memory import data_extents, data_pages, peek, words_in

from vswap.codec import STORED
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Store
from vswap.store import entry as entries
from vswap.store.appender import Appender
from vswap.store.decoder import Decoder
from vswap.store.log import Log
from vswap.store.places import BUSY, HOLE, OPEN, READY, SEALED

__all__ = ["appenders", "audit", "holes"]

_FLAGS_MASK = (1 << entries.SHARE_SHIFT) - 1
_PLACES = {HOLE: "hole", READY: "ready", OPEN: "open", SEALED: "sealed", BUSY: "busy"}


@dataclass
class _Unit:
    """A unit as its entries see it: how many name it, and the share that they agree on."""

    size: int
    pages: int
    share: int
    live: int = 0


@dataclass(frozen=True)
class _Found:
    """What the memory holds, whatever the counts say. Entries by slot, live pages by segment.

    `cached` are those in segments, `away` those on disk.
    """

    table: dict[int, int]
    cached: dict[int, int]
    away: dict[int, int]
    fills: dict[int, int]
    zeros: set[int]
    live: dict[int, Live]
    total: Live


def audit(store: Store, *, lowered: bool = False) -> list[str]:
    """What is wrong with a quiet store, one line each; nothing if nothing is.

    `lowered`: its memory limit may just have been lowered, and what is over it not yet
    been given back.
    """
    found = _look(store)
    return [
        *_check_locks(store),
        *_check_table(store, found.table),
        *_check_zeromap(store, found.zeros),
        *_check_slots(store, set(found.table), found.zeros),
        *_check_fills(store, found.fills),
        *_check_units(store, found.cached),
        *_check_live(store, found),
        *audit_disk(store, found.away, _words_ran_out(store)),
        *_check_places(store),
        *_check_ages(store),
        *_check_memory(store, lowered),
        *_check_statistics(store, found),
        *_check_check(store, found),
    ]


def appenders(store: Store) -> list[Appender]:
    """Those of the lanes, and the one of the upkeep."""
    lanes = [lane._writer._appender for lane in store._lanes if isinstance(lane, Lane)]
    return [*lanes, store._upkeep.jobs.appender]


def holes(log: Log) -> list[int]:
    """The segments without memory: those that were given back, and those never used."""
    places = log._places
    return [*places._holes, *range(places._untouched, len(places.state))]


def _look(store: Store) -> _Found:
    table = words_in(store._state.table)
    fills = {at: entry for at, entry in table.items() if entry >> 62 == entries.KIND_FILL}
    away = {at: entry for at, entry in table.items() if entry >> 62 == entries.KIND_BACKING}
    cached = {at: entry for at, entry in table.items() if at not in fills and at not in away}
    return _Found(table, cached, away, fills, _zero_slots(store), *live_in(cached))


def _zero_slots(store: Store) -> set[int]:
    region = store._state.zeromap
    found = set()
    for start, stop in data_extents(region):
        octets = np.frombuffer(peek(region, start, stop - start), np.uint8)
        bits = np.unpackbits(octets, bitorder="little")
        found.update((start * 8 + np.flatnonzero(bits)).tolist())
    return found


def _check_locks(store: Store) -> Iterator[str]:
    parts = store._parts
    for stripe, lock in enumerate(parts.locks._locks):
        if lock.locked():
            yield f"LOCKS: cluster lock {stripe} is held"
    for name, lock in (
        ("log's", parts.log._lock),
        ("fill words'", parts.words._lock),
        ("upkeep's", store._upkeep.lock),
        ("lanes'", store._lanes_lock),
        ("disk's", parts.disk._lock),
        ("disk log's", parts.disk.log._lock),
        ("fetched units'", store._fetched._lock),
    ):
        if lock.locked():
            yield f"LOCKS: the {name} lock is held"
    if parts.disk._users:
        yield f"LOCKS: {parts.disk._users} read from the backing"
    if any(window.busy for window in parts.disk.windows._windows):
        yield "LOCKS: a window is being filled"


# --- Table, zeromap, fill words ---------------------------------------------------------


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


def _check_fills(store: Store, fills: dict[int, int]) -> Iterator[str]:
    words, region = store._parts.words, store._state.words
    most = len(words.count)
    in_use = Counter[int]()
    for slot, entry in fills.items():
        number = (entry & (1 << 62) - 1) >> 20
        if entry & (1 << 20) - 1 or number >= most:
            yield f"FILL-WORD: slot {slot}: {entry:#x} names no word"
        in_use[number] += 1
    for number in range(most):
        if in_use[number] != words.count[number]:
            has, says = in_use[number], words.count[number]
            yield f"FILL-COUNT: {has} pages are of word {number}, its count is {says}"
    if words.pages != len(fills) or words._staged:
        yield f"FILL-COUNT: {len(fills)} pages are filled with words, not {words.pages}"
    if sorted(words._free) != [number for number in range(most) if not in_use[number]]:
        yield "FILL-COUNT: the free numbers are not those that no entry names"
    there = {number: peek(region, number * 8, 8) for number in in_use}
    if {word: number for number, word in there.items()} != words._numbers:
        yield "FILL-WORD: the words in memory are not those that are known by number"
    if bytes(8) in there.values():
        yield "FILL-WORD: a word is zero, and pages of it are no zero pages"


# --- Units ------------------------------------------------------------------------------


def _words_ran_out(store: Store) -> bool:
    """Whether pages of one word may be in units, for want of numbers."""
    last_word = (len(store._parts.words.count) - 1) * 8
    return any(peek(store._state.words, last_word, 8))


def _check_units(store: Store, cached: dict[int, int]) -> Iterator[str]:
    log, segments = store._parts.log, store._state.segments
    decoder = store._parts.decoder()
    words_ran_out = _words_ran_out(store)
    units: dict[int, _Unit] = {}
    for slot, entry in cached.items():
        segment = entries.segment_of(entry)
        if entry >> 62 != entries.KIND_CACHE or entry & _FLAGS_MASK & ~KNOWN_FLAGS:
            yield f"UNIT: slot {slot}: {entry:#x} is no entry of the front cache"
        elif segment >= len(log._places.state) or log._places.state[segment] not in (OPEN, SEALED):
            yield f"LOG-REUSE: slot {slot} lives in segment {segment}, which is not in use"
        else:
            position, share = entries.position_of(entry), entries.share_of(entry)
            header = HEADER.unpack(peek(segments, position, HEADER.size))
            yield from _check_unit(slot, entry, header)
            yield from _check_decodes(decoder, slot, entry, words_ran_out)
            made = _Unit(_size_of(header), header[2], share)
            unit = units.setdefault(position, made)
            unit.live += 1
            if unit.share != share:
                yield f"UNIT: the entries of the unit at {position:#x} disagree on its share"
    yield from _check_shares(units)
    yield from _check_extents(store, units)


def _size_of(header: tuple[int, int, int, int, int]) -> int:
    step = 4 * max(header[2], 1)
    return -(-(HEADER.size + header[1] + 1) // step) * step


def _check_unit(slot: int, entry: int, header: tuple[int, int, int, int, int]) -> Iterator[str]:
    first, _length_less_one, pages, codec, _checksum = header
    index = entries.index_of(entry)
    if first + index != slot or index >= pages:
        yield f"UNIT: slot {slot} is page {index} of a unit of slot {first}, {pages} pages"
        return
    if bool(entry & entries.HUGE) != (codec == STORED):
        yield f"UNIT: slot {slot}: HUGE does not agree with codec {codec}"
    if first // CLUSTER_SLOTS != (first + pages - 1) // CLUSTER_SLOTS:
        yield f"UNIT: slot {slot}: its unit crosses a cluster"


def _check_decodes(decoder: Decoder, slot: int, entry: int, words_ran_out: bool) -> Iterator[str]:
    try:
        data, pages = decoder.unit(entry, slot)
    except CorruptError as error:
        yield f"UNIT: {error}"
        return
    if len(data) != pages * PAGE_SIZE:
        yield f"UNIT: slot {slot}: {len(data)} bytes for {pages} pages"
        return
    yield from bad_pages(slot, bytes(data), entries.index_of(entry), words_ran_out)


def _check_shares(units: dict[int, _Unit]) -> Iterator[str]:
    """A unit is shared by its pages, or by those that lived when it was moved."""
    for position, unit in units.items():
        possible = [
            min(unit.size // among & -4, entries.SHARE_MAX)
            for among in range(unit.live, unit.pages + 1)
        ]
        if unit.share not in possible:
            yield (
                f"UNIT: {unit.live} of {unit.pages} pages live in the unit at {position:#x}, of "
                f"{unit.size} bytes, and each has a share of {unit.share}"
            )


def _check_extents(store: Store, units: dict[int, _Unit]) -> Iterator[str]:
    """Units lie each in one segment, one after the other, below where the next will go."""
    used = {one._segment: one._used for one in appenders(store)}
    before = 0
    for start, unit in sorted(units.items()):
        segment = start // SEGMENT_SIZE
        if start < before:
            yield f"UNIT: the unit at {start:#x} begins in the one before it"
        before = start + unit.size
        if before > segment * SEGMENT_SIZE + used.get(segment, SEGMENT_SIZE):
            yield f"UNIT: the unit at {start:#x} ends beyond what its segment has in use"


# --- The log ----------------------------------------------------------------------------


def _check_live(store: Store, found: _Found) -> Iterator[str]:
    ledger = store._parts.log.ledger
    for what in ("pages", "bytes", "hot"):
        counted = getattr(ledger, what).tolist()
        for segment, says in enumerate(counted):
            has = getattr(found.live.get(segment, Live()), what)
            if has != says:
                yield f"LOG-LIVE: segment {segment}: {has} {what}, not {says}"
    for segment, place in enumerate(store._parts.log._places.state):
        if place == SEALED and not ledger.bytes[segment] <= store._parts.log._used[segment]:
            yield f"LOG-LIVE: more lives in segment {segment} than was put there"
    for name, total, says in (
        ("pages", found.total.pages, ledger.live_pages),
        ("bytes", found.total.bytes, ledger.live_bytes),
        ("huge", found.total.huge, ledger.huge),
        ("cold", found.total.cold, ledger.cold),
        ("staged", 0, ledger.staged),
    ):
        if total != says:
            yield f"LOG-LIVE: {total} {name} in all, not {says}"
    for one in appenders(store):
        if one._pages or one._size or one._hot or one._huge or one._cold:
            yield f"LOG-LIVE: segment {one._segment} holds what has not been counted"


def _check_places(store: Store) -> Iterator[str]:
    log = store._parts.log
    places, states = log._places, list(log._places.state)
    being_filled = [one._segment for one in appenders(store) if one._segment is not None]
    for state, listed in (
        (HOLE, holes(log)),
        (READY, list(places._ready)),
        (OPEN, being_filled),
        (BUSY, []),
    ):
        if sorted(listed) != [s for s, place in enumerate(states) if place == state]:
            yield f"LOG-PLACE: the {_PLACES[state]} segments are not {sorted(listed)}"
    for segment, place in enumerate(states):
        if place == SEALED and not log.ledger.pages[segment]:
            yield f"LOG-REUSE: segment {segment} is sealed and empty, and not freed"
        if place not in (SEALED, OPEN) and log.ledger.pages[segment]:
            yield f"LOG-REUSE: segment {segment} is {_PLACES[place]}, and pages live in it"
    for name, has, says in (
        ("in use", len(states) - states.count(HOLE), places.in_use),
        ("open", states.count(OPEN), places.open),
        ("sealed", states.count(SEALED), places.sealed),
        ("busy", 0, places.busy),
    ):
        if has != says:
            yield f"LOG-PLACE: {has} segments are {name}, not {says}"


def _check_ages(store: Store) -> Iterator[str]:
    log = store._parts.log
    states = log._places.state
    in_use = [s for s, place in enumerate(states) if place in (OPEN, SEALED)]
    sequences = log.sequence[in_use].tolist()
    if len(set(sequences)) != len(sequences) or not all(sequences):
        yield f"LOG-AGE: the sequences of segments in use are not distinct: {sequences}"
    for segment in in_use:
        if math.isfinite(log.born[segment]) != (states[segment] == SEALED):
            place = _PLACES[states[segment]]
            yield f"LOG-AGE: segment {segment} is {place} and born at {log.born[segment]}"


# --- Memory, and what the store says ----------------------------------------------------


def _check_memory(store: Store, lowered: bool) -> Iterator[str]:
    """Segments that count as holes have no memory behind them: the limit is of memory."""
    log, limit = store._parts.log, store._memory_limit
    places = log._places
    holding = {page * PAGE_SIZE // SEGMENT_SIZE for page in data_pages(store._state.segments)}
    for segment in sorted(holding):
        if places.state[segment] == HOLE:
            yield f"LOG-PLACE: segment {segment} counts as a hole and has memory"
    taken = places.in_use - len(places._ready)
    if not max(log.limit, taken) <= places._ceiling:
        yield f"LIMIT: {taken} segments, limit {log.limit}, ceiling {places._ceiling}"
    used = sum(region.allocated() for region in store._state.regions())
    if lowered:
        return
    if places.in_use > log.limit:
        yield f"LIMIT: {places.in_use} segments have memory, and {log.limit} may"
    if places._ceiling != log.limit:
        yield f"LIMIT: the ceiling is {places._ceiling}, and the limit {log.limit}"
    if limit is not None and used > limit:
        yield f"LIMIT: {used} bytes are used, and {limit} may be"


def _check_statistics(store: Store, found: _Found) -> Iterator[str]:
    says = store.statistics()
    log, zeros, fills = store._parts.log, len(found.zeros), len(found.fills)
    sealed = [s for s, place in enumerate(log._places.state) if place == SEALED]
    dead = [int(log._used[s]) - found.live.get(s, Live()).bytes for s in sealed]
    for name, value in (
        ("stored_pages", found.total.pages),
        ("cold_pages", found.total.cold),
        ("huge_pages", found.total.huge),
        ("zero_pages", zeros),
        ("fill_pages", fills),
        ("same_pages", zeros + fills),
        ("orig_data_size", (found.total.pages + len(found.away)) * PAGE_SIZE),
        ("compr_data_size", found.total.bytes),
        ("dead_bytes", sum(dead)),
        ("table_bytes", len(data_pages(store._state.table)) * PAGE_SIZE),
        ("mem_used_total", sum(region.allocated() for region in store._state.regions())),
        *disk_statistics(store, found.away),
    ):
        if getattr(says, name) != value:
            yield f"statistics: {name} is {getattr(says, name)}, and should be {value}"


def _check_check(store: Store, found: _Found) -> Iterator[str]:
    """The store's own audit finds nothing either, and has looked at everything."""
    findings = store.check()
    for problem in findings.problems:
        yield f"check: {problem}"
    if findings.pages != len(found.table):
        yield f"check: {findings.pages} pages were looked at, of {len(found.table)}"
    units = len({entries.position_of(entry) for entry in found.cached.values()})
    units += len({entries.extent_of(entry) for entry in found.away.values()})
    if not findings.problems and findings.units < units:
        yield f"check: {findings.units} units were read, of {units}"
