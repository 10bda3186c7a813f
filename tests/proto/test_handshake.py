"""INIT: what is taken from an offer, and what the control plane is shown of it."""

from __future__ import annotations

import errno
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vswap.errors import ProtocolError
from vswap.proto import replies
from vswap.proto.abi import IN_HEADER, INIT_IN_OLD, KERNEL_MINOR, MIN_KERNEL_MINOR, InitFlag
from vswap.proto.handshake import (
    InitReply,
    decode_init_reply,
    encode_init_reply,
    init_for_control_plane,
    negotiate,
)
from vswap.proto.requests import Init, decode

UNIQUE = 0xB8B7B6B5B4B3B2B1
EVERY_FLAG = (1 << 64) - 1
UPPER_HALF = 0xFFFFFFFF << 32
TAKEN = (
    InitFlag.ASYNC_READ
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.INIT_EXT
    | InitFlag.HAS_RESEND
)
REQUIRED = InitFlag.ASYNC_DIO | InitFlag.BIG_WRITES | InitFlag.MAX_PAGES | InitFlag.DO_READDIRPLUS

OFFER = Init(unique=UNIQUE, major=7, minor=45, max_readahead=1 << 17, flags=EVERY_FLAG)

REPLY = InitReply(
    minor=40,
    max_readahead=0xA4A3A2A1,
    flags=0x80_4044_A021,
    max_background=0x8281,
    congestion_threshold=0x8483,
    max_write=0x94939291,
    max_pages=0x8685,
    time_gran=0x98979695,
)
ENCODED_REPLY = bytes.fromhex(
    "50000000"  # len: 80
    "00000000"  # error
    "b1b2b3b4b5b6b7b8"  # unique
    "07000000"  # major
    "28000000"  # minor: 40
    "a1a2a3a4"  # max_readahead
    "21a04440"  # flags
    "8182"  # max_background
    "8384"  # congestion_threshold
    "91929394"  # max_write
    "95969798"  # time_gran
    "8586"  # max_pages
    "0000"  # map_alignment
    "80000000"  # flags2: HAS_RESEND
    "00000000"  # max_stack_depth
    "0000"  # request_timeout
    "0000000000000000000000000000000000000000"  # unused
    "0000"  # unused
)

# The kernel's INIT as it was received, and as the control plane is to see it when
# REPLY is what was taken. Lines that differ are marked.
INIT = bytes.fromhex(
    "68000000"  # len: 104
    "1a000000"  # opcode: INIT
    "b1b2b3b4b5b6b7b8"  # unique
    "c1c2c3c4c5c6c7c8"  # nodeid
    "d1d1d1d1"  # uid
    "d2d2d2d2"  # gid
    "d3d3d3d3"  # pid
    "0000"  # total_extlen
    "d4d4"  # padding
    "07000000"  # major
    "2d000000"  # minor: 45
    "00000200"  # max_readahead: 128 KiB
    "fbffff7f"  # flags
    "ff070000"  # flags2
    "e1e1e1e1e2e2e2e2e3e3e3e3e4e4e4e4e5e5e5e5e6e6e6e6"  # unused
    "e7e7e7e7e8e8e8e8e9e9e9e9eaeaeaeaebebebeb"  # unused
)
INIT_FOR_CONTROL_PLANE = bytes.fromhex(
    "68000000"  # len: 104
    "1a000000"  # opcode: INIT
    "b1b2b3b4b5b6b7b8"  # unique
    "c1c2c3c4c5c6c7c8"  # nodeid
    "d1d1d1d1"  # uid
    "d2d2d2d2"  # gid
    "d3d3d3d3"  # pid
    "0000"  # total_extlen
    "d4d4"  # padding
    "07000000"  # major
    "28000000"  # minor: 40              <- REPLY.minor
    "a1a2a3a4"  # max_readahead          <- REPLY.max_readahead
    "21a04440"  # flags                  <- those REPLY took
    "80000000"  # flags2: HAS_RESEND     <- the same
    "e1e1e1e1e2e2e2e2e3e3e3e3e4e4e4e4e5e5e5e5e6e6e6e6"  # unused
    "e7e7e7e7e8e8e8e8e9e9e9e9eaeaeaeaebebebeb"  # unused
)
INIT_BEFORE_7_36 = bytes.fromhex(
    "38000000"  # len: 56
    "1a000000"  # opcode: INIT
    "b1b2b3b4b5b6b7b8"  # unique
    "c1c2c3c4c5c6c7c8"  # nodeid
    "d1d1d1d1"  # uid
    "d2d2d2d2"  # gid
    "d3d3d3d3"  # pid
    "0000"  # total_extlen
    "d4d4"  # padding
    "07000000"  # major
    "1f000000"  # minor: 31
    "00000200"  # max_readahead: 128 KiB
    "fbffff3f"  # flags
)

# --- Taking -----------------------------------------------------------------------------


def test_everything_wanted_is_taken_when_everything_is_offered() -> None:
    assert negotiate(OFFER).flags == TAKEN


def test_what_is_required_is_enough() -> None:
    assert negotiate(OFFER._replace(flags=REQUIRED)).flags == REQUIRED


def test_has_resend_cannot_be_taken_without_init_ext() -> None:
    taken = negotiate(OFFER._replace(flags=EVERY_FLAG & ~InitFlag.INIT_EXT)).flags
    assert taken == TAKEN & ~InitFlag.INIT_EXT & ~InitFlag.HAS_RESEND


def test_requests_carry_up_to_1_mib() -> None:
    reply = negotiate(OFFER)
    assert (reply.max_write, reply.max_pages) == (1 << 20, 256)


def test_the_queue_behind_a_loop_device_may_be_128_deep() -> None:
    reply = negotiate(OFFER)
    assert (reply.max_background, reply.congestion_threshold) == (128, 96)


def test_times_are_exact() -> None:
    assert negotiate(OFFER).time_gran == 1


def test_read_ahead_is_left_to_the_kernel() -> None:
    assert negotiate(OFFER._replace(max_readahead=0xA4A3A2A1)).max_readahead == 0xA4A3A2A1


def test_a_newer_minor_is_answered_with_ours() -> None:
    assert negotiate(OFFER._replace(minor=KERNEL_MINOR + 1)).minor == KERNEL_MINOR


def test_an_older_minor_is_spoken() -> None:
    assert negotiate(OFFER._replace(minor=MIN_KERNEL_MINOR)).minor == MIN_KERNEL_MINOR


def test_the_reply_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        negotiate(OFFER).minor = 0  # type: ignore[misc]


# --- Refusing ---------------------------------------------------------------------------


def refusal(offer: Init) -> str:
    with pytest.raises(ProtocolError) as caught:
        negotiate(offer)
    assert caught.value.unique == UNIQUE
    return str(caught.value)


@pytest.mark.parametrize("major", [0, 6, 8])
def test_another_major_is_refused(major: int) -> None:
    complaint = refusal(OFFER._replace(major=major))
    assert complaint.startswith(f"the kernel speaks FUSE {major}.45, and at least 7.31 ")


def test_a_minor_too_old_is_refused() -> None:
    complaint = refusal(OFFER._replace(minor=MIN_KERNEL_MINOR - 1))
    assert complaint.startswith("the kernel speaks FUSE 7.30, and at least 7.31 ")


@pytest.mark.parametrize(
    ("flag", "without"),
    [
        (InitFlag.ASYNC_DIO, "lost in silence"),
        (InitFlag.BIG_WRITES, "one page at a time"),
        (InitFlag.MAX_PAGES, "end at 32 pages"),
        (InitFlag.DO_READDIRPLUS, "pyfuse3"),
    ],
)
def test_a_missing_feature_is_named_with_its_use(flag: InitFlag, without: str) -> None:
    complaint = refusal(OFFER._replace(flags=EVERY_FLAG & ~flag))
    assert f"does not offer {flag.name} (" in complaint
    assert without in complaint


def test_all_missing_features_are_named_at_once() -> None:
    complaint = refusal(OFFER._replace(flags=0))
    assert all(str(flag.name) in complaint for flag in REQUIRED)


# --- On the wire ------------------------------------------------------------------------


def test_a_reply_is_encoded() -> None:
    assert encode_init_reply(UNIQUE, REPLY) == ENCODED_REPLY


def test_a_reply_is_decoded() -> None:
    assert decode_init_reply(ENCODED_REPLY) == REPLY


def test_flags2_of_a_reply_without_init_ext_counts_for_nothing() -> None:
    reply = replace(REPLY, flags=UPPER_HALF | InitFlag.MAX_PAGES)
    decoded = decode_init_reply(encode_init_reply(UNIQUE, reply))
    assert decoded.flags == InitFlag.MAX_PAGES


def reply_refusal(raw: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_init_reply(raw)
    return caught.value


def test_a_reply_that_refuses_is_an_error() -> None:
    error = reply_refusal(replies.error(UNIQUE, errno.EPROTO))
    assert str(error) == "the control plane refuses INIT: Protocol error"
    assert error.unique == UNIQUE


@pytest.mark.parametrize("size", [8, 24])
def test_a_reply_of_an_old_size_is_an_error(size: int) -> None:
    error = reply_refusal(replies.data_header(UNIQUE, size) + b"\x77" * size)
    assert str(error) == f"a reply to INIT has 80 bytes, not {16 + size}"
    assert error.unique == UNIQUE


def test_a_reply_of_another_major_is_an_error() -> None:
    error = reply_refusal(ENCODED_REPLY[:16] + b"\x08" + ENCODED_REPLY[17:])
    assert str(error) == "the control plane speaks FUSE 8.40, not 7"
    assert error.unique == UNIQUE


def test_a_reply_that_is_none_is_an_error() -> None:
    assert reply_refusal(b"").unique == 0


def test_a_notification_is_no_reply() -> None:
    assert reply_refusal(replies.resend()).unique == 0


# --- For the control plane --------------------------------------------------------------


def test_only_what_was_taken_is_offered_on() -> None:
    assert init_for_control_plane(INIT, REPLY) == INIT_FOR_CONTROL_PLANE


def test_what_the_kernel_did_not_offer_is_not_offered_on() -> None:
    shown = init_for_control_plane(INIT, replace(REPLY, flags=EVERY_FLAG))
    assert decode(shown, len(shown)).flags == 0x7FF_7FFF_FFFB  # type: ignore[union-attr]


def test_an_old_init_keeps_its_size() -> None:
    shown = init_for_control_plane(INIT_BEFORE_7_36, replace(REPLY, minor=31))
    assert shown == (
        INIT_BEFORE_7_36[:44]
        + bytes.fromhex(
            "1f000000"  # minor: 31
            "a1a2a3a4"  # max_readahead
            "21a04400"  # flags, without INIT_EXT
        )
    )


def test_flags2_is_zeroed_when_init_ext_was_not_taken() -> None:
    shown = init_for_control_plane(INIT, replace(REPLY, flags=UPPER_HALF | InitFlag.MAX_PAGES))
    assert shown[52:60] == bytes.fromhex(
        "00004000"  # flags: MAX_PAGES
        "00000000"  # flags2
    )


def test_the_kept_request_is_not_changed() -> None:
    kept = bytearray(INIT)
    init_for_control_plane(bytes(kept), REPLY)
    assert kept == INIT


def test_another_request_cannot_take_its_place() -> None:
    statfs = IN_HEADER.pack(IN_HEADER.size, 17, UNIQUE, 1, 0, 0, 0, 0)
    with pytest.raises(ProtocolError, match="the kept request is not INIT") as caught:
        init_for_control_plane(statfs, REPLY)
    assert caught.value.unique == UNIQUE


def test_a_damaged_request_cannot_take_its_place() -> None:
    with pytest.raises(ProtocolError):
        init_for_control_plane(INIT[:-1], REPLY)


# --- Properties -------------------------------------------------------------------------

deterministic = settings(derandomize=True, deadline=None, max_examples=500)
u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, EVERY_FLAG)
init_replies = st.builds(
    InitReply,
    minor=u32,
    max_readahead=u32,
    flags=u64.map(lambda flags: int(flags | InitFlag.INIT_EXT)),
    max_background=u16,
    congestion_threshold=u16,
    max_write=u32,
    max_pages=u16,
    time_gran=u32,
)


@deterministic
@given(u64)
def test_no_flag_is_taken_that_was_not_offered(offered: int) -> None:
    offered |= REQUIRED
    taken = negotiate(OFFER._replace(flags=offered)).flags
    assert taken & ~offered == 0
    assert taken & REQUIRED == REQUIRED
    assert taken & InitFlag.INIT_EXT or not taken & UPPER_HALF


@deterministic
@given(u32, u32, u64)
def test_any_offer_gives_a_reply_or_a_protocol_error(major: int, minor: int, flags: int) -> None:
    try:
        reply = negotiate(Init(UNIQUE, major, minor, 0, flags))
    except ProtocolError as error:
        assert error.unique == UNIQUE
    else:
        assert major == 7
        assert MIN_KERNEL_MINOR <= reply.minor <= minor


@deterministic
@given(st.integers(1, EVERY_FLAG), init_replies)
def test_a_reply_survives_the_wire(unique: int, reply: InitReply) -> None:
    assert decode_init_reply(encode_init_reply(unique, reply)) == reply


@deterministic
@given(st.binary(max_size=100))
def test_any_bytes_give_a_reply_or_a_protocol_error(raw: bytes) -> None:
    try:
        decode_init_reply(raw)
    except ProtocolError as error:
        assert str(error)


@deterministic
@given(st.binary(min_size=64, max_size=64))
def test_any_init_out_gives_a_reply_or_a_protocol_error(body: bytes) -> None:
    try:
        decode_init_reply(replies.data_header(UNIQUE, len(body)) + body)
    except ProtocolError as error:
        assert error.unique == UNIQUE


@deterministic
@given(st.lists(st.tuples(st.integers(0, 103), st.integers(0, 255)), max_size=8), init_replies)
def test_any_mutation_is_offered_on_or_refused(
    changes: list[tuple[int, int]], reply: InitReply
) -> None:
    mutant = bytearray(INIT)
    for position, value in changes:
        mutant[position] = value
    try:
        shown = init_for_control_plane(bytes(mutant), reply)
    except ProtocolError as error:
        assert str(error)
        return
    before, after = decode(bytes(mutant), len(mutant)), decode(shown, len(shown))
    assert isinstance(before, Init)
    assert isinstance(after, Init)
    assert after.major == before.major
    assert after.flags & ~(before.flags & reply.flags) == 0
    assert shown[: IN_HEADER.size] == mutant[: IN_HEADER.size]
    assert shown[60:] == mutant[60:]


@deterministic
@given(u32, u32, u32)
def test_any_old_init_is_offered_on_at_its_size(minor: int, readahead: int, flags: int) -> None:
    flags &= ~InitFlag.INIT_EXT
    raw = INIT_BEFORE_7_36[: IN_HEADER.size] + INIT_IN_OLD.pack(7, minor, readahead, flags)
    shown = init_for_control_plane(raw, REPLY)
    assert decode(shown, len(shown)) == Init(
        UNIQUE, 7, REPLY.minor, REPLY.max_readahead, flags & REPLY.flags
    )
