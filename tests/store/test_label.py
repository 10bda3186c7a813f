"""Labels: the first block of a backing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.store.backing import BLOCK, NOTE_SIZE
from vswap.store.label import pack, unpack


@given(st.binary(max_size=NOTE_SIZE))
@effort(50)
def test_a_note_comes_back_as_it_was(note: bytes) -> None:
    block = pack(note)
    assert len(block) == BLOCK
    assert unpack(block) == note


def test_the_layout_is_the_documented_one() -> None:
    block = pack(b"note")
    assert block[:20] == b"vswapbak" + b"\1\0\0\0" + b"\4\0\0\0" + b"note"
    assert block[20:4088] == bytes(4068)
    assert block[4088:] == bytes.fromhex("a636ecddc315c4be")


def test_zeros_are_a_label_with_an_empty_note() -> None:
    assert unpack(bytes(BLOCK)) == b""


@given(st.binary(min_size=8, max_size=8).filter(lambda magic: magic != b"vswapbak"))
@effort(50)
def test_what_begins_otherwise_is_no_label(magic: bytes) -> None:
    assert unpack(magic + b"x" + pack(b"note")[9:]) is None


def test_zeros_with_one_bit_set_are_no_label() -> None:
    for position in (0, 8, 1080, BLOCK - 1):
        block = bytearray(BLOCK)
        block[position] = 1
        assert unpack(bytes(block)) is None


@pytest.mark.parametrize("position", [8, 12, 16, 18, 2000, BLOCK - 1])
def test_a_damaged_label_is_still_one_but_has_lost_its_note(position: int) -> None:
    block = bytearray(pack(b"note"))
    block[position] ^= 0x40
    assert unpack(bytes(block)) == b""


def test_a_label_of_another_version_has_no_note_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vswap.store.label._VERSION", 2)
    block = pack(b"note")
    monkeypatch.undo()
    assert unpack(block) == b""


def test_a_note_that_is_too_long_is_not_packed() -> None:
    with pytest.raises(AssertionError):
        pack(bytes(NOTE_SIZE + 1))
