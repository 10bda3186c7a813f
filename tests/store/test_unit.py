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

from vswap.codec import LZ4, STORED, ZSTD, Codec, Lz4, Stored, Zstd
from vswap.errors import CorruptError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import entry
from vswap.store.unit import HEADER, Decoder, pack_payload, unit_size, write_unit

CODECS: list[Codec] = [Stored(), Lz4(), Zstd()]
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
    log = Log(0x01020304, make_pages.noise(2), Zstd())
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


@pytest.mark.parametrize("codec", [Lz4(), Zstd()], ids=["lz4", "zstd"])
def test_what_compresses_keeps_its_codec(codec: Codec) -> None:
    number, payload = pack_payload(codec, make_pages.text(4))
    assert number == codec.number
    assert len(payload) < 4 * PAGE_SIZE * 7 / 8


@pytest.mark.parametrize("codec", [Lz4(), Zstd()], ids=["lz4", "zstd"])
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
        Log(5, make_pages.text(4), Zstd()),
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
