"""Pages to store: of zeros, of one word, of text, of noise, some of each, and a real process's."""

from __future__ import annotations

import os
import random
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vswap.geometry import PAGE_SIZE

__all__ = [
    "KINDS",
    "Stamp",
    "filled",
    "made",
    "mixed",
    "noise",
    "process_memory",
    "read_stamp",
    "stamped",
    "text",
    "zero",
]

KINDS = ("text", "noise", "half", "word")
"""The kinds of `stamped` pages: compresses well, not at all, to about a half, is one word."""

Stamp = tuple[int, int, int]
"""Three numbers a page is recognised by: in tests its slot, its writer, its generation."""

_STAMP = struct.Struct("<QIII")  # the stamp's numbers and the kind
_WORD = struct.Struct("<HBBI")  # slot, writer, a mark, generation
_MARK = 0xA7
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


def filled(count: int = 1, seed: int = 0) -> bytes:
    """`count` pages of one 8-byte word again and again, which is not zero."""
    word = random.Random(f"word {seed}").randbytes(7) + b"\x5a"
    return word * (count * PAGE_SIZE // len(word))


@lru_cache(256)
def mixed(count: int = 1, seed: int = 0) -> bytes:
    """`count` pages, each of zeros, one word, text or noise."""
    kinds = random.Random(seed)
    return b"".join(
        made(kinds.choice(("zero", "text", "noise", "filled")), 1, seed * 64 + i % 64)
        for i in range(count)
    )


def made(maker: str, count: int, seed: int) -> bytes:
    """`count` pages by the maker of that name."""
    if maker == "zero":
        return zero(count)
    makers: dict[str, Callable[[int, int], bytes]] = {
        "filled": filled,
        "text": text,
        "noise": noise,
        "mixed": mixed,
    }
    return makers[maker](count, seed)


def stamped(kind: str, stamp: Stamp) -> bytes:
    """A page that says what `stamp` it has; no byte of it would be the same by chance.

    Two stamped pages torn apart and put together are not a stamped page: compare with what
    `read_stamp` says it should be.
    """
    if kind == "word":
        slot, writer, generation = stamp
        return _WORD.pack(slot, writer, _MARK, generation) * (PAGE_SIZE // _WORD.size)
    head = _STAMP.pack(*stamp, KINDS.index(kind))
    repeated = (head * (PAGE_SIZE // len(head) + 1))[:PAGE_SIZE]
    if kind == "text":
        return repeated
    random_bytes = random.Random(head).randbytes(PAGE_SIZE)
    kept = len(head) if kind == "noise" else PAGE_SIZE // 2
    return repeated[:kept] + random_bytes[kept:]


def read_stamp(page: bytes) -> Stamp | None:
    """The stamp of a page, or None if it is not, to the last byte, what `stamped` made."""
    if page == page[: _WORD.size] * (PAGE_SIZE // _WORD.size):
        slot, writer, mark, generation = _WORD.unpack_from(page)
        return (slot, writer, generation) if mark == _MARK else None
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
