"""The read path: pages against a model, and what is decoded ahead of being asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.audit import audit
from model.device import ModelDevice
from model.effort import effort
from model.memory import data_pages
from model.pages import filled, made, mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, make_store, state_of
from model.threads import before_each
from model.units import Decoded

from vswap.codec import Bytes
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store
from vswap.store.decoder import KEPT_PAGES, Decoder
from vswap.store.entry import FIRST_FILL, IDLE, INDEX_SHIFT, LOADED, position_of
from vswap.store.fetch import Fetched, Gap
from vswap.store.places import KEPT
from vswap.store.reader import Reader
from vswap.store.streak import MOST, NEAR, STREAKS

LAST = DEFAULT_SLOTS - 1


class Reading:
    """A store, a lane that writes, a reader whose decoding is counted, and the model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lane: Lane = store.lane()
        parts = store._parts
        self.decoded = Decoded()
        decoder = Decoder(parts.memory, self.decoded.codecs, sequence=parts.log.sequence.data)
        self.asked_ahead: list[Gap] = []
        self.reader = Reader(parts, decoder, Fetched(), self.asked_ahead.append)
        self.model = ModelDevice(store.geometry.slots)

    def put(self, slot: int, data: bytes) -> None:
        self.lane.write(slot * PAGE_SIZE, memoryview(data))
        self.model.write(slot * PAGE_SIZE, data)

    def discard(self, slot: int, count: int) -> None:
        self.lane.discard(slot * PAGE_SIZE, count * PAGE_SIZE)
        self.model.discard(slot * PAGE_SIZE, count * PAGE_SIZE)

    def read(self, slot: int, count: int) -> None:
        """Pages are what the model has; one alone is read the short way."""
        if count == 1:
            page = self.reader.page(slot)
            assert not isinstance(page, Gap)
            found = bytes(page)
        else:
            found = b"".join(self.buffers(slot, count))
        assert found == self.model.read(slot * PAGE_SIZE, count * PAGE_SIZE)
        assert self.asked_ahead == []

    def buffers(self, slot: int, count: int) -> list[Bytes]:
        """What `Reader.pages` answers where nothing is on disk."""
        buffers, gaps = self.reader.pages(slot, count)
        assert gaps == []
        return buffers

    def ahead(self) -> int:
        """Read ahead all that is to be; how many units were decoded."""
        before = self.decoded.units
        turns = 0
        while self.reader.read_ahead():
            turns += 1
            assert turns <= MOST
        return self.decoded.units - before

    def decodes(self, slot: int, count: int) -> int:
        """How many units a read must decode."""
        before = self.decoded.units
        self.read(slot, count)
        return self.decoded.units - before

    def streak(self, slot: int) -> None:
        """Read 128 pages in order up to `slot`, and then the most ahead that ever is."""
        for first in range(slot - 128, slot, 8):
            self.read(first, 8)
        self.ahead()

    def entry(self, slot: int) -> int:
        return self.store._parts.table.get(slot)

    def flags(self, slot: int, count: int) -> list[int]:
        found = self.store._parts.table.entries(slot, count)
        return [one & (LOADED | IDLE) for one in found]

    @contextmanager
    def damaged(self, slot: int) -> Iterator[None]:
        """The unit that holds `slot` has a bit of its payload changed."""
        memory, at = state_of(self.store).segments.view, position_of(self.entry(slot)) + 20
        memory[at] ^= 1
        yield
        memory[at] ^= 1


@pytest.fixture
def reading(store: Store) -> Reading:
    """Units are of 4 pages."""
    return Reading(store)


def holding(make: StoreMaker, unit_pages: int, data: bytes) -> Reading:
    """A store with so many pages to a unit that holds `data` at its begin."""
    made = Reading(make(Policy("lz4", unit_pages)))
    made.put(0, data)
    return made


# --- Pages ------------------------------------------------------------------------------


BORDER = CLUSTER_SLOTS - 24
changes = st.lists(
    st.tuples(
        st.sampled_from(("zero", "filled", "text", "noise", "mixed", "discard")),
        st.integers(0, 47),
        st.integers(1, 20),
        st.integers(0, 3),
    ),
    max_size=12,
)
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=12)


@effort(120)
@given(st.sampled_from((1, 2, 4, 16)), changes, ranges, st.booleans())
def test_any_range_is_read_as_the_model_has_it(
    unit_pages: int,
    changes: list[tuple[str, int, int, int]],
    ranges: list[tuple[int, int]],
    ahead: bool,
) -> None:
    """Empty, zero and filled pages, units and what is left of them, over a cluster's end."""
    store = make_store(Policy("lz4", unit_pages, reserve=0))
    try:
        reading = Reading(store)
        for kind, at, count, seed in changes:
            if kind == "discard":
                reading.discard(BORDER + at, count)
            else:
                reading.put(BORDER + at, made(kind, count, seed))
        for at, count in ranges:
            reading.read(BORDER + at, count)
            if ahead:
                reading.ahead()
        for slot in range(BORDER, BORDER + 70):
            reading.read(slot, 1)
        assert audit(store) == []
    finally:
        state_of(store).close()


def test_every_part_of_a_unit_is_read_with_what_is_beside_it(make: StoreMaker) -> None:
    reading = holding(make, 8, zero(2) + filled(2) + noise(12) + text(8) + filled(1, 1))
    for first in range(12, 30):
        for end in range(first + 1, 31):
            reading.read(first, end - first)


def test_what_is_left_of_a_unit_is_read_around_what_came_into_it(make: StoreMaker) -> None:
    """Two pieces of one unit are not one, though both are of it."""
    for middle in (noise(2, 9), filled(2), zero(2)):
        reading = holding(make, 8, text(8))
        reading.put(3, middle)
        for first in range(6):
            for end in range(first + 1, 10):
                reading.read(first, end - first)
        reading.discard(4, 1)
        reading.read(0, 10)


def test_fill_words_that_change_from_page_to_page_are_each_read(reading: Reading) -> None:
    reading.put(BORDER, b"".join(filled(1 + seed % 2, seed % 3) for seed in range(20)))
    reading.read(BORDER - 2, 40)


def test_a_device_with_nothing_on_it_is_read_without_allocating(reading: Reading) -> None:
    """TABLE-HOLE: also where it is read ahead."""
    for slot in range(0, DEFAULT_SLOTS, 50):
        reading.read(slot, min(50, DEFAULT_SLOTS - slot))
        assert reading.ahead() == 0
    assert data_pages(state_of(reading.store).table) == set()


def test_what_was_read_stays_as_it_was(reading: Reading) -> None:
    """Also what had been decoded ahead: replies are sent after the locks are given up."""
    reading.put(0, noise(192))
    reading.streak(128)
    before = reading.buffers(128, 32)
    for seed in range(1, 5):
        reading.put(128, noise(32, seed))
        reading.read(128, 32)
    assert b"".join(before) == noise(192)[128 * PAGE_SIZE : 160 * PAGE_SIZE]


def test_a_unit_is_decoded_once_for_all_its_pages(reading: Reading) -> None:
    reading.put(0, text(16))
    assert reading.decodes(0, 16) == 4


def test_a_unit_is_decoded_once_for_reads_in_order(reading: Reading) -> None:
    """From the second read on, with no time to read ahead; there was none before the first."""
    reading.put(0, text(16))
    assert sum(reading.decodes(slot, 1) for slot in range(16)) <= 4 + 1


# --- Ahead ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 7, 32, 64])
def test_after_a_streak_the_next_read_decodes_nothing(reading: Reading, count: int) -> None:
    reading.put(0, text(200))
    reading.streak(128)
    assert reading.decodes(128, count) == 0


def test_as_much_is_read_ahead_as_has_been_read(reading: Reading) -> None:
    """Which is one unit more at a time, until there is nothing to do."""
    reading.put(0, text(200))
    reading.read(0, 8)
    reading.read(8, 8)
    turns = 0
    while reading.reader.read_ahead():
        turns += 1
        assert reading.decoded.units == 4 + turns
    assert 2 <= turns <= 4
    assert not reading.reader.read_ahead()
    assert reading.decodes(16, 8) == 0


@pytest.mark.parametrize("unit_pages", [1, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 32])
def test_a_device_read_in_order_has_each_unit_decoded_once(
    make: StoreMaker, unit_pages: int, count: int
) -> None:
    """Over clusters' ends, and up to the device's."""
    reading = holding(make, unit_pages, text(DEFAULT_SLOTS))
    asked = []
    for slot in range(0, DEFAULT_SLOTS, count):
        asked.append(reading.decodes(slot, min(count, DEFAULT_SLOTS - slot)))
        reading.ahead()
    alone = int(count < unit_pages)  # the first read might have been of no streak
    assert reading.decoded.units <= -(-DEFAULT_SLOTS // unit_pages) + alone
    assert not any(asked[2 * -(-unit_pages // count) :])


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("gap", [1, 4, NEAR])
def test_a_device_read_with_gaps_is_read_ahead_too(reading: Reading, count: int, gap: int) -> None:
    reading.put(0, text(DEFAULT_SLOTS))
    asked = []
    for slot in range(0, 600, count + gap):
        asked.append(reading.decodes(slot, count))
        reading.ahead()
    assert not any(asked[3 * -(-4 // (count + gap)) :])


def test_zeros_and_words_are_passed_over_ahead(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.put(0, text(128) + zero(8) + filled(8) + text(8))
    reading.discard(140, 2)
    asked: list[int] = []
    before_each(monkeypatch, Decoder, "unit", lambda entry, *_: asked.append(entry))
    reading.streak(128)
    assert max(asked) < FIRST_FILL
    assert reading.decoded.units == 32 + 2
    assert reading.decodes(128, 24) == 0


def test_a_new_cluster_is_read_ahead_before_it_is_reached(reading: Reading) -> None:
    reading.put(CLUSTER_SLOTS - 128, text(164))
    reading.streak(CLUSTER_SLOTS)
    assert reading.decodes(CLUSTER_SLOTS, 36) == 0
    assert reading.decodes(CLUSTER_SLOTS + 36, 28) == 0


@pytest.mark.parametrize("back", [64, 40, 8, 1])
def test_reading_ahead_stops_at_the_end_of_the_device(reading: Reading, back: int) -> None:
    reading.put(DEFAULT_SLOTS - 192, text(192))
    reading.streak(DEFAULT_SLOTS - back)
    first = (DEFAULT_SLOTS - back - 128) // 4
    units = -(-DEFAULT_SLOTS // 4) - first
    assert units <= reading.decoded.units <= units + 1  # the first read is of no streak yet
    assert reading.decodes(DEFAULT_SLOTS - back, back) == 0
    assert not reading.reader.read_ahead()


def in_no_order() -> list[int]:
    chosen = random.Random(1)
    slots: list[int] = []
    while len(slots) < 200:
        slot = chosen.randrange(LAST)
        if not any(0 <= slot - before <= NEAR + 2 for before in slots[-STREAKS:]):
            slots.append(slot)
    return slots


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param(in_no_order(), id="here and there"),
        pytest.param(list(range(300, 200, -1)), id="backwards"),
        pytest.param([200] * 5, id="the same again"),
    ],
)
def test_of_reads_in_no_order_nothing_is_read_ahead_or_kept(
    reading: Reading, slots: list[int]
) -> None:
    reading.put(0, text(DEFAULT_SLOTS))
    for slot in slots:
        reading.read(slot, 1 + slot % 2)
        assert reading.ahead() == 0
        assert reading.decoded.pages_kept() == 0


@pytest.mark.parametrize("areas", range(2, STREAKS + 1))
@pytest.mark.parametrize("count", [1, 8, 32])
@pytest.mark.parametrize("unit_pages", [4, 16])
def test_areas_read_in_turn_are_each_read_ahead(
    make: StoreMaker, unit_pages: int, count: int, areas: int
) -> None:
    """Up to the end of each, with nothing left to decode when it is asked for."""
    reading = holding(make, unit_pages, text(DEFAULT_SLOTS))
    size = DEFAULT_SLOTS // areas
    asked = []
    for at in range(0, size - count, count):
        for area in range(areas):
            asked.append(reading.decodes(area * size + at, count))
            reading.ahead()
    assert not any(asked[3 * areas * -(-unit_pages // count) :])


def test_a_read_elsewhere_does_not_end_a_streak(reading: Reading) -> None:
    reading.put(0, text(DEFAULT_SLOTS))
    reading.streak(128)
    for slot in range(128, 256, 8):
        assert reading.decodes(slot, 8) == 0
        reading.ahead()
        assert reading.decodes(4 * slot, 1) == 1
        assert reading.ahead() == 0


# --- When things change meanwhile --------------------------------------------------------


def overwrite(reading: Reading) -> None:
    reading.put(128, noise(32, 5))


def overwrite_some(reading: Reading) -> None:
    for slot in range(129, 160, 3):
        reading.put(slot, noise(1, slot))


def overwrite_a_part(reading: Reading) -> None:
    data = b"a part of a page"
    reading.lane.write(130 * PAGE_SIZE + 100, memoryview(data))
    reading.model.write(130 * PAGE_SIZE + 100, data)


def write_zeros(reading: Reading) -> None:
    reading.put(128, zero(32))


def write_words(reading: Reading) -> None:
    reading.put(128, filled(32))


def discard(reading: Reading) -> None:
    reading.discard(130, 20)


def discard_and_write(reading: Reading) -> None:
    reading.discard(0, DEFAULT_SLOTS)
    reading.put(124, mixed(40, 7))


def move(reading: Reading) -> None:
    """To other places, as they are or compressed anew, and in larger units."""
    reading.store.step()
    assert reading.store.recompress(Selection()) > 0
    reading.store.compact()


CHANGES = [
    overwrite,
    overwrite_some,
    overwrite_a_part,
    write_zeros,
    write_words,
    discard,
    discard_and_write,
    move,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
@pytest.mark.parametrize("count", [1, 32])
def test_what_changed_after_it_was_decoded_ahead_is_read_as_it_is(
    reading: Reading, change: Callable[[Reading], None], count: int
) -> None:
    reading.put(0, text(192))
    reading.streak(128)
    change(reading)
    for slot in range(128, 192, count):
        reading.read(slot, count)


SEGMENT = 252
"""Pages of noise, stored in units of 4, that a segment is full with."""


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("there", ["ahead", "last"])
def test_what_came_in_the_place_of_a_unit_is_read(make: StoreMaker, there: str, count: int) -> None:
    """LOG-AGE: its segment was freed and filled anew, and the entries are what they were."""
    reading = Reading(make(Policy("stored", 4, reserve=0), segments=3 + KEPT))
    reading.put(0, noise(SEGMENT))
    if there == "ahead":
        reading.streak(128)
    else:
        reading.read(131, 1)
    before = reading.entry(131)
    for seed in range(1, 10):
        reading.put(0, noise(SEGMENT, seed))
        if reading.entry(131) == before & ~LOADED:
            break
    assert reading.entry(131) == before & ~LOADED
    for slot in range(128, 192, count):
        reading.read(slot, count)


def test_what_came_to_other_slots_in_the_place_of_a_unit_is_read(make: StoreMaker) -> None:
    """LOG-AGE: the names of units that were decoded ahead are those of others now."""
    reading = Reading(make(Policy("stored", 4, reserve=0), segments=3 + KEPT))
    reading.put(0, noise(SEGMENT))
    reading.streak(128)
    before = [reading.entry(slot) for slot in range(128, 192)]
    reading.discard(0, SEGMENT)
    for seed in range(1, 10):
        reading.put(512, noise(SEGMENT, seed))
        if reading.entry(512 + 128) == before[0]:
            break
    assert [reading.entry(512 + slot) for slot in range(128, 192)] == before
    reading.read(512, SEGMENT)


def test_a_damaged_unit_ahead_fails_only_who_reads_it(reading: Reading) -> None:
    reading.put(0, text(192))
    with reading.damaged(136):
        reading.streak(128)
        assert reading.decodes(128, 8) == 0
        for slot in range(136, 140):
            with pytest.raises(CorruptError):
                reading.reader.page(slot)
        assert reading.decodes(140, 32) == 0
        with pytest.raises(CorruptError):
            reading.reader.pages(134, 8)
    reading.read(128, 64)


@pytest.mark.parametrize("unit_pages", [1, 4])
def test_an_entry_that_names_the_unit_before_it_is_an_error(
    make: StoreMaker, unit_pages: int
) -> None:
    """By an index that this has not got; and reading ahead comes to an end all the same."""
    reading = holding(make, unit_pages, noise(128))
    table, slot = reading.store._parts.table, 64
    whole = reading.entry(slot)
    table.replace(slot, reading.entry(slot - 1) + (1 << INDEX_SHIFT))
    try:
        for first in range(0, slot, 8):
            reading.read(first, 8)
            reading.ahead()
        with pytest.raises(CorruptError):
            reading.reader.page(slot)
    finally:
        table.replace(slot, whole)
    reading.read(slot, 1)


@pytest.mark.parametrize("count", [1, 8])
def test_a_streak_goes_on_behind_a_damaged_unit(reading: Reading, count: int) -> None:
    reading.put(0, text(256))
    failed = []
    with reading.damaged(101):
        for slot in range(0, 256, count):
            try:
                reading.read(slot, count)
            except CorruptError:
                failed.append(slot)
            reading.ahead()
        decoded = reading.decoded.units
    assert failed == [100, 101, 102, 103] if count == 1 else [96]
    assert 63 <= decoded <= 63 + 1  # the first read is of no streak yet


@pytest.mark.parametrize("count", [1, 8])
def test_reading_ahead_marks_nothing(reading: Reading, count: int) -> None:
    """As loaded is marked what has been read, from whatever was decoded ahead, too."""
    reading.put(0, text(192))
    reading.store.mark_idle()
    reading.streak(128)
    assert reading.decoded.units == 48
    assert reading.flags(0, 192) == [LOADED] * 128 + [IDLE] * 64
    reading.read(132, count)
    assert reading.flags(128, 64) == [IDLE] * 4 + [LOADED] * count + [IDLE] * (60 - count)


# --- How much is kept --------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 8, 32])
@pytest.mark.parametrize("gap", [0, 1, 8, NEAR])
def test_what_is_kept_is_bounded_however_long_a_streak_is(
    reading: Reading, count: int, gap: int
) -> None:
    """Also where pages are left out: other threads have read them, or nobody has."""
    reading.put(0, text(DEFAULT_SLOTS))
    for slot in range(0, DEFAULT_SLOTS - count, count + gap):
        reading.read(slot, count)
        reading.ahead()
        assert reading.decoded.pages_kept() <= KEPT_PAGES


def test_what_is_kept_is_bounded_when_it_is_no_longer_there(reading: Reading) -> None:
    """Units decoded ahead are overwritten before they are read: nobody asks for them."""
    reading.put(0, text(DEFAULT_SLOTS))
    for slot in range(0, DEFAULT_SLOTS - 72, 8):
        reading.read(slot, 8)
        reading.ahead()
        reading.put(slot + 8, noise(8, slot))
        assert reading.decoded.pages_kept() <= KEPT_PAGES


def test_what_is_kept_is_bounded_when_reads_come_at_once(reading: Reading) -> None:
    """There is time for one unit between two requests, or for none."""
    reading.put(0, text(DEFAULT_SLOTS))
    for slot in range(0, DEFAULT_SLOTS - 8, 8):
        reading.read(slot, 8)
        if slot % 3:
            reading.reader.read_ahead()
        assert reading.decoded.pages_kept() <= KEPT_PAGES


PAGEMAP_PRESENT, PAGEMAP_EXCLUSIVE = 1 << 63, 1 << 56


def unwritten(buffer: Bytes) -> list[int]:
    """Pages under a buffer that are not there, or are the kernel's page of zeros."""
    address = np.frombuffer(buffer, np.uint8).ctypes.data
    first, end = address // PAGE_SIZE, -(-(address + len(buffer)) // PAGE_SIZE)
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(first * 8)
        words = np.frombuffer(pagemap.read((end - first) * 8), np.uint64)
    ours = np.uint64(PAGEMAP_PRESENT | PAGEMAP_EXCLUSIVE)
    return list(np.flatnonzero(words & ours != ours))


@pytest.mark.parametrize("pages", [1, 2, 21, 256])
def test_reply_present_for_slots_that_hold_nothing(pages: int, reading: Reading) -> None:
    buffers, gaps = reading.reader.pages(0, pages)
    assert not gaps
    assert [unwritten(buffer) for buffer in [reading.reader.page(0), *buffers]] == [  # type: ignore[arg-type]
        [] for _ in range(1 + len(buffers))
    ]


def test_a_unit_of_which_pieces_are_read_is_decoded_once(make: StoreMaker) -> None:
    """What has died between them does not make it two."""
    reading = holding(make, 8, text(16))
    for slot in (1, 3, 4, 9):
        reading.discard(slot, 1)
    before = reading.decoded.units
    reading.read(0, 16)
    assert reading.decoded.units - before == 2
