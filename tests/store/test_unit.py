"""Units: what is written is read back exactly, or not at all."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import pages as make_pages
from model.effort import effort
from xxhash import xxh3_64_intdigest

from vswap.codec import LZ4, STORED, ZSTD, Codec, Lz4, Stored, Zstd, by_number
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import entry
from vswap.store.unit import (
    HEADER,
    Decoder,
    Found,
    pack_payload,
    unit_size,
    units_in,
    write_unit,
)

CODECS: list[Codec] = by_number()
AT = 1024
"""Where in memory the units of these tests begin."""
LAST_SLOT = (1 << 32) - 1


class Log:
    """A piece of memory with one unit in it."""

    def __init__(self, slot: int, data: bytes, codec: Codec) -> None:
        self.pages = len(data) // PAGE_SIZE
        number, payload = pack_payload(codec, data)
        self.length = len(payload)
        self.size = unit_size(self.length, self.pages)
        self.memory = memoryview(bytearray(b"\xa5" * (AT + self.size + 64)))
        write_unit(self.memory, AT, slot, self.pages, number, payload)
        self.decoder = Decoder(self.memory, CODECS)

    def entry(self, index: int = 0) -> int:
        first = entry.pack(AT, self.size // self.pages, 0)
        return first + (index << entry.INDEX_SHIFT)

    def read(self, slot: int, index: int = 0) -> bytes:
        return bytes(self.decoder.unit(self.entry(index), slot)[0])

    def flipped(self, first_byte: int, last_byte: int) -> Iterator[tuple[int, int]]:
        """Flip each bit of the unit's bytes in turn, and put it right again."""
        for at in range(AT + first_byte, AT + last_byte):
            for bit in range(8):
                self.memory[at] ^= 1 << bit
                yield at - AT, bit
                self.memory[at] ^= 1 << bit


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
@pytest.mark.parametrize("pages", range(1, MAX_UNIT_PAGES + 1))
def test_each_page_of_a_unit_gives_the_whole_unit(codec: Codec, pages: int) -> None:
    data = make_pages.text(pages, seed=pages)
    log = Log(7, data, codec)
    for index in range(pages):
        assert log.decoder.unit(log.entry(index), 7 + index) == (data, pages)


@effort(60)
@given(
    st.integers(0, LAST_SLOT - 16),
    st.integers(1, MAX_UNIT_PAGES),
    st.sampled_from(("text", "noise", "mixed")),
    st.sampled_from(CODECS),
)
def test_any_unit_is_read_back(slot: int, pages: int, maker: str, codec: Codec) -> None:
    data = make_pages.made(maker, pages, slot % 100)
    log = Log(slot, data, codec)
    assert log.read(slot + pages - 1, pages - 1) == data


def test_the_last_slot_of_the_largest_device_fits_the_header() -> None:
    log = Log(LAST_SLOT, make_pages.text(), Lz4())
    assert log.read(LAST_SLOT) == make_pages.text()


def test_a_unit_stays_in_its_bounds() -> None:
    data = make_pages.text(3)
    log = Log(0, data, Lz4())
    assert bytes(log.memory[:AT]) == b"\xa5" * AT
    assert bytes(log.memory[AT + log.size :]) == b"\xa5" * 64


def test_the_header_is_the_one_drawn_in_the_module() -> None:
    log = Log(0x01020304, make_pages.noise(2), Zstd(1, 4 * PAGE_SIZE))
    header = bytes(log.memory[AT : AT + HEADER.size])
    assert header[:8] == bytes.fromhex(
        "04030201"  # first slot
        "ff1f"  # payload length less one: 8192
        "02"  # pages
        "00"  # codec: stored
    )
    assert bytes(log.memory[AT + 12 : AT + 12 + 2 * PAGE_SIZE]) == make_pages.noise(2)


def test_the_checksum_is_of_the_payload_seeded_with_the_rest_of_the_header() -> None:
    """A later worker, perhaps of a later version, checks what this one wrote."""
    log = Log(0x01020304, make_pages.text(), Lz4())
    head, checksum = struct.unpack_from("<QI", log.memory, AT)
    payload = log.memory[AT + 12 : AT + 12 + log.length]
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


@pytest.mark.parametrize(
    "log",
    [
        Log(5, make_pages.text(), Lz4()),
        Log(5, make_pages.text(4), Zstd(1, 4 * PAGE_SIZE)),
        Log(5, make_pages.noise(), Lz4()),
        Log(5, make_pages.stamped("text", (5, 0, 0)) * 16, Lz4()),
    ],
    ids=["lz4", "zstd-4", "stored", "lz4-16"],
)
def test_every_flipped_bit_is_noticed(log: Log) -> None:
    """Header, checksum or payload: `CorruptError`, and nothing else, whichever bit it is."""
    unnoticed = []
    for where in log.flipped(0, HEADER.size + log.length):
        try:
            log.read(5)
        except CorruptError:
            continue
        unnoticed.append(where)
    assert unnoticed == []


def test_padding_is_nobodys_data() -> None:
    log = Log(5, make_pages.text(7), Lz4())
    assert log.size > HEADER.size + log.length
    for _ in log.flipped(HEADER.size + log.length, log.size):
        assert log.read(5) == make_pages.text(7)


@effort(200)
@given(st.binary(min_size=12, max_size=64))
def test_any_bytes_in_a_units_place_are_noticed(junk: bytes) -> None:
    log = Log(5, make_pages.text(), Lz4())
    log.memory[AT : AT + len(junk)] = junk
    with pytest.raises(CorruptError):
        log.read(5)


@pytest.mark.parametrize("slot", [4, 6, 5 + 512, 5 + (1 << 32)])
def test_a_unit_of_another_slot_is_refused(slot: int) -> None:
    log = Log(5, make_pages.text(2), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        log.read(slot)


def test_an_index_that_does_not_belong_to_the_slot_is_refused() -> None:
    log = Log(5, make_pages.text(4), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        log.read(5, index=1)


@pytest.mark.parametrize("index", [2, 3, 15])
def test_an_index_beyond_the_unit_is_refused(index: int) -> None:
    log = Log(5, make_pages.text(2), Lz4())
    with pytest.raises(CorruptError, match="other slots"):
        log.read(5 + index, index)


def test_an_entry_that_points_beside_its_unit_is_refused() -> None:
    log = Log(5, make_pages.text(2), Lz4())
    beside = entry.pack(AT + entry.ALIGNMENT, 400, 0)
    with pytest.raises(CorruptError):
        log.decoder.unit(beside, 5)


def test_a_codec_nobody_knows_is_refused() -> None:
    """With a checksum that is right: a unit of a later version."""
    log = Log(5, make_pages.text(), Lz4())
    write_unit(log.memory, AT, 5, 1, 3, bytes(100))
    with pytest.raises(CorruptError, match="unknown codec"):
        log.read(5)


class Next(Stored):
    """A codec of the number after those that every device has."""

    number = 3


def test_a_codec_that_a_device_has_come_to_have_is_asked_for_once() -> None:
    """By the first unit that has its number: a dictionary is found while threads are running."""
    log = Log(5, make_pages.noise(), Lz4())
    write_unit(log.memory, AT, 5, 1, Next.number, make_pages.noise())
    asked: list[Codec] = []

    def more() -> Codec:
        asked.append(Next())
        return asked[-1]

    decoder = Decoder(log.memory, CODECS, more)
    for _ in range(2):
        assert decoder.unit(log.entry(), 5) == (make_pages.noise(), 1)
    assert len(asked) == 1


def test_a_codec_that_a_device_has_not_got_is_asked_for_again() -> None:
    """It may come later; a unit of it is refused until then."""
    log = Log(5, make_pages.noise(), Lz4())
    write_unit(log.memory, AT, 5, 1, Next.number, make_pages.noise())
    there: list[Codec | None] = [None, Next()]
    decoder = Decoder(log.memory, CODECS, lambda: there.pop(0))
    with pytest.raises(CorruptError, match="unknown codec"):
        decoder.unit(log.entry(), 5)
    assert decoder.unit(log.entry(), 5) == (make_pages.noise(), 1)


def test_a_codec_further_on_is_unknown() -> None:
    log = Log(5, make_pages.noise(), Lz4())
    write_unit(log.memory, AT, 5, 1, 4, make_pages.noise())
    with pytest.raises(CorruptError, match="unknown codec, 4"):
        Decoder(log.memory, CODECS, Next).unit(log.entry(), 5)


def test_a_unit_at_the_very_end_of_memory_is_read() -> None:
    data = make_pages.noise()
    log = Log(5, data, Lz4())
    memory = log.memory[: AT + log.size]
    assert Decoder(memory, CODECS).unit(log.entry(), 5) == (data, 1)


def test_a_length_that_runs_out_of_memory_is_refused() -> None:
    log = Log(5, make_pages.noise(), Lz4())
    memory = log.memory[: AT + log.size - 8]
    with pytest.raises(CorruptError):
        Decoder(memory, CODECS).unit(log.entry(), 5)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
def test_what_is_read_is_a_copy(codec: Codec) -> None:
    """The segment may be written again as soon as the lock is given up."""
    log = Log(5, make_pages.text(), codec)
    data = log.decoder.unit(log.entry(), 5)[0]
    log.memory[:] = bytes(len(log.memory))
    assert bytes(data) == make_pages.text()


def test_the_decoder_wants_codecs_by_number() -> None:
    with pytest.raises(AssertionError):
        Decoder(memoryview(bytearray(64)), [Lz4(), Stored()])


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
