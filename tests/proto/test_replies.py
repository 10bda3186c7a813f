"""Replies, byte for byte, and the look at replies that others made."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vswap.errors import ProtocolError
from vswap.proto import replies
from vswap.proto.abi import OUT_HEADER, RESEND_BIT, OpenFlag
from vswap.proto.replies import OutHeader, decode_out_header

UNIQUE = 0xB8B7B6B5B4B3B2B1

OK = bytes.fromhex(
    "10000000"  # len: 16
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
)
EIO = bytes.fromhex(
    "10000000"  # len: 16
    "fbffffff"  # error: -5
    "b1b2b3b4b5b6b7b8"  # unique
)
DATA_HEADER = bytes.fromhex(
    "10100000"  # len: 16 + 4096
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
)
WRITTEN = bytes.fromhex(
    "18000000"  # len: 24
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
    "00000800"  # size: 512 KiB
    "00000000"  # padding
)
OPENED = bytes.fromhex(
    "20000000"  # len: 32
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
    "0102030405060708"  # fh
    "41000000"  # open_flags: DIRECT_IO | PARALLEL_DIRECT_WRITES
    "00000000"  # backing_id: none
)
FOUND = bytes.fromhex(
    "18000000"  # len: 24
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
    "1112131415161718"  # offset
)
RESEND = bytes.fromhex(
    "10000000"  # len: 16
    "07000000"  # error: the code, FUSE_NOTIFY_RESEND
    "0000000000000000"  # unique: none, it is a notification
)

# --- Ours -------------------------------------------------------------------------------


def test_ok() -> None:
    assert replies.ok(UNIQUE) == OK


def test_error_is_negative_on_the_wire() -> None:
    assert replies.error(UNIQUE, errno.EIO) == EIO


@pytest.mark.parametrize("number", [-errno.EIO, 0, 512])
def test_an_error_that_the_kernel_would_refuse_is_not_made(number: int) -> None:
    with pytest.raises(AssertionError):
        replies.error(UNIQUE, number)


def test_data_header_counts_the_data_that_follows() -> None:
    assert replies.data_header(UNIQUE, 4096) == DATA_HEADER


def test_written() -> None:
    assert replies.written(UNIQUE, 512 << 10) == WRITTEN


def test_opened() -> None:
    flags = OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES
    assert replies.opened(UNIQUE, 0x0807060504030201, flags) == OPENED


def test_found() -> None:
    assert replies.found(UNIQUE, 0x1817161514131211) == FOUND


def test_resend() -> None:
    assert replies.resend() == RESEND


@pytest.mark.parametrize(
    "reply",
    [
        replies.ok(RESEND_BIT | 42),
        replies.error(RESEND_BIT | 42, errno.EIO),
        replies.data_header(RESEND_BIT | 42, 0),
        replies.written(RESEND_BIT | 42, 4096),
        replies.opened(RESEND_BIT | 42, 1, 0),
        replies.found(RESEND_BIT | 42, 4096),
    ],
)
def test_the_resend_bit_is_echoed(reply: bytes) -> None:
    assert reply[8:16] == bytes.fromhex("2a00000000000080")


# --- Theirs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "header"),
    [
        (OK, OutHeader(16, 0, UNIQUE)),
        (EIO, OutHeader(16, -5, UNIQUE)),
        (OPENED, OutHeader(32, 0, UNIQUE)),
        (RESEND, OutHeader(16, 7, 0)),
    ],
)
def test_a_header_is_decoded(reply: bytes, header: OutHeader) -> None:
    assert decode_out_header(reply, len(reply)) == header


def test_what_lies_behind_the_reply_is_not_looked_at() -> None:
    view = memoryview(OPENED + b"\x77" * 4096)
    assert decode_out_header(view, len(OPENED)) == OutHeader(32, 0, UNIQUE)


def refusal(view: bytes, length: int) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_out_header(view, length)
    return caught.value


@pytest.mark.parametrize("length", [-1, 0, 15])
def test_less_than_a_header_is_refused(length: int) -> None:
    error = refusal(OK, length)
    assert str(error) == f"a reply begins with 16 bytes of header, not {length}"
    assert error.unique == 0


def test_a_buffer_shorter_than_the_reply_is_refused() -> None:
    error = refusal(OK, 17)
    assert str(error) == "a buffer of 16 bytes cannot hold a message of 17"
    assert error.unique == 0


def test_a_length_other_than_that_received_is_refused() -> None:
    error = refusal(DATA_HEADER, 16)
    assert str(error) == "the reply announces 4112 bytes and has 16"
    assert error.unique == UNIQUE


@pytest.mark.parametrize("number", [1, -512])
def test_an_error_that_the_kernel_would_refuse_is_refused(number: int) -> None:
    error = refusal(OUT_HEADER.pack(16, number, UNIQUE), 16)
    assert str(error) == f"{number} is neither 0 nor a negative errno"
    assert error.unique == UNIQUE


def test_an_error_with_a_body_is_refused() -> None:
    error = refusal(OUT_HEADER.pack(24, -errno.EIO, UNIQUE) + b"\x77" * 8, 24)
    assert str(error) == "a reply with an error has no body, and this has 8 bytes"
    assert error.unique == UNIQUE


@pytest.mark.parametrize("code", [0, -errno.EIO])
def test_a_notification_without_a_code_is_refused(code: int) -> None:
    error = refusal(OUT_HEADER.pack(16, code, 0), 16)
    assert str(error) == f"{code} is not a notification's code"
    assert error.unique == 0


# --- Properties -------------------------------------------------------------------------

deterministic = settings(derandomize=True, deadline=None, max_examples=500)
uniques = st.integers(1, (1 << 64) - 1)


@deterministic
@given(st.binary(max_size=64), st.integers(-1, 80))
def test_any_bytes_give_a_header_or_a_protocol_error(view: bytes, length: int) -> None:
    try:
        header = decode_out_header(view, length)
    except ProtocolError as error:
        assert str(error)
        return
    assert header.len == length <= len(view)


@deterministic
@given(st.binary(max_size=64), st.integers(-600, 600), st.sampled_from([0, UNIQUE]))
def test_any_error_behind_an_honest_length(body: bytes, number: int, unique: int) -> None:
    length = OUT_HEADER.size + len(body)
    try:
        header = decode_out_header(OUT_HEADER.pack(length, number, unique) + body, length)
    except ProtocolError as error:
        assert error.unique == unique
        return
    assert header == OutHeader(length, number, unique)


@deterministic
@given(uniques, st.integers(1, 511))
def test_every_error_we_make_is_one_we_accept(unique: int, number: int) -> None:
    reply = replies.error(unique, number)
    assert decode_out_header(reply, len(reply)) == OutHeader(16, -number, unique)


@deterministic
@given(uniques, st.binary(max_size=64))
def test_every_read_we_answer_is_one_we_accept(unique: int, data: bytes) -> None:
    reply = replies.data_header(unique, len(data)) + data
    assert decode_out_header(reply, len(reply)) == OutHeader(len(reply), 0, unique)
