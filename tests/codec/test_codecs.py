"""Codecs: what goes in comes out, and what is damaged never comes out as something else."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model import pages as make_pages
from model.effort import effort

from vswap.codec import CODECS, LZ4, STORED, ZSTD, Codec, Zstd, codec
from vswap.errors import CorruptError, UserError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE

NAMES = sorted(CODECS)

page_counts = st.integers(1, MAX_UNIT_PAGES)
every_codec = pytest.mark.parametrize("name", NAMES)


@st.composite
def units(draw: st.DrawFn) -> bytes:
    """The pages of a unit, of any kind, with some bytes of Hypothesis' own choice."""
    maker = draw(st.sampled_from(("zero", "text", "noise", "mixed")))
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
    assert decoded(Zstd(), frame_that_claims(size), PAGE_SIZE) is None


def test_what_a_zstd_frame_claims_is_not_allocated() -> None:
    """Damage can announce any length: not more may be allocated than was asked for."""
    one = Zstd()
    tracemalloc.start()
    try:
        assert decoded(one, frame_that_claims(1 << 30), PAGE_SIZE) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- Names and numbers ------------------------------------------------------------------


def test_numbers_are_what_they_have_always_been() -> None:
    """Unit headers hold them: a number once given away never means anything else."""
    assert {name: codec(name).number for name in CODECS} == {"stored": 0, "lz4": 1, "zstd": 2}
    assert (STORED, LZ4, ZSTD) == (0, 1, 2)


def test_no_two_codecs_share_a_number() -> None:
    numbers = [codec(name).number for name in CODECS]
    assert len(set(numbers)) == len(numbers)


def test_a_name_nobody_knows_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"'lzo'.*lz4, zstd, stored"):
        codec("lzo")


@every_codec
def test_each_caller_gets_a_codec_of_its_own(name: str) -> None:
    assert codec(name) is not codec(name)


@pytest.mark.parametrize("name", ["lz4", "zstd"])
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


def test_zstd_levels_read_each_other() -> None:
    data = make_pages.text(16)
    payload = Zstd(19).compress(data)
    assert bytes(Zstd(-1).decompress(payload, len(data))) == data
