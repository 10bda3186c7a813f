"""The numbers are the kernel's, and fit together."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

import pytest

from vswap.proto import abi
from vswap.proto.abi import InitFlag, NotifyCode, Opcode, OpenFlag

INSTALLED_HEADER = Path("/usr/include/linux/fuse.h")

# (offset, width) of each field, as a C compiler lays the structs of the kernel's header out.
FIELDS = {
    "IN_HEADER": [(0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 2)],
    "OUT_HEADER": [(0, 4), (4, 4), (8, 8)],
    "INIT_IN_OLD": [(0, 4), (4, 4), (8, 4), (12, 4)],
    "INIT_IN": [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4)],
    "INIT_OUT": [
        *[(0, 4), (4, 4), (8, 4), (12, 4)],  # major, minor, max_readahead, flags
        *[(16, 2), (18, 2)],  # max_background, congestion_threshold
        *[(20, 4), (24, 4)],  # max_write, time_gran
        *[(28, 2), (30, 2)],  # max_pages, map_alignment
        *[(32, 4), (36, 4), (40, 2)],  # flags2, max_stack_depth, request_timeout
    ],
    "READ_IN": [(0, 8), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4)],
    "WRITE_IN": [(0, 8), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4)],
    "WRITE_OUT": [(0, 4)],
    "FALLOCATE_IN": [(0, 8), (8, 8), (16, 8), (24, 4)],
    "LSEEK_IN": [(0, 8), (8, 8), (16, 4)],
    "LSEEK_OUT": [(0, 8)],
    "OPEN_IN": [(0, 4), (4, 4)],
    "OPEN_OUT": [(0, 8), (8, 4), (12, 4)],
}

SIZES = {
    "IN_HEADER": 40,
    "OUT_HEADER": 16,
    "INIT_IN_OLD": 16,
    "INIT_IN": 64,
    "INIT_OUT": 64,
    "READ_IN": 40,
    "WRITE_IN": 40,
    "WRITE_OUT": 8,
    "FALLOCATE_IN": 32,
    "LSEEK_IN": 24,
    "LSEEK_OUT": 8,
    "OPEN_IN": 8,
    "OPEN_OUT": 16,
}

OPCODES = {
    "LOOKUP": 1,
    "FORGET": 2,
    "GETATTR": 3,
    "SETATTR": 4,
    "OPEN": 14,
    "READ": 15,
    "WRITE": 16,
    "STATFS": 17,
    "RELEASE": 18,
    "FSYNC": 20,
    "FLUSH": 25,
    "INIT": 26,
    "OPENDIR": 27,
    "READDIR": 28,
    "RELEASEDIR": 29,
    "INTERRUPT": 36,
    "DESTROY": 38,
    "NOTIFY_REPLY": 41,
    "BATCH_FORGET": 42,
    "FALLOCATE": 43,
    "READDIRPLUS": 44,
    "LSEEK": 46,
}

INIT_FLAG_BITS = {
    "ASYNC_READ": 0,
    "BIG_WRITES": 5,
    "DO_READDIRPLUS": 13,
    "ASYNC_DIO": 15,
    "PARALLEL_DIROPS": 18,
    "MAX_PAGES": 22,
    "INIT_EXT": 30,
    "HAS_RESEND": 39,
    "OVER_IO_URING": 41,
    "REQUEST_TIMEOUT": 42,
}

OPEN_FLAG_BITS = {"DIRECT_IO": 0, "KEEP_CACHE": 1, "NOFLUSH": 5, "PARALLEL_DIRECT_WRITES": 6}


def layout(name: str) -> Struct:
    found = getattr(abi, name)
    assert isinstance(found, Struct)
    return found


@pytest.mark.parametrize("name", FIELDS)
def test_fields_lie_where_the_kernel_puts_them(name: str) -> None:
    # Byte n of the struct has the value n: a field's value tells its place and width.
    struct = layout(name)
    message = bytes(range(struct.size))
    expected = [int.from_bytes(message[at : at + width], "little") for at, width in FIELDS[name]]
    assert list(struct.unpack(message)) == expected


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_kernels(name: str) -> None:
    assert layout(name).size == SIZES[name]


def test_flags2_lies_right_behind_the_old_init() -> None:
    whole = abi.INIT_IN.pack(1, 2, 3, 4, 0x5E5E5E5E)
    assert abi.INIT_IN_FLAGS2.unpack_from(whole, abi.INIT_IN_OLD.size) == (0x5E5E5E5E,)


def test_opcodes_are_the_kernels() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == OPCODES


def test_init_flags_are_numbered_over_both_words() -> None:
    assert {flag.name: flag.value for flag in InitFlag} == {
        name: 1 << bit for name, bit in INIT_FLAG_BITS.items()
    }


def test_open_flags_are_the_kernels() -> None:
    assert {flag.name: flag.value for flag in OpenFlag} == {
        name: 1 << bit for name, bit in OPEN_FLAG_BITS.items()
    }


def test_resend_is_notification_7() -> None:
    assert NotifyCode.RESEND.value == 7


def test_fallocate_modes_are_those_of_the_system_call() -> None:
    modes = (abi.FALLOC_FL_KEEP_SIZE, abi.FALLOC_FL_PUNCH_HOLE, abi.FALLOC_FL_ZERO_RANGE)
    assert modes == (1, 2, 0x10)


def test_a_write_of_max_write_fills_max_pages() -> None:
    assert abi.MAX_PAGES * 4096 == abi.MAX_WRITE


def test_a_receive_buffer_holds_the_largest_write() -> None:
    assert abi.READ_BUFFER_SIZE == 80 + (1 << 20)


def test_the_resend_bit_is_the_highest_of_unique() -> None:
    assert abi.RESEND_BIT == 1 << 63


def test_the_minor_we_speak_is_one_that_we_accept() -> None:
    assert abi.MIN_KERNEL_MINOR <= abi.KERNEL_MINOR


# --- Against the header of this machine, which may be older than what we know ----------


def installed_header() -> str:
    if not INSTALLED_HEADER.exists():
        pytest.skip(f"no {INSTALLED_HEADER} to compare with")
    return INSTALLED_HEADER.read_text()


def test_opcodes_agree_with_the_installed_header() -> None:
    known = re.findall(r"^\tFUSE_(\w+)\s*=\s*(\d+),", installed_header(), re.MULTILINE)
    theirs = {name: int(value) for name, value in known}
    ours = {opcode.name: opcode.value for opcode in Opcode}
    assert ours.items() <= theirs.items()


@pytest.mark.parametrize(("prefix", "flags"), [("FUSE", InitFlag), ("FOPEN", OpenFlag)])
def test_flags_agree_with_the_installed_header(
    prefix: str, flags: type[InitFlag | OpenFlag]
) -> None:
    pattern = rf"^#define {prefix}_(\w+)\s*\(1(?:ULL)? << (\d+)\)"
    known = re.findall(pattern, installed_header(), re.MULTILINE)
    theirs = {name: 1 << int(bit) for name, bit in known}
    ours = {flag.name: flag.value for flag in flags if flag.name in theirs}
    assert ours
    assert ours.items() <= theirs.items()
