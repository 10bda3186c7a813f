"""Codecs: what goes in comes out, and what is damaged never comes out as something else."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import pages as make_pages
from model.effort import effort

from vswap.codec import (
    CODECS,
    LZ4,
    STORED,
    ZSTD,
    ZSTD_DICTIONARY,
    Bytes,
    Codec,
    Zstd,
    by_number,
    train,
)
from vswap.codec import codec as named
from vswap.errors import CorruptError, UserError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE

NAMES = sorted(CODECS)

UNIT_SIZE = 4 * PAGE_SIZE

page_counts = st.integers(1, MAX_UNIT_PAGES)
every_codec = pytest.mark.parametrize("name", NAMES)


def codec(name: str) -> Codec:
    """The codec of that name, as for units of four pages."""
    return named(name, UNIT_SIZE)


@st.composite
def units(draw: st.DrawFn) -> bytes:
    """The pages of a unit, of any kind, with some bytes of Hypothesis' own choice."""
    maker = draw(st.sampled_from(("zero", "filled", "text", "noise", "mixed")))
    count = draw(page_counts)
    data = bytearray(make_pages.made(maker, count, draw(seeds)))
    own = draw(st.binary(max_size=64))
    at = draw(st.integers(0, len(data) - len(own)))
    data[at : at + len(own)] = own
    return bytes(data)


seeds = st.integers(0, 50)


def decoded(one: Codec, payload: bytes, size: int) -> bytes | None:
    """What the codec makes of a payload, or None for `CorruptError`; anything else raises."""
    try:
        return bytes(one.decompress(payload, size))
    except CorruptError:
        return None


# --- What goes in comes out -------------------------------------------------------------


@every_codec
@effort(100)
@given(data=units())
def test_what_is_compressed_comes_out_again(name: str, data: bytes) -> None:
    one = codec(name)
    assert decoded(one, bytes(one.compress(data)), len(data)) == data


@every_codec
@pytest.mark.parametrize("count", range(1, MAX_UNIT_PAGES + 1))
def test_every_number_of_pages_comes_out_again(name: str, count: int) -> None:
    one = codec(name)
    data = make_pages.text(count, seed=count)
    assert decoded(one, bytes(one.compress(data)), len(data)) == data


@every_codec
def test_real_process_memory_comes_out_again(name: str) -> None:
    one = codec(name)
    memory = make_pages.process_memory(1024)
    assert len(memory) >= 256 * PAGE_SIZE
    for count in (1, 4, 16):
        size = count * PAGE_SIZE
        for at in range(0, len(memory) - size + 1, size):
            data = memory[at : at + size]
            assert decoded(one, bytes(one.compress(data)), size) == data


@every_codec
def test_views_are_taken_in_both_directions(name: str) -> None:
    """As the data plane gives them: a slice of a receive buffer, a slice of a segment."""
    one = codec(name)
    data = make_pages.text(2)
    buffer = memoryview(bytearray(b"x" * 10 + data + b"x" * 10))
    payload = one.compress(buffer[10:-10])
    segment = memoryview(bytearray(b"y" * 7 + payload + b"y" * 7))
    assert bytes(one.decompress(segment[7:-7], len(data))) == data


@every_codec
def test_a_codec_keeps_nothing_from_one_unit_to_the_next(name: str) -> None:
    used, new = codec(name), codec(name)
    used.compress(make_pages.text(16, seed=1))
    data = make_pages.text(4, seed=2)
    assert bytes(used.compress(data)) == bytes(new.compress(data))


@every_codec
def test_damage_to_one_unit_does_not_harm_the_next(name: str) -> None:
    one = codec(name)
    data = make_pages.text(4)
    payload = bytes(one.compress(data))
    assert decoded(one, payload[: len(payload) // 2], len(data)) is None
    assert decoded(one, payload, len(data)) == data


# --- What is damaged --------------------------------------------------------------------


@every_codec
@effort(150)
@given(data=units(), kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_payload_is_corrupt(name: str, data: bytes, kept: float) -> None:
    one = codec(name)
    payload = bytes(one.compress(data))
    assert decoded(one, payload[: int(len(payload) * kept)], len(data)) is None


@every_codec
@effort(150)
@given(data=units(), flips=st.lists(st.integers(0, 1 << 30), min_size=1, max_size=8))
def test_flipped_bits_give_an_error_or_as_many_bytes(
    name: str, data: bytes, flips: list[int]
) -> None:
    """Which of them only a checksum can tell. Never another exception, nor another length."""
    one = codec(name)
    payload = bytearray(one.compress(data))
    for flip in flips:
        payload[flip // 8 % len(payload)] ^= 1 << flip % 8
    found = decoded(one, bytes(payload), len(data))
    assert found is None or len(found) == len(data)


@every_codec
@effort(200)
@given(junk=st.binary(max_size=200), count=page_counts)
def test_junk_gives_an_error_or_as_many_bytes(name: str, junk: bytes, count: int) -> None:
    found = decoded(codec(name), junk, count * PAGE_SIZE)
    assert found is None or len(found) == count * PAGE_SIZE


@every_codec
@pytest.mark.parametrize("asked", [1, 3, 5])
def test_a_unit_of_another_length_is_corrupt(name: str, asked: int) -> None:
    one = codec(name)
    payload = bytes(one.compress(make_pages.text(4)))
    assert decoded(one, payload, asked * PAGE_SIZE) is None


@every_codec
def test_nothing_is_corrupt(name: str) -> None:
    assert decoded(codec(name), b"", PAGE_SIZE) is None


def frame_that_claims(size: int) -> bytes:
    """A zstd frame, without magic, that announces `size` bytes of content."""
    descriptor = 0b11_1_00000  # an eight byte content size, and no window descriptor
    return struct.pack("<BQ", descriptor, size) + bytes(100)


@pytest.mark.parametrize("size", [1 << 48, (1 << 64) - 3])
def test_a_zstd_frame_that_claims_more_than_there_is_memory_is_corrupt(size: int) -> None:
    assert decoded(Zstd(1, UNIT_SIZE), frame_that_claims(size), PAGE_SIZE) is None


def test_what_a_zstd_frame_claims_is_not_allocated() -> None:
    """Damage can announce any length: not more may be allocated than was asked for."""
    one = Zstd(1, UNIT_SIZE)
    tracemalloc.start()
    try:
        assert decoded(one, frame_that_claims(1 << 30), PAGE_SIZE) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- Unit sizes and dictionaries ----------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("made_for", [1, 4, 16])
def test_a_unit_of_any_size_comes_out_of_a_codec_made_for_another(name: str, made_for: int) -> None:
    """The size is for what is usual; smaller units are written at a range's ends."""
    one = named(name, made_for * PAGE_SIZE)
    for pages in (1, 3, 16):
        data = make_pages.text(pages, seed=pages)
        assert decoded(one, bytes(one.compress(data)), len(data)) == data


def test_zstd_levels_and_unit_sizes_read_each_other() -> None:
    data = make_pages.text(16)
    payload = Zstd(19, 16 * PAGE_SIZE).compress(data)
    assert bytes(Zstd(-1, PAGE_SIZE).decompress(payload, len(data))) == data


def test_fast_is_less_dense() -> None:
    data = make_pages.text(4)
    assert len(codec("zstd").compress(data)) < len(codec("zstd-fast").compress(data))


@pytest.fixture(scope="module")
def dictionary() -> bytes:
    """Of pages that resemble each other as the pages of one program do."""
    samples: list[Bytes] = [make_pages.text(1, seed) for seed in range(200)]
    made = train(samples, 16 << 10, 3)
    assert made
    return made


def test_a_dictionary_makes_what_resembles_it_smaller(dictionary: bytes) -> None:
    with_it, without = Zstd(3, UNIT_SIZE, dictionary), Zstd(3, UNIT_SIZE)
    data = make_pages.text(1, seed=1000)
    payload = with_it.compress(data)
    assert len(payload) < len(without.compress(data)) * 0.9
    assert decoded(with_it, payload, len(data)) == data


@pytest.mark.parametrize("level", [-1, 1, 19])
def test_the_level_does_not_matter_to_read_what_a_dictionary_made(
    dictionary: bytes, level: int
) -> None:
    data = make_pages.text(16, seed=1000)
    payload = Zstd(6, 16 * PAGE_SIZE, dictionary).compress(data)
    assert decoded(Zstd(level, PAGE_SIZE, dictionary), payload, len(data)) == data


def test_a_dictionary_has_a_number_of_its_own(dictionary: bytes) -> None:
    """A reader without it must refuse the unit, not read something else."""
    assert Zstd(1, UNIT_SIZE, dictionary).number == ZSTD_DICTIONARY
    assert Zstd(1, UNIT_SIZE).number == ZSTD


def test_what_a_dictionary_made_is_corrupt_without_it_or_as_long(dictionary: bytes) -> None:
    data = make_pages.text(4, seed=1000)
    payload = Zstd(6, UNIT_SIZE, dictionary).compress(data)
    found = decoded(Zstd(6, UNIT_SIZE), payload, len(data))
    assert found is None or len(found) == len(data)


@effort(100)
@given(flips=st.lists(st.integers(0, 1 << 30), min_size=1, max_size=8))
def test_flipped_bits_with_a_dictionary_give_an_error_or_as_many_bytes(
    dictionary: bytes, flips: list[int]
) -> None:
    one = Zstd(6, UNIT_SIZE, dictionary)
    data = make_pages.text(4, seed=1000)
    payload = bytearray(one.compress(data))
    for flip in flips:
        payload[flip // 8 % len(payload)] ^= 1 << flip % 8
    found = decoded(one, bytes(payload), len(data))
    assert found is None or len(found) == len(data)


def test_too_few_samples_make_no_dictionary() -> None:
    assert train([make_pages.text()], 16 << 10, 3) == b""


# --- Names and numbers ------------------------------------------------------------------


def test_numbers_are_what_they_have_always_been() -> None:
    """Unit headers hold them: a number once given away never means anything else."""
    numbers = {name: codec(name).number for name in CODECS}
    assert numbers == {"stored": 0, "lz4": 1, "zstd": 2, "zstd-fast": 2}
    assert (STORED, LZ4, ZSTD, ZSTD_DICTIONARY) == (0, 1, 2, 3)


@every_codec
def test_what_any_codec_made_is_read_by_that_of_its_number(name: str) -> None:
    """Whatever its level and its unit size: a unit header holds the number, and no more."""
    one = codec(name)
    data = make_pages.text(16)
    assert decoded(by_number()[one.number], bytes(one.compress(data)), len(data)) == data


def test_codecs_by_number_are_at_the_place_of_their_numbers() -> None:
    assert [one.number for one in by_number()] == list(range(ZSTD + 1))


def test_each_caller_gets_codecs_by_number_of_its_own() -> None:
    """They keep scratch state."""
    assert not set(map(id, by_number())) & set(map(id, by_number()))


def test_a_name_nobody_knows_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"'lzo'.*lz4, zstd-fast, zstd, stored"):
        codec("lzo")


@every_codec
def test_each_caller_gets_a_codec_of_its_own(name: str) -> None:
    assert codec(name) is not codec(name)


@pytest.mark.parametrize("name", ["lz4", "zstd", "zstd-fast"])
def test_text_gets_smaller(name: str) -> None:
    assert len(codec(name).compress(make_pages.text(4))) < 4 * PAGE_SIZE * 0.75


def test_stored_does_not_copy_what_it_keeps() -> None:
    data = make_pages.text()
    assert codec("stored").compress(data) is data


def test_stored_copies_what_it_gives_out() -> None:
    """It must outlive the segment that it came from."""
    segment = bytearray(make_pages.text())
    found = codec("stored").decompress(memoryview(segment), PAGE_SIZE)
    segment[:] = bytes(PAGE_SIZE)
    assert bytes(found) == make_pages.text()
