"""Decoding: what was written is read back exactly, or not at all; also what is kept decoded."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import pages as make_pages
from model.effort import effort
from model.units import AT, CODECS, Decoded, OneUnit

from vswap.codec import Codec, Lz4, Stored, Zstd
from vswap.errors import CorruptError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.decoder import KEPT_PAGES, Decoder
from vswap.store.unit import HEADER, pack_payload, unit_size, write_unit

LAST_SLOT = (1 << 32) - 1


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
@pytest.mark.parametrize("pages", range(1, MAX_UNIT_PAGES + 1))
def test_each_page_of_a_unit_gives_the_whole_unit(codec: Codec, pages: int) -> None:
    data = make_pages.text(pages, seed=pages)
    unit = OneUnit(7, data, codec)
    for index in range(pages):
        assert unit.decoder.unit(unit.entry(index), 7 + index) == (data, pages)


@effort(60)
@given(
    st.integers(0, LAST_SLOT - 16),
    st.integers(1, MAX_UNIT_PAGES),
    st.sampled_from(("text", "noise", "mixed")),
    st.sampled_from(CODECS),
)
def test_any_unit_is_read_back(slot: int, pages: int, maker: str, codec: Codec) -> None:
    data = make_pages.made(maker, pages, slot % 100)
    unit = OneUnit(slot, data, codec)
    assert unit.read(slot + pages - 1, pages - 1) == data


@pytest.mark.parametrize(
    "unit",
    [
        OneUnit(5, make_pages.text(), Lz4()),
        OneUnit(5, make_pages.text(4), Zstd(1, 4 * PAGE_SIZE)),
        OneUnit(5, make_pages.noise(), Lz4()),
        OneUnit(5, make_pages.stamped("text", (5, 0, 0)) * 16, Lz4()),
    ],
    ids=["lz4", "zstd-4", "stored", "lz4-16"],
)
def test_every_flipped_bit_is_noticed(unit: OneUnit) -> None:
    """Header, checksum or payload: `CorruptError`, and nothing else, whichever bit it is."""
    unnoticed = []
    for where in unit.flipped(0, HEADER.size + unit.length):
        try:
            unit.read(5)
        except CorruptError:
            continue
        unnoticed.append(where)
    assert unnoticed == []


def test_padding_is_nobodys_data() -> None:
    unit = OneUnit(5, make_pages.text(7), Lz4())
    assert unit.size > HEADER.size + unit.length
    for _ in unit.flipped(HEADER.size + unit.length, unit.size):
        assert unit.read(5) == make_pages.text(7)


@effort(200)
@given(st.binary(min_size=12, max_size=64))
def test_any_bytes_in_a_units_place_are_noticed(junk: bytes) -> None:
    unit = OneUnit(5, make_pages.text(), Lz4())
    unit.memory[AT : AT + len(junk)] = junk
    with pytest.raises(CorruptError):
        unit.read(5)


@pytest.mark.parametrize("slot", [4, 6, 5 + 512, 5 + (1 << 32)])
def test_a_unit_of_another_slot_is_refused(slot: int) -> None:
    unit = OneUnit(5, make_pages.text(2), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        unit.read(slot)


def test_an_index_that_does_not_belong_to_the_slot_is_refused() -> None:
    unit = OneUnit(5, make_pages.text(4), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        unit.read(5, index=1)


@pytest.mark.parametrize("index", [2, 3, 15])
def test_an_index_beyond_the_unit_is_refused(index: int) -> None:
    unit = OneUnit(5, make_pages.text(2), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        unit.read(5 + index, index)


def test_an_entry_that_points_beside_its_unit_is_refused() -> None:
    unit = OneUnit(5, make_pages.text(2), Lz4())
    beside = entry.pack(AT + entry.ALIGNMENT, 400, 0)
    with pytest.raises(CorruptError):
        unit.decoder.unit(beside, 5)


def test_a_codec_nobody_knows_is_refused() -> None:
    """With a checksum that is right: a unit of a later version."""
    unit = OneUnit(5, make_pages.text(), Lz4())
    write_unit(unit.memory, AT, 5, 1, 3, bytes(100))
    with pytest.raises(CorruptError, match="unknown codec"):
        unit.read(5)


class Next(Stored):
    """A codec of the number after those that every device has."""

    number = 3


def test_a_codec_that_a_device_has_come_to_have_is_asked_for_once() -> None:
    """By the first unit that has its number: a dictionary is found while threads are running."""
    unit = OneUnit(5, make_pages.noise(), Lz4())
    write_unit(unit.memory, AT, 5, 1, Next.number, make_pages.noise())
    asked: list[Codec] = []

    def more() -> Codec:
        asked.append(Next())
        return asked[-1]

    decoder = Decoder(unit.memory, CODECS, more)
    for _ in range(2):
        assert decoder.unit(unit.entry(), 5) == (make_pages.noise(), 1)
    assert len(asked) == 1


def test_a_codec_that_a_device_has_not_got_is_asked_for_again() -> None:
    """It may come later; a unit of it is refused until then."""
    unit = OneUnit(5, make_pages.noise(), Lz4())
    write_unit(unit.memory, AT, 5, 1, Next.number, make_pages.noise())
    there: list[Codec | None] = [None, Next()]
    decoder = Decoder(unit.memory, CODECS, lambda: there.pop(0))
    with pytest.raises(CorruptError, match="unknown codec"):
        decoder.unit(unit.entry(), 5)
    assert decoder.unit(unit.entry(), 5) == (make_pages.noise(), 1)


def test_a_codec_further_on_is_unknown() -> None:
    unit = OneUnit(5, make_pages.noise(), Lz4())
    write_unit(unit.memory, AT, 5, 1, 4, make_pages.noise())
    with pytest.raises(CorruptError, match="unknown codec, 4"):
        Decoder(unit.memory, CODECS, Next).unit(unit.entry(), 5)


def test_a_unit_at_the_very_end_of_memory_is_read() -> None:
    data = make_pages.noise()
    unit = OneUnit(5, data, Lz4())
    memory = unit.memory[: AT + unit.size]
    assert Decoder(memory, CODECS).unit(unit.entry(), 5) == (data, 1)


def test_a_length_that_runs_out_of_memory_is_refused() -> None:
    unit = OneUnit(5, make_pages.noise(), Lz4())
    memory = unit.memory[: AT + unit.size - 8]
    with pytest.raises(CorruptError):
        Decoder(memory, CODECS).unit(unit.entry(), 5)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
def test_what_is_read_is_a_copy(codec: Codec) -> None:
    """The segment may be written again as soon as the lock is given up."""
    unit = OneUnit(5, make_pages.text(), codec)
    data = unit.decoder.unit(unit.entry(), 5)[0]
    unit.memory[:] = bytes(len(unit.memory))
    assert bytes(data) == make_pages.text()


def test_the_decoder_wants_codecs_by_number() -> None:
    with pytest.raises(AssertionError):
        Decoder(memoryview(bytearray(64)), [Lz4(), Stored()])


# --- What is kept -----------------------------------------------------------------------


@dataclass(frozen=True)
class Put:
    """A unit and its pages."""

    slot: int
    data: bytes
    entry: int

    @property
    def pages(self) -> int:
        return len(self.data) // PAGE_SIZE

    def of(self, index: int) -> tuple[int, int]:
        """The entry and the slot of one of its pages."""
        return self.entry + (index << entry.INDEX_SHIFT), self.slot + index


class Segments:
    """Four segments with units in them, and a decoder that knows when they were filled."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(4 * SEGMENT_SIZE))
        self.sequence = [1, 2, 3, 4]
        self.decoded = Decoded()
        self.decoder = Decoder(self.memory, self.decoded.codecs, sequence=self.sequence)
        self._end = 0

    def put(self, position: int, slot: int, data: bytes) -> Put:
        pages = len(data) // PAGE_SIZE
        number, payload = pack_payload(CODECS[1], data)
        write_unit(self.memory, position, slot, pages, number, payload)
        return Put(slot, data, entry.pack(position, unit_size(len(payload), pages) // pages, 0))

    def add(self, slot: int, data: bytes) -> Put:
        """Put a unit behind those that were added before."""
        pages = len(data) // PAGE_SIZE
        size = unit_size(len(pack_payload(CODECS[1], data)[1]), pages)
        if self._end // SEGMENT_SIZE != (self._end + size) // SEGMENT_SIZE:
            self._end = -(-self._end // SEGMENT_SIZE) * SEGMENT_SIZE
        self._end += size
        return self.put(self._end - size, slot, data)

    def fill_anew(self, segment: int) -> None:
        """What is put there from now on is of another filling."""
        self.sequence[segment] = max(self.sequence) + 1

    def flip(self, unit: Put) -> None:
        """Damage a unit, or undo it."""
        self.memory[entry.position_of(unit.entry) + HEADER.size + 5] ^= 1

    def read(self, unit: Put, index: int = 0, keep: bool = True) -> bytes:
        """The unit's pages, by the entry of one of them; they are kept."""
        data, pages = self.decoder.unit(*unit.of(index), keep)
        assert pages == len(data) // PAGE_SIZE
        return bytes(data)


@pytest.fixture
def segments() -> Segments:
    return Segments()


FAR = SEGMENT_SIZE // 2
"""A place where another unit can be."""


def several(segments: Segments, count: int, pages: int) -> list[Put]:
    """Units of so many pages, in order."""
    return [
        segments.add(number * pages, make_pages.text(pages, seed=number)) for number in range(count)
    ]


@pytest.mark.parametrize("index", range(4))
def test_a_unit_is_decoded_once_for_all_its_pages(segments: Segments, index: int) -> None:
    """Whichever page it was decoded for, and whichever is asked for."""
    unit = segments.put(0, 8, make_pages.text(4))
    for one in (index, 3 - index, 0):
        assert segments.read(unit, one) == unit.data
    assert segments.decoded.units == 1


def test_several_units_are_each_kept(segments: Segments) -> None:
    """In any order, and with others asked for in between."""
    units = several(segments, 6, 4)
    for at in (0, 1, 2, 3, 4, 1, 5, 0, 3, 4, 2):
        assert segments.read(units[at]) == units[at].data
    assert segments.decoded.units == 6


def test_without_sequences_nothing_is_kept(segments: Segments) -> None:
    unit = segments.put(0, 8, make_pages.text(4))
    decoder = Decoder(segments.memory, segments.decoded.codecs)
    for _ in range(2):
        assert decoder.unit(*unit.of(0), keep=True) == (unit.data, 4)
    assert segments.decoded.units == 2
    assert segments.decoded.pages_kept() == 0


def test_what_is_not_to_be_kept_is_not(segments: Segments) -> None:
    """It pushes nothing out, either. What is kept is given whether it is to be or not."""
    kept = segments.put(0, 8, make_pages.text(4))
    other = segments.put(FAR, 12, make_pages.text(4, seed=1))
    segments.read(kept)
    for _ in range(KEPT_PAGES):
        assert segments.read(other, keep=False) == other.data
    assert segments.decoded.units == 1 + KEPT_PAGES
    assert segments.decoded.pages_kept() == 4
    assert segments.read(kept, keep=False) == kept.data
    assert segments.decoded.units == 1 + KEPT_PAGES


@pytest.mark.parametrize("pages", [1, 4, MAX_UNIT_PAGES])
def test_as_many_pages_are_kept_as_may_be(segments: Segments, pages: int) -> None:
    units = several(segments, KEPT_PAGES // pages, pages)
    for unit in (*units, *reversed(units)):
        assert segments.read(unit) == unit.data
    assert segments.decoded.units == len(units)
    assert segments.decoded.pages_kept() == KEPT_PAGES


@pytest.mark.parametrize("pages", [1, 4, MAX_UNIT_PAGES])
def test_the_oldest_goes_when_there_are_more(segments: Segments, pages: int) -> None:
    units = several(segments, KEPT_PAGES // pages + 1, pages)
    for unit in units:
        segments.read(unit)
    for unit in units[1:]:
        assert segments.read(unit) == unit.data
    assert segments.decoded.units == len(units)
    assert segments.decoded.pages_kept() == KEPT_PAGES
    assert segments.read(units[0]) == units[0].data
    assert segments.decoded.units == len(units) + 1


def test_no_more_go_than_must(segments: Segments) -> None:
    """One large unit takes the place of as many small ones as it has pages."""
    units = several(segments, KEPT_PAGES, 1)
    for unit in units:
        segments.read(unit)
    segments.read(segments.add(KEPT_PAGES, make_pages.text(MAX_UNIT_PAGES)))
    assert segments.decoded.pages_kept() == KEPT_PAGES
    for unit in units[MAX_UNIT_PAGES:]:
        segments.read(unit)
    assert segments.decoded.units == KEPT_PAGES + 1


@pytest.mark.parametrize("pages", [1, 2, 4, MAX_UNIT_PAGES])
def test_what_came_in_the_place_of_a_unit_takes_its_room(segments: Segments, pages: int) -> None:
    """However often, and of however many pages: it is nobody's that nobody can ask for."""
    for number in range(2 * KEPT_PAGES):
        segments.fill_anew(3)
        made = make_pages.noise(pages if number % 2 else 4, number % 8)
        last = segments.put(3 * SEGMENT_SIZE, 16, made)
        assert segments.read(last) == made
    assert segments.decoded.pages_kept() == pages
    before = segments.decoded.units
    units = several(segments, KEPT_PAGES - pages, 1)
    for unit in (*units, last, *units):
        segments.read(unit)
    assert segments.decoded.units == before + len(units)


sizes = st.lists(
    st.tuples(st.integers(0, 11), st.integers(1, MAX_UNIT_PAGES), st.booleans()),
    min_size=20,
    max_size=60,
)


@effort(60)
@given(sizes)
def test_what_is_kept_is_bounded(sizes: list[tuple[int, int, bool]]) -> None:
    """By no more than a unit too little, when there has been enough; names come again."""
    segments = Segments()
    units: dict[int, Put] = {}
    for place, pages, anew in sizes:
        if anew:
            segments.fill_anew(0)
            units.clear()
        if place not in units:
            units[place] = segments.put(place * (80 << 10), 100, make_pages.noise(pages))
        segments.read(units[place])
        assert segments.decoded.pages_kept() <= KEPT_PAGES
    segments.fill_anew(0)
    for unit in several(segments, KEPT_PAGES // MAX_UNIT_PAGES, MAX_UNIT_PAGES):
        segments.read(unit)
    assert segments.decoded.pages_kept() > KEPT_PAGES - MAX_UNIT_PAGES


@pytest.mark.parametrize("slot", [4, 7, 9, 12, 8 + (1 << 32)])
def test_what_is_kept_is_not_given_for_another_slot(segments: Segments, slot: int) -> None:
    unit = segments.put(0, 8, make_pages.text(4))
    segments.read(unit)
    with pytest.raises(CorruptError, match="other slots"):
        segments.decoder.unit(unit.entry, slot)
    assert segments.read(unit) == unit.data


@pytest.mark.parametrize("pages", [1, 4])
def test_what_is_kept_has_no_pages_beyond_its_last(segments: Segments, pages: int) -> None:
    """Neither does another one's, as where nothing is kept."""
    unit = segments.put(0, 8, make_pages.text(pages))
    segments.read(unit)
    for index in (pages, 15):
        with pytest.raises(CorruptError, match="other slots"):
            segments.decoder.unit(*unit.of(index))


@pytest.mark.parametrize("pages", [1, 2, 6])
@pytest.mark.parametrize("slot", [8, 9])
def test_what_came_in_the_place_of_a_unit_is_what_is_read(
    segments: Segments, slot: int, pages: int
) -> None:
    """LOG-AGE: the upper part of the entry is the same, and the sequence is not."""
    before = segments.put(0, 8, make_pages.noise(4))
    segments.read(before)
    segments.fill_anew(0)
    after = segments.put(0, slot, make_pages.noise(pages, seed=1))
    assert after.entry >> entry.UNIT_SHIFT == before.entry >> entry.UNIT_SHIFT
    assert segments.read(after) == after.data


def test_another_unit_by_the_same_name_is_what_is_read(segments: Segments) -> None:
    """Its first slot tells, whatever the sequences say."""
    before = segments.put(0, 8, make_pages.noise(4))
    segments.read(before)
    after = segments.put(0, 12, make_pages.noise(4, seed=1))
    assert after.entry == before.entry
    assert segments.read(after) == after.data


def test_a_filling_of_another_segment_is_nothing_to_a_unit(segments: Segments) -> None:
    unit = segments.put(0, 8, make_pages.text(4))
    segments.read(unit)
    segments.fill_anew(1)
    assert segments.read(unit) == unit.data
    assert segments.decoded.units == 1


def test_a_damaged_unit_is_an_error_each_time_and_not_kept(segments: Segments) -> None:
    unit = segments.put(0, 8, make_pages.text(4))
    segments.flip(unit)
    for index in (0, 3, 0):
        with pytest.raises(CorruptError, match="checksum"):
            segments.read(unit, index)
    assert segments.decoded.pages_kept() == 0
    segments.flip(unit)
    assert segments.read(unit) == unit.data


def test_a_damaged_unit_leaves_what_is_kept(segments: Segments) -> None:
    units = [
        segments.put(0, 8, make_pages.text(4)),
        segments.put(FAR, 12, make_pages.text(4, seed=1)),
    ]
    damaged = segments.put(SEGMENT_SIZE, 16, make_pages.text(4, seed=2))
    for unit in units:
        segments.read(unit)
    segments.flip(damaged)
    with pytest.raises(CorruptError):
        segments.read(damaged)
    for unit in units:
        assert segments.read(unit) == unit.data
    assert segments.decoded.units == 2


def test_a_damaged_unit_in_the_place_of_one_that_is_kept_is_an_error(segments: Segments) -> None:
    """What was there before is not given instead."""
    segments.read(segments.put(0, 8, make_pages.noise(4)))
    segments.fill_anew(0)
    after = segments.put(0, 8, make_pages.noise(4, seed=1))
    segments.flip(after)
    for _ in range(2):
        with pytest.raises(CorruptError, match="checksum"):
            segments.read(after)
    segments.flip(after)
    assert segments.read(after) == after.data


def test_what_is_kept_is_a_copy(segments: Segments) -> None:
    """Nobody looks at the place of a unit that is kept."""
    unit = segments.put(0, 8, make_pages.noise(4))
    segments.read(unit)
    segments.memory[:FAR] = bytes(FAR)
    assert segments.read(unit) == unit.data


steps = st.tuples(
    st.sampled_from(("put", "read", "keep", "keep")),
    st.sampled_from((0, FAR, SEGMENT_SIZE)),
    st.integers(0, 3),
    st.integers(1, 3),
)


@effort(300)
@given(st.lists(steps, min_size=20, max_size=60))
def test_whatever_is_kept_is_what_lies_there(steps: list[tuple[str, int, int, int]]) -> None:
    """LOG-AGE: units come to the places of others, whose names they have."""
    segments = Segments()
    units: dict[int, Put] = {}
    for step, (kind, place, number, pages) in enumerate(steps):
        if kind == "put":
            segment = place // SEGMENT_SIZE
            segments.fill_anew(segment)  # and nothing is left of what was there
            units = {at: unit for at, unit in units.items() if at // SEGMENT_SIZE != segment}
            units[place] = segments.put(place, 100 + number, make_pages.noise(pages, step))
        elif place in units:
            unit = units[place]
            assert segments.read(unit, number % unit.pages, kind == "keep") == unit.data
