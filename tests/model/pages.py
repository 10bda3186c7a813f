"""Pages to store: of zeros, of text, of noise, some of each, and a real process's own."""

from __future__ import annotations

import os
import random
import re
import struct
from functools import lru_cache
from pathlib import Path

from vswap.geometry import PAGE_SIZE

__all__ = [
    "KINDS",
    "Stamp",
    "made",
    "mixed",
    "noise",
    "process_memory",
    "read_stamp",
    "stamped",
    "text",
    "zero",
]

KINDS = ("text", "noise", "half")
"""The kinds of `stamped` pages: compresses well, not at all, and to about a half."""

Stamp = tuple[int, int, int]
"""Three numbers a page is recognised by: in tests its slot, its writer, its generation."""

_STAMP = struct.Struct("<QIII")  # the stamp's numbers and the kind
_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.p [0-9a-f]+ 00:00 0 +(?:\[heap\])?$", re.M)


def zero(count: int = 1) -> bytes:
    """`count` pages of zeros."""
    return bytes(count * PAGE_SIZE)


@lru_cache
def _words() -> tuple[str, ...]:
    letters = random.Random(0)
    return tuple("".join(letters.choices("etaoinshr", k=letters.randint(2, 9))) for _ in range(300))


@lru_cache(256)
def text(count: int = 1, seed: int = 0) -> bytes:
    """`count` pages that every codec makes smaller, if not by much."""
    words = random.Random(seed)
    size = count * PAGE_SIZE
    return " ".join(words.choices(_words(), k=size // 3)).encode()[:size]


@lru_cache(256)
def noise(count: int = 1, seed: int = 0) -> bytes:
    """`count` pages that no codec makes smaller."""
    return random.Random(seed).randbytes(count * PAGE_SIZE)


@lru_cache(256)
def mixed(count: int = 1, seed: int = 0) -> bytes:
    """`count` pages, each of zeros, text or noise."""
    kinds = random.Random(seed)
    makers = (lambda _count, _seed: zero(), text, noise)
    return b"".join(kinds.choice(makers)(1, seed * 64 + i % 64) for i in range(count))


def made(maker: str, count: int, seed: int) -> bytes:
    """`count` pages by the maker of that name."""
    if maker == "zero":
        return zero(count)
    return {"text": text, "noise": noise, "mixed": mixed}[maker](count, seed)


def stamped(kind: str, stamp: Stamp) -> bytes:
    """A page that says what `stamp` it has; no byte of it would be the same by chance.

    Two stamped pages torn apart and put together are not a stamped page: compare with what
    `read_stamp` says it should be.
    """
    head = _STAMP.pack(*stamp, KINDS.index(kind))
    repeated = (head * (PAGE_SIZE // len(head) + 1))[:PAGE_SIZE]
    if kind == "text":
        return repeated
    random_bytes = random.Random(head).randbytes(PAGE_SIZE)
    kept = len(head) if kind == "noise" else PAGE_SIZE // 2
    return repeated[:kept] + random_bytes[kept:]


def read_stamp(page: bytes) -> Stamp | None:
    """The stamp of a page, or None if it is not, to the last byte, what `stamped` made."""
    *stamp, kind = _STAMP.unpack_from(page)
    if kind >= len(KINDS):
        return None
    found = (stamp[0], stamp[1], stamp[2])
    return found if stamped(KINDS[kind], found) == page else None


def process_memory(pages: int) -> bytes:
    """Up to `pages` pages out of this process: what a swap device is really given."""
    found = bytearray()
    wanted = pages * PAGE_SIZE
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for match in _MAP.finditer(Path("/proc/self/maps").read_text()):
            start, stop = (int(text, 16) for text in match.groups())
            try:
                found += os.pread(memory, min(stop - start, wanted - len(found)), start)
            except OSError:  # a mapping that went away meanwhile
                continue
            if len(found) == wanted:
                break
    finally:
        os.close(memory)
    return bytes(found[: len(found) // PAGE_SIZE * PAGE_SIZE])
