"""Self audit: everything the store derives, computed again from what is really there.

In two parts, so that a busy device can be audited. The *snapshot* stops the store, for as long
as it takes to copy the table's used pages, the zeromap's and the counts: every cluster lock is
held, so nothing is half done, and what has been appended and not been published is known
by its number. All sums are checked on the copy. Then the *units* are read, one after the
other, each under its cluster's lock and for no longer than reading takes.

What is checked has the names of the invariants: TABLE-COUNT (vswap/store/table.py), LOG-LIVE
(ledger.py), LOG-REUSE (log.py), DISK-LIVE and DISK-REUSE (disk_log.py), FILL-COUNT (words.py),
ONE-STATE (parts.py), and UNIT: each entry names a unit of its slot that can be read. (Units on
disk are read with no lock held.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from vswap.errors import CorruptError, MediumError
from vswap.geometry import CLUSTER_SHIFT, CLUSTER_SLOTS
from vswap.store import places
from vswap.store.decoder import Decoder
from vswap.store.disk_log import FULL
from vswap.store.entry import (
    ALIGNMENT,
    COLD,
    FIRST_FILL,
    HUGE,
    KIND_BACKING,
    KIND_CACHE,
    KIND_FILL,
    KIND_SHIFT,
    NOT_HOT,
    SHARE_MASK,
    SHARE_SHIFT,
    UNIT_SHIFT,
)
from vswap.store.fetch import Fetcher, Gap
from vswap.store.ledger import Ledger, Totals
from vswap.store.parts import Parts
from vswap.store.select import segments_of
from vswap.store.words import MAX_WORDS

__all__ = ["Findings", "audit"]

_AT_ONCE = 32
"""Slots whose units are read under one hold of their cluster's lock."""

_MOST = 100
"""Findings after which there is no point in going on."""

_SPARE = 64
"""Clusters that may come into use while room for copies of the others is made."""

IN_USE = (places.OPEN, places.SEALED)

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Findings:
    """What an audit found: problems, one line each, none if all is well.

    `stopped` is for how many seconds the store stood still; `pages` and `units` what was read.
    """

    problems: tuple[str, ...]
    pages: int
    units: int
    stopped: float


@dataclass(frozen=True)
class _Books:
    """Copies of the counts of memory's segments or of the disk's."""

    states: Array
    pages: Array
    bytes: Array
    hot: Array
    totals: Totals

    @classmethod
    def of(cls, states: bytearray, ledger: Ledger) -> _Books:
        """A copy; the caller sees to it that nothing changes."""
        return cls(
            np.frombuffer(bytes(states), np.uint8),
            *(ledger.pages.copy(), ledger.bytes.copy(), ledger.hot.copy()),
            ledger.totals(),
        )


@dataclass(frozen=True)
class _Snapshot:
    """Copies of one instant; `entries` and `bits` by used cluster, the ledger's by segment."""

    clusters: Numbers
    entries: Array
    counts: Array
    zero_clusters: Numbers
    bits: Array
    zero_counts: Array
    log: _Books
    disk: _Books
    fills: Array
    fills_staged: int
    stopped: float


def audit(parts: Parts, fetcher: Fetcher) -> Findings:
    """Audit a store, quiet or busy. `fetcher` must be the caller's own."""
    copy = _snapshot(parts)
    problems = [*_check_clusters(copy), *_check_slots(parts, copy)]
    problems += _check_kinds(copy)
    problems += _check_books(copy.entries, KIND_CACHE, copy.log, "LOG", IN_USE)
    problems += _check_books(copy.entries, KIND_BACKING, copy.disk, "DISK", (FULL,))
    units = 0
    if not problems:
        for found in _read_units(parts, fetcher, copy.clusters):
            if not found:
                units += 1
            elif len(problems) < _MOST:
                problems.append(found)
    return Findings(tuple(problems[:_MOST]), int(copy.counts.sum()), units, copy.stopped)


def _snapshot(parts: Parts) -> _Snapshot:
    table, zeromap = parts.table, parts.zeromap
    entries: Array = np.zeros((0, CLUSTER_SLOTS), np.uint64)
    bits: Array = np.zeros((0, CLUSTER_SLOTS // 8), np.uint8)
    while True:
        began = time.monotonic()
        with parts.locks.all(), parts.log.still() as books, parts.disk.log.still() as disk_books:
            used, zero = np.flatnonzero(table.counts), np.flatnonzero(zeromap.counts)
            if len(used) <= len(entries) and len(zero) <= len(bits):
                np.take(table.pages, used, axis=0, out=entries[: len(used)], mode="clip")
                np.take(zeromap.pages, zero, axis=0, out=bits[: len(zero)], mode="clip")
                return _Snapshot(
                    *(used, entries[: len(used)], table.counts[used]),
                    *(zero, bits[: len(zero)], zeromap.counts[zero]),
                    _Books.of(*books),
                    _Books.of(*disk_books),
                    *parts.words.copy(),
                    time.monotonic() - began,
                )
        # Room for the copies is made, and touched, while nothing is stopped for it.
        entries = np.full((len(used) + _SPARE, CLUSTER_SLOTS), 1, np.uint64)
        bits = np.full((len(zero) + _SPARE, CLUSTER_SLOTS // 8), 1, np.uint8)


def _check_clusters(copy: _Snapshot) -> Iterator[str]:
    for cluster, has, says in _differences(
        copy.clusters, np.count_nonzero(copy.entries, axis=1), copy.counts
    ):
        yield f"TABLE-COUNT: cluster {cluster} has {has} entries, its count is {says}"
    has_zeros = np.unpackbits(copy.bits, axis=1).sum(axis=1)
    for cluster, has, says in _differences(copy.zero_clusters, has_zeros, copy.zero_counts):
        yield f"ZERO-COUNT: cluster {cluster} has {has} bits, its count is {says}"


def _check_slots(parts: Parts, copy: _Snapshot) -> Iterator[str]:
    both, in_table, in_bits = np.intersect1d(copy.clusters, copy.zero_clusters, return_indices=True)
    bits = np.unpackbits(copy.bits[in_bits], axis=1, bitorder="little").astype(bool)
    for row, index in np.argwhere(bits & (copy.entries[in_table] != 0)):
        yield f"ONE-STATE: slot {both[row] * CLUSTER_SLOTS + index} is stored and zero"
    slots = copy.clusters[:, None] * CLUSTER_SLOTS + np.arange(CLUSTER_SLOTS)
    for slot in slots[(slots >= parts.geometry.slots) & (copy.entries != 0)]:
        yield f"ONE-STATE: slot {slot} is beyond the device's end"


def _check_kinds(copy: _Snapshot) -> Iterator[str]:
    kind = copy.entries >> np.uint64(KIND_SHIFT)
    for entry in copy.entries[(kind == 0) & (copy.entries != 0)]:
        yield f"UNIT: {entry:#x} is no entry"
    fills = copy.entries[kind == KIND_FILL] - np.uint64(FIRST_FILL) >> np.uint64(UNIT_SHIFT)
    if fills.size and fills.max() >= MAX_WORDS:
        yield f"FILL-COUNT: an entry names word {fills.max()} of {MAX_WORDS}"
        return
    counts = np.bincount(fills.astype(np.int64), minlength=MAX_WORDS)
    surplus = copy.fills - counts
    for number in np.flatnonzero((surplus < 0) | (surplus > copy.fills_staged)):
        says = copy.fills[number]
        yield f"FILL-COUNT: {counts[number]} pages are of word {number}, its count is {says}"
    if surplus.sum() != copy.fills_staged:
        yield f"FILL-COUNT: {surplus.sum()} pages too many, and {copy.fills_staged} are staged"


def _check_books(
    entries: Array, kind: int, books: _Books, name: str, in_use: tuple[int, ...]
) -> Iterator[str]:
    """Compare the entries of a kind with the counts of its segments."""
    mine = entries[entries >> np.uint64(KIND_SHIFT) == kind]
    segments = segments_of(mine)
    if segments.size and segments.max() >= len(books.states):
        yield f"{name}-REUSE: an entry names segment {segments.max()} of {len(books.states)}"
        return
    shares = (mine >> np.uint64(SHARE_SHIFT) & np.uint64(SHARE_MASK)) * np.uint64(ALIGNMENT)
    hot = mine & np.uint64(NOT_HOT) == 0
    staged = books.totals.staged
    for what, weights, counted in (
        ("pages", None, books.pages),
        ("bytes", shares, books.bytes),
        ("hot pages", hot, books.hot),
    ):
        found = np.bincount(segments, weights, minlength=len(counted)).astype(np.int64)
        # What is appended and not yet published is counted and named by nothing.
        wrong = found > counted if staged else found != counted
        for at in np.flatnonzero(wrong):
            yield f"{name}-LIVE: segment {at}: {found[at]} {what}, not {counted[at]}"
    for segment in np.flatnonzero(np.bincount(segments, minlength=len(books.states))):
        if books.states[segment] not in in_use:
            yield f"{name}-REUSE: pages live in segment {segment}, which is not in use"
    yield from _check_totals(mine, books, name)


def _check_totals(mine: Array, books: _Books, name: str) -> Iterator[str]:
    totals = books.totals
    for what, has, says in (
        ("pages", len(mine) + totals.staged, totals.live_pages),
        ("pages by segment", int(books.pages.sum(dtype=np.int64)), totals.live_pages),
        ("bytes by segment", int(books.bytes.sum(dtype=np.int64)), totals.live_bytes),
    ):
        if has != says:
            yield f"{name}-LIVE: {has} live {what} in all, not {says}"
    if totals.staged:
        return
    for what, flag, says in (("huge", HUGE, totals.huge), ("cold", COLD, totals.cold)):
        if (has := int(np.count_nonzero(mine & np.uint64(flag)))) != says:
            yield f"{name}-LIVE: {has} {what} pages in all, not {says}"


def _differences(names: Numbers, has: Array, says: Array) -> Iterator[tuple[int, int, int]]:
    for at in np.flatnonzero(has != says).tolist():
        yield int(names[at]), int(has[at]), int(says[at])


def _read_units(parts: Parts, fetcher: Fetcher, clusters: Numbers) -> Iterator[str]:
    """Read every unit; "" for one that can be read, and what is wrong for another."""
    decoder = parts.decoder()
    for cluster in clusters.tolist():
        first = cluster << CLUSTER_SHIFT
        for start in range(first, first + CLUSTER_SLOTS, _AT_ONCE):
            with parts.locks[cluster]:
                entries = parts.table.entries(start, _AT_ONCE)
                read = _read_some(decoder, start, entries)
                gaps = _gaps(parts, start, entries)
            yield from read
            for gap in gaps:
                yield _read_gap(fetcher, gap)


def _read_some(decoder: Decoder, slot: int, entries: list[int]) -> list[str]:
    """Each entry is read, which for a unit's later ones costs a look."""
    found = []
    before = 0
    for at, entry in enumerate(entries, slot):
        if entry >> KIND_SHIFT == KIND_CACHE:
            try:
                decoder.unit(entry, at, keep=True)
            except CorruptError as error:
                found.append(f"UNIT: {error}")
            if entry >> UNIT_SHIFT != before:
                before = entry >> UNIT_SHIFT
                found.append("")
    return found


def _gaps(parts: Parts, slot: int, entries: list[int]) -> list[Gap]:
    """The units on disk; lock held."""
    gaps = []
    at = 0
    for name, same in groupby(entries, lambda entry: entry >> UNIT_SHIFT):
        pages = len(list(same))
        if name >> KIND_SHIFT - UNIT_SHIFT == KIND_BACKING:
            sequence = parts.sequence_of(entries[at])
            gaps.append(Gap(0, slot + at, pages, entries[at], sequence))
        at += pages
    return gaps


def _read_gap(fetcher: Fetcher, gap: Gap) -> str:
    try:
        fetcher.fill(gap)
    except (CorruptError, MediumError) as error:
        return f"UNIT: {error}"
    return ""
