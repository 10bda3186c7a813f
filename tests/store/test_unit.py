"""Units: their form in a segment, and finding them there. test_decoder.py reads them back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import pages as make_pages
from model.effort import effort
from model.units import AT, CODECS, OneUnit
from xxhash import xxh3_64_intdigest

from vswap.codec import LZ4, STORED, ZSTD, Codec, Lz4, Stored, Zstd
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import entry
from vswap.store.unit import (
    HEADER,
    Found,
    pack_payload,
    unit_size,
    units_in,
    write_unit,
)

LAST_SLOT = (1 << 32) - 1


def test_the_last_slot_of_the_largest_device_fits_the_header() -> None:
    unit = OneUnit(LAST_SLOT, make_pages.text(), Lz4())
    assert unit.read(LAST_SLOT) == make_pages.text()


def test_a_unit_stays_in_its_bounds() -> None:
    data = make_pages.text(3)
    unit = OneUnit(0, data, Lz4())
    assert bytes(unit.memory[:AT]) == b"\xa5" * AT
    assert bytes(unit.memory[AT + unit.size :]) == b"\xa5" * 64


def test_the_header_is_the_one_drawn_in_the_module() -> None:
    unit = OneUnit(0x01020304, make_pages.noise(2), Zstd(1, 4 * PAGE_SIZE))
    header = bytes(unit.memory[AT : AT + HEADER.size])
    assert header[:8] == bytes.fromhex(
        "04030201"  # first slot
        "ff1f"  # payload length less one: 8192
        "02"  # pages
        "00"  # codec: stored
    )
    assert bytes(unit.memory[AT + 12 : AT + 12 + 2 * PAGE_SIZE]) == make_pages.noise(2)


def test_the_checksum_is_of_the_payload_seeded_with_the_rest_of_the_header() -> None:
    """A later worker, perhaps of a later version, checks what this one wrote."""
    unit = OneUnit(0x01020304, make_pages.text(), Lz4())
    head, checksum = struct.unpack_from("<QI", unit.memory, AT)
    payload = unit.memory[AT + 12 : AT + 12 + unit.length]
    assert checksum == xxh3_64_intdigest(payload, seed=head) % (1 << 32)


@pytest.mark.parametrize("codec", [Lz4(), Zstd(1, 4 * PAGE_SIZE)], ids=["lz4", "zstd"])
def test_what_compresses_keeps_its_codec(codec: Codec) -> None:
    number, payload = pack_payload(codec, make_pages.text(4))
    assert number == codec.number
    assert len(payload) < 4 * PAGE_SIZE * 7 / 8


@pytest.mark.parametrize("codec", [Lz4(), Zstd(1, 4 * PAGE_SIZE)], ids=["lz4", "zstd"])
@pytest.mark.parametrize("pages", [1, 4, 16])
def test_what_does_not_compress_is_stored_as_it_is(codec: Codec, pages: int) -> None:
    data = make_pages.noise(pages)
    assert pack_payload(codec, data) == (STORED, data)


class Shrinks(Stored):
    """A codec that makes everything `size` bytes."""

    number = ZSTD

    def __init__(self, size: int) -> None:
        self.size = size

    def compress(self, data: object) -> bytes:
        return bytes(self.size)


def test_the_border_of_poor_compression_is_seven_eighths() -> None:
    border = PAGE_SIZE * 7 // 8
    assert pack_payload(Shrinks(border), bytes(PAGE_SIZE))[0] == ZSTD
    assert pack_payload(Shrinks(border + 1), bytes(PAGE_SIZE))[0] == STORED


@effort(300)
@given(st.integers(1, MAX_UNIT_PAGES), st.data())
def test_a_units_size_holds_it_and_divides_among_its_pages(pages: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, pages * PAGE_SIZE))
    size = unit_size(length, pages)
    assert size % (entry.ALIGNMENT * pages) == 0
    assert 0 <= size - HEADER.size - length < entry.ALIGNMENT * pages


def test_the_codec_numbers_are_those_of_the_header() -> None:
    assert (STORED, LZ4, ZSTD) == (0, 1, 2)


# --- units_in ---------------------------------------------------------------------------


class Row:
    """Units one after the other, in memory that is full of something else."""

    def __init__(self, fill: bytes = b"\0") -> None:
        self.memory = memoryview(bytearray(fill * (1 << 18)))
        self.expected: list[Found] = []
        self.end = AT

    def append(self, slot: int, data: bytes) -> None:
        pages = len(data) // PAGE_SIZE
        number, payload = pack_payload(CODECS[ZSTD], data)
        size = unit_size(len(payload), pages)
        write_unit(self.memory, self.end, slot, pages, number, payload)
        self.expected.append(Found(slot, pages, self.end, size))
        self.end += size

    def found(self, end: int | None = None) -> list[Found]:
        return list(units_in(self.memory, AT, end or len(self.memory)))


@effort(60)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 4)), max_size=12))
def test_units_are_found_one_after_the_other(units: list[tuple[int, int]]) -> None:
    row = Row()
    for seed, pages in units:
        cluster, in_cluster = divmod(seed, CLUSTER_SLOTS)
        slot = cluster * CLUSTER_SLOTS + min(in_cluster, CLUSTER_SLOTS - pages)
        row.append(slot, make_pages.mixed(pages, seed % 50))
    assert row.found() == row.expected


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\x11"])
def test_what_follows_and_is_no_unit_ends_them(junk: bytes) -> None:
    row = Row(junk)
    row.append(3, make_pages.text(2))
    assert row.found()[:1] == row.expected
    assert all(found.position + found.size <= len(row.memory) for found in row.found())


def test_no_unit_is_found_beyond_the_end() -> None:
    """Nor one that crosses it: the next segment is another's."""
    row = Row()
    row.append(3, make_pages.text(2))
    row.append(8, make_pages.noise())
    assert row.found(row.end) == row.expected
    assert row.found(row.end - 4) == row.expected[:1]
    assert row.found(row.expected[1].position + 12) == row.expected[:1]
    assert row.found(row.expected[1].position) == row.expected[:1]


def test_a_unit_that_would_cross_a_cluster_is_none() -> None:
    row = Row()
    row.append(CLUSTER_SLOTS - 2, make_pages.text(2))
    row.append(CLUSTER_SLOTS - 1, make_pages.text(2))
    assert row.found() == row.expected[:1]


@effort(200)
@given(st.binary(min_size=12, max_size=200))
def test_any_bytes_give_units_within_bounds_or_none(junk: bytes) -> None:
    """They are hints, and looking for them is safe."""
    memory = memoryview(bytearray(junk))
    end = 0
    for found in units_in(memory, 0, len(memory)):
        assert 1 <= found.pages <= MAX_UNIT_PAGES
        assert found.position == end
        end = found.position + found.size
        assert end <= len(memory)
