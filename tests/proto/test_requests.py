"""One message in, one request out, or a ProtocolError and nothing else.

Every field of the vectors that is not read holds poison, padding too: a decoder that
looks a byte to the left or right returns a value that no test expects.
"""

from __future__ import annotations

import struct
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vswap.errors import ProtocolError
from vswap.proto.abi import (
    FALLOCATE_IN,
    IN_HEADER,
    INIT_IN,
    LSEEK_IN,
    OPEN_IN,
    READ_IN,
    WRITE_IN,
    WRITE_PAYLOAD,
    InitFlag,
    Opcode,
)
from vswap.proto.requests import (
    Fallocate,
    Init,
    Lseek,
    Open,
    Other,
    Read,
    Request,
    Write,
    decode,
    expects_reply,
)

# What every vector's header holds between its opcode and its extensions.
UNIQUE = 0xB8B7B6B5B4B3B2B1
NODEID = 0xC8C7C6C5C4C3C2C1
IDS = bytes.fromhex(
    "b1b2b3b4b5b6b7b8"  # unique
    "c1c2c3c4c5c6c7c8"  # nodeid
    "d1d1d1d1"  # uid
    "d2d2d2d2"  # gid
    "d3d3d3d3"  # pid
)

READ = (
    bytes.fromhex(
        "50000000"  # len: 80
        "0f000000"  # opcode: READ
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "0102030405060708"  # fh
        "1112131415161718"  # offset
        "21222324"  # size
        "e1e1e1e1"  # read_flags
        "e2e2e2e2e2e2e2e2"  # lock_owner
        "e3e3e3e3"  # flags
        "e4e4e4e4"  # padding
    )
)
WRITE = (
    bytes.fromhex(
        "58000000"  # len: 88
        "10000000"  # opcode: WRITE
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "0102030405060708"  # fh
        "1112131415161718"  # offset
        "08000000"  # size: 8
        "e1e1e1e1"  # write_flags
        "e2e2e2e2e2e2e2e2"  # lock_owner
        "e3e3e3e3"  # flags
        "e4e4e4e4"  # padding
        "f1f2f3f4f5f6f7f8"  # the data
    )
)
FALLOCATE = (
    bytes.fromhex(
        "48000000"  # len: 72
        "2b000000"  # opcode: FALLOCATE
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "0102030405060708"  # fh
        "1112131415161718"  # offset
        "2122232425262728"  # length
        "03000000"  # mode: PUNCH_HOLE | KEEP_SIZE
        "e4e4e4e4"  # padding
    )
)
LSEEK = (
    bytes.fromhex(
        "40000000"  # len: 64
        "2e000000"  # opcode: LSEEK
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "0102030405060708"  # fh
        "1112131415161718"  # offset
        "03000000"  # whence: SEEK_DATA
        "e4e4e4e4"  # padding
    )
)
OPEN = (
    bytes.fromhex(
        "30000000"  # len: 48
        "0e000000"  # opcode: OPEN
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "02c00000"  # flags: O_RDWR | O_DIRECT | O_LARGEFILE
        "e1e1e1e1"  # open_flags
    )
)
INIT = (
    bytes.fromhex(
        "68000000"  # len: 104
        "1a000000"  # opcode: INIT
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "07000000"  # major
        "2d000000"  # minor: 45
        "00000200"  # max_readahead: 128 KiB
        "21804040"  # flags: INIT_EXT, MAX_PAGES, ASYNC_DIO, BIG_WRITES, ASYNC_READ
        "80060000"  # flags2: HAS_RESEND, OVER_IO_URING, REQUEST_TIMEOUT
    )
    + bytes.fromhex("e5e5e5e5") * 11  # unused
)
INIT_BEFORE_7_36 = (
    bytes.fromhex(
        "38000000"  # len: 56
        "1a000000"  # opcode: INIT
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "07000000"  # major
        "1f000000"  # minor: 31
        "00000200"  # max_readahead: 128 KiB
        "21804000"  # flags: MAX_PAGES, ASYNC_DIO, BIG_WRITES, ASYNC_READ
    )
)
LOOKUP = (
    bytes.fromhex(
        "2d000000"  # len: 45
        "01000000"  # opcode: LOOKUP
    )
    + IDS
    + bytes.fromhex(
        "0000"  # total_extlen
        "d4d4"  # padding
        "7377617000"  # name: "swap", NUL
    )
)

VALID = {
    "READ": READ,
    "WRITE": WRITE,
    "FALLOCATE": FALLOCATE,
    "LSEEK": LSEEK,
    "OPEN": OPEN,
    "INIT": INIT,
    "INIT_BEFORE_7_36": INIT_BEFORE_7_36,
    "LOOKUP": LOOKUP,
}

FH = 0x0807060504030201
OFFSET = 0x1817161514131211

LEN = slice(0, 4)
OPCODE = slice(4, 8)
TOTAL_EXTLEN = slice(36, 38)
INIT_FLAGS = slice(52, 56)


def patched(message: bytes, field: slice, value: int) -> bytes:
    """Return `message` with another value in one field."""
    edited = bytearray(message)
    edited[field] = value.to_bytes(field.stop - field.start, "little")
    return bytes(edited)


def resized(message: bytes, length: int) -> bytes:
    """Return `message` cut or filled up to `length`, and saying so."""
    return patched(message[:length].ljust(length, b"\x99"), LEN, length)


def refusal(message: bytes, length: int | None = None) -> ProtocolError:
    """Return the error that decoding `message` raises."""
    with pytest.raises(ProtocolError) as caught:
        decode(message, len(message) if length is None else length)
    return caught.value


def decoded(message: bytes) -> Request:
    return decode(message, len(message))


def same(one: Request, other: Request) -> bool:
    """Compare types too: as tuples, requests of different kinds can be equal."""
    return type(one) is type(other) and one == other


# --- Each request -----------------------------------------------------------------------


def test_read() -> None:
    assert same(decoded(READ), Read(UNIQUE, NODEID, FH, OFFSET, 0x24232221))


def test_write() -> None:
    assert same(decoded(WRITE), Write(UNIQUE, NODEID, FH, OFFSET, 8))


def test_fallocate() -> None:
    request = Fallocate(UNIQUE, NODEID, FH, OFFSET, 0x2827262524232221, 3)
    assert same(decoded(FALLOCATE), request)


def test_lseek() -> None:
    assert same(decoded(LSEEK), Lseek(UNIQUE, NODEID, FH, OFFSET, 3))


def test_open() -> None:
    assert same(decoded(OPEN), Open(UNIQUE, NODEID, 0xC002))


def test_init_has_both_halves_of_its_flags() -> None:
    assert same(decoded(INIT), Init(UNIQUE, 7, 45, 1 << 17, 0x680_4040_8021))


def test_init_before_7_36_has_no_upper_half() -> None:
    assert same(decoded(INIT_BEFORE_7_36), Init(UNIQUE, 7, 31, 1 << 17, 0x40_8021))


def test_init_without_init_ext_has_no_upper_half_whatever_lies_there() -> None:
    request = decoded(patched(INIT, INIT_FLAGS, 0x40_8021))
    assert same(request, Init(UNIQUE, 7, 45, 1 << 17, 0x40_8021))


def test_what_the_data_plane_does_not_serve_is_known_by_its_header() -> None:
    assert same(decoded(LOOKUP), Other(UNIQUE, NODEID, Opcode.LOOKUP))


def test_an_opcode_nobody_knows_is_no_error() -> None:
    message = patched(LOOKUP, OPCODE, 0xABCDEF01)
    assert same(decoded(message), Other(UNIQUE, NODEID, 0xABCDEF01))


def test_a_request_without_a_body_is_a_header() -> None:
    message = resized(patched(LOOKUP, OPCODE, Opcode.STATFS), IN_HEADER.size)
    assert same(decoded(message), Other(UNIQUE, NODEID, Opcode.STATFS))


def test_a_resent_request_keeps_the_resend_bit() -> None:
    assert decoded(patched(READ, slice(8, 16), 1 << 63 | 42)).unique == 1 << 63 | 42


# --- Where the bytes are ----------------------------------------------------------------


def test_the_data_of_a_write_is_left_in_the_buffer() -> None:
    request = decoded(WRITE)
    assert isinstance(request, Write)
    data = WRITE[WRITE_PAYLOAD : WRITE_PAYLOAD + request.size]
    assert data == bytes.fromhex("f1f2f3f4f5f6f7f8")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_of_bytes_will_do(kind: type[bytes | bytearray | memoryview]) -> None:
    assert same(decode(kind(READ), len(READ)), decoded(READ))


@pytest.mark.parametrize("name", VALID)
def test_what_lies_behind_the_message_is_not_looked_at(name: str) -> None:
    message = VALID[name]
    assert same(decode(memoryview(message + b"\x77" * 4096), len(message)), decoded(message))


# --- Extensions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALID)
def test_extensions_behind_the_body_are_not_part_of_it(name: str) -> None:
    message = VALID[name]
    extended = patched(resized(message, len(message) + 16), TOTAL_EXTLEN, 2)
    assert same(decoded(extended), decoded(message))


def test_extensions_may_leave_no_body() -> None:
    extended = patched(resized(LOOKUP, IN_HEADER.size + 8), TOTAL_EXTLEN, 1)
    assert same(decoded(extended), Other(UNIQUE, NODEID, Opcode.LOOKUP))


def test_extensions_do_not_count_as_body() -> None:
    error = refusal(patched(READ, TOTAL_EXTLEN, 1))
    assert str(error) == "READ needs a body of 40 bytes and has 32"


def test_extensions_do_not_count_as_data() -> None:
    error = refusal(patched(WRITE, TOTAL_EXTLEN, 1))
    assert str(error) == "WRITE announces 8 bytes of data and has 0"


def test_extensions_that_reach_into_the_header_are_refused() -> None:
    error = refusal(patched(LOOKUP, TOTAL_EXTLEN, 1))
    assert str(error) == "8 bytes of extensions do not fit in a request of 45"
    assert error.unique == UNIQUE


# --- What is refused --------------------------------------------------------------------


@pytest.mark.parametrize("length", [-1, 0, 1, 39])
def test_less_than_a_header_is_refused(length: int) -> None:
    error = refusal(READ, length)
    assert str(error) == f"a request begins with 40 bytes of header, not {length}"
    assert error.unique == 0


def test_a_buffer_shorter_than_the_message_is_refused() -> None:
    error = refusal(READ, len(READ) + 1)
    assert str(error) == "a buffer of 80 bytes cannot hold a message of 81"
    assert error.unique == 0


@pytest.mark.parametrize("announced", [0, 79, 81, 0xFFFFFFFF])
def test_a_length_other_than_that_received_is_refused(announced: int) -> None:
    error = refusal(patched(READ, LEN, announced))
    assert str(error) == f"the header announces {announced} bytes and 80 were received"
    assert error.unique == UNIQUE


@pytest.mark.parametrize(
    ("name", "need"),
    [("READ", 40), ("WRITE", 40), ("FALLOCATE", 32), ("LSEEK", 24), ("OPEN", 8), ("INIT", 16)],
)
def test_a_body_shorter_than_its_struct_is_refused(name: str, need: int) -> None:
    error = refusal(resized(VALID[name], IN_HEADER.size + need - 1))
    assert str(error) == f"{name} needs a body of {need} bytes and has {need - 1}"
    assert error.unique == UNIQUE


def test_init_ext_without_its_flags2_is_refused() -> None:
    error = refusal(resized(INIT, IN_HEADER.size + 19))
    assert str(error) == "INIT needs a body of 20 bytes and has 19"
    assert error.unique == UNIQUE


@pytest.mark.parametrize("name", ["READ", "FALLOCATE", "LSEEK", "OPEN", "INIT"])
def test_a_body_longer_than_its_struct_is_one_of_a_later_kernel(name: str) -> None:
    message = VALID[name]
    assert same(decoded(resized(message, len(message) + 8)), decoded(message))


@pytest.mark.parametrize("present", [0, 7, 9])
def test_a_write_with_more_or_less_data_than_it_says_is_refused(present: int) -> None:
    error = refusal(resized(WRITE, WRITE_PAYLOAD + present))
    assert str(error) == f"WRITE announces 8 bytes of data and has {present}"
    assert error.unique == UNIQUE


# --- Who waits for a reply --------------------------------------------------------------


@pytest.mark.parametrize(
    "opcode", [Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY]
)
def test_nothing_waits_for_a_reply_to(opcode: int) -> None:
    assert not expects_reply(opcode)


@pytest.mark.parametrize("opcode", [Opcode.DESTROY, Opcode.INIT, Opcode.READ, 0xABCDEF01])
def test_the_kernel_waits_for_a_reply_to(opcode: int) -> None:
    assert expects_reply(opcode)


# --- Properties -------------------------------------------------------------------------

deterministic = settings(derandomize=True, deadline=None, max_examples=500)
requests = st.sampled_from(sorted(VALID.values()))
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)


def assert_request_or_protocol_error(view: bytes, length: int) -> None:
    try:
        request = decode(view, length)
    except ProtocolError as error:
        assert str(error)
        assert 0 <= error.unique < 1 << 64
        return
    assert isinstance(request, get_args(Request))
    assert request.unique == int.from_bytes(view[8:16], "little")
    if isinstance(request, Write):
        assert WRITE_PAYLOAD + request.size <= length


@deterministic
@given(st.binary(max_size=200), st.integers(-1, 250))
def test_any_bytes(view: bytes, length: int) -> None:
    assert_request_or_protocol_error(view, length)


@deterministic
@given(st.sampled_from(Opcode), st.binary(min_size=32, max_size=200))
def test_any_bytes_behind_an_honest_length_and_a_known_opcode(opcode: Opcode, rest: bytes) -> None:
    message = struct.pack("<II", 8 + len(rest), opcode) + rest
    assert_request_or_protocol_error(message, len(message))


@deterministic
@given(requests, st.lists(st.tuples(st.integers(0, 103), st.integers(0, 255)), max_size=8))
def test_any_mutation(message: bytes, changes: list[tuple[int, int]]) -> None:
    mutant = bytearray(message)
    for position, value in changes:
        mutant[position % len(mutant)] = value
    assert_request_or_protocol_error(bytes(mutant), len(mutant))


@deterministic
@given(requests, st.integers(0, 120), st.integers(0, 0xFFFF))
def test_any_length_and_any_extensions(message: bytes, length: int, units: int) -> None:
    mutant = message[:length].ljust(length, b"\x99")
    if length >= IN_HEADER.size:
        mutant = patched(patched(mutant, LEN, length), TOTAL_EXTLEN, units)
    assert_request_or_protocol_error(mutant, length)


@pytest.mark.parametrize("name", VALID)
def test_every_truncation_is_refused(name: str) -> None:
    message = VALID[name]
    for length in range(len(message)):
        assert refusal(message[:length], length)


def request_bytes(opcode: Opcode, unique: int, nodeid: int, body: bytes) -> bytes:
    return IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, nodeid, 0, 0, 0, 0) + body


@deterministic
@given(u64, u64, u64, u64, u32)
def test_read_returns_what_was_packed(
    unique: int, nodeid: int, fh: int, offset: int, size: int
) -> None:
    body = READ_IN.pack(fh, offset, size, 0, 0, 0)
    request = decoded(request_bytes(Opcode.READ, unique, nodeid, body))
    assert same(request, Read(unique, nodeid, fh, offset, size))


@deterministic
@given(u64, u64, u64, u64, st.binary(max_size=64))
def test_write_returns_what_was_packed(
    unique: int, nodeid: int, fh: int, offset: int, data: bytes
) -> None:
    body = WRITE_IN.pack(fh, offset, len(data), 0, 0, 0) + data
    message = request_bytes(Opcode.WRITE, unique, nodeid, body)
    assert same(decoded(message), Write(unique, nodeid, fh, offset, len(data)))
    assert message[WRITE_PAYLOAD:] == data


@deterministic
@given(u64, u64, u64, u64, u64, u32)
def test_fallocate_returns_what_was_packed(
    unique: int, nodeid: int, fh: int, offset: int, length: int, mode: int
) -> None:
    body = FALLOCATE_IN.pack(fh, offset, length, mode)
    request = decoded(request_bytes(Opcode.FALLOCATE, unique, nodeid, body))
    assert same(request, Fallocate(unique, nodeid, fh, offset, length, mode))


@deterministic
@given(u64, u64, u64, u64, u32)
def test_lseek_returns_what_was_packed(
    unique: int, nodeid: int, fh: int, offset: int, whence: int
) -> None:
    body = LSEEK_IN.pack(fh, offset, whence)
    request = decoded(request_bytes(Opcode.LSEEK, unique, nodeid, body))
    assert same(request, Lseek(unique, nodeid, fh, offset, whence))


@deterministic
@given(u64, u64, u32)
def test_open_returns_what_was_packed(unique: int, nodeid: int, flags: int) -> None:
    request = decoded(request_bytes(Opcode.OPEN, unique, nodeid, OPEN_IN.pack(flags, 0)))
    assert same(request, Open(unique, nodeid, flags))


@deterministic
@given(u64, u32, u32, u32, u64)
def test_init_returns_what_was_packed(
    unique: int, major: int, minor: int, max_readahead: int, flags: int
) -> None:
    flags |= InitFlag.INIT_EXT
    body = INIT_IN.pack(major, minor, max_readahead, flags & 0xFFFFFFFF, flags >> 32)
    request = decoded(request_bytes(Opcode.INIT, unique, 0, body))
    assert same(request, Init(unique, major, minor, max_readahead, flags))
