"""The FUSE ABI as far as this project speaks it: layouts and numbers, no behaviour.

Source: `include/uapi/linux/fuse.h` of the Linux kernel. The rules it follows, and so do we:

* A message is a header and, right behind it, the struct of its opcode. Requests come one
  to a read, replies go one to a write; the `len` of the header counts the whole message.
* Integers are in the machine's own order. We write little-endian out in every format: it
  is the only order we run on, and it makes `struct` leave out alignment of its own.
* Every struct is padded to 8 bytes by hand. Padding is an `x` here: skipped when
  unpacked, zero when packed.
* Structs grow at their tail, and only behind a flag that both sides have agreed on.

The fields of each layout stand in the comment above it, in order; its size stands below
it, so that a typing mistake in a format fails at import.

Enumerations are for names that are printed or written down. What the data plane tests
for each request (`FALLOC_FL_...`, `RESEND_BIT`) are bare integers: arithmetic on an
`IntFlag` costs more than decoding the request did.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

# --- Versions ---------------------------------------------------------------------------

KERNEL_MAJOR: Final = 7

# The newest minor we answer with. 40 brought HAS_RESEND, the youngest thing we use; to
# claim more would promise an understanding of messages that nothing here has looked at.
KERNEL_MINOR: Final = 40

# The oldest minor we accept. In 31 the last field before flags2 (map_alignment) took its
# place in init_out. From there on every layout below holds as it stands: the two later
# changes, flags2 in INIT (36) and total_extlen (38), use bytes that were zero before.
MIN_KERNEL_MINOR: Final = 31

# --- Sizes ------------------------------------------------------------------------------

# Swap-out reaches 512 KiB in one request. 1 MiB is what 256 pages hold, and 256 pages is
# the most that a kernel grants unless its fuse.max_pages_limit was raised.
MAX_PAGES: Final = 256
MAX_WRITE: Final = 1 << 20

# The kernel refuses (EINVAL) to be read into less than this, whatever request is next.
MIN_READ_BUFFER: Final = 8192

# Set in `unique` when a request comes a second time, after NOTIFY_RESEND. It belongs to
# the name: a reply without it is a reply to nothing (ENOENT).
RESEND_BIT: Final = 1 << 63

# --- Layouts ----------------------------------------------------------------------------

# len, opcode, unique, nodeid, uid, gid, pid, total_extlen (in units of 8 bytes)
IN_HEADER: Final = Struct("<IIQQIIIH2x")
assert IN_HEADER.size == 40

# len, error (0 or a negative errno), unique
OUT_HEADER: Final = Struct("<IiQ")
assert OUT_HEADER.size == 16

# major, minor, max_readahead, flags: all there was before 7.36
INIT_IN_OLD: Final = Struct("<IIII")
assert INIT_IN_OLD.size == 16

# flags2: what 7.36 put behind it
INIT_IN_FLAGS2: Final = Struct("<I")
assert INIT_IN_FLAGS2.size == 4

# major, minor, max_readahead, flags, flags2: the whole of it since then
INIT_IN: Final = Struct("<IIIII44x")
assert INIT_IN.size == 64

# major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
# time_gran, max_pages, map_alignment, flags2, max_stack_depth, request_timeout
INIT_OUT: Final = Struct("<IIIIHHIIHHIIH22x")
assert INIT_OUT.size == 64

# fh, offset, size, read_flags, lock_owner, flags
READ_IN: Final = Struct("<QQIIQI4x")
assert READ_IN.size == 40

# fh, offset, size, write_flags, lock_owner, flags; then `size` bytes of data
WRITE_IN: Final = Struct("<QQIIQI4x")
assert WRITE_IN.size == 40

# size
WRITE_OUT: Final = Struct("<I4x")
assert WRITE_OUT.size == 8

# fh, offset, length, mode
FALLOCATE_IN: Final = Struct("<QQQI4x")
assert FALLOCATE_IN.size == 32

# fh, offset, whence
LSEEK_IN: Final = Struct("<QQI4x")
assert LSEEK_IN.size == 24

# offset
LSEEK_OUT: Final = Struct("<Q")
assert LSEEK_OUT.size == 8

# flags (those of open(2)), open_flags
OPEN_IN: Final = Struct("<II")
assert OPEN_IN.size == 8

# fh, open_flags (`OpenFlag`), backing_id
OPEN_OUT: Final = Struct("<QIi")
assert OPEN_OUT.size == 16

# Where the data of a WRITE begins in the request.
WRITE_PAYLOAD: Final = IN_HEADER.size + WRITE_IN.size
assert WRITE_PAYLOAD == 80

# What a receive buffer must hold once MAX_WRITE is agreed on.
READ_BUFFER_SIZE: Final = max(MIN_READ_BUFFER, WRITE_PAYLOAD + MAX_WRITE)

# --- Numbers ----------------------------------------------------------------------------


class Opcode(IntEnum):
    """The requests that are named somewhere in this project. Others pass through by number."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    LSEEK = 46


class NotifyCode(IntEnum):
    """What a message of `unique` 0 from us to the kernel says, in place of an error."""

    RESEND = 7


class InitFlag(IntFlag):
    """Features offered and accepted in INIT, numbered over `flags` and `flags2` as one.

    Bits from 32 on travel in `flags2`, 32 lower, and mean nothing unless INIT_EXT is set.
    Which are taken, and why, is said in `handshake`; here only why some never are.
    """

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30
    HAS_RESEND = 1 << 39
    # Never taken: requests would come through a ring, and no more by read().
    OVER_IO_URING = 1 << 41
    # Never taken: one request that is late would end the connection, and with it every
    # page swapped out.
    REQUEST_TIMEOUT = 1 << 42


class OpenFlag(IntFlag):
    """How the kernel is to treat a file, said in the reply to OPEN."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NOFLUSH = 1 << 5
    # Since 7.38. Without it direct writes to one file are sent one after the other. A
    # kernel that does not know it ignores it, so it is never negotiated.
    PARALLEL_DIRECT_WRITES = 1 << 6


# The modes of fallocate(2), from `include/uapi/linux/falloc.h`. The loop device sends a
# discard as PUNCH_HOLE | KEEP_SIZE, and write-zeroes with ZERO_RANGE or PUNCH_HOLE.
FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
FALLOC_FL_ZERO_RANGE: Final = 0x10
