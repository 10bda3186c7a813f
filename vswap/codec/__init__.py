"""Codecs: lz4, zstd and stored, each behind the same two calls."""

from __future__ import annotations

from collections.abc import Callable

from vswap.codec.base import LZ4, STORED, ZSTD, ZSTD_DICTIONARY, Bytes, Codec
from vswap.codec.lz4 import Lz4
from vswap.codec.stored import Stored
from vswap.codec.zstd import Zstd, train
from vswap.errors import UserError

__all__ = [
    "CODECS",
    "LZ4",
    "STORED",
    "ZSTD",
    "ZSTD_DICTIONARY",
    "Bytes",
    "Codec",
    "Lz4",
    "Stored",
    "Zstd",
    "by_number",
    "codec",
    "train",
]

CODECS: dict[str, Callable[[int], Codec]] = {
    "lz4": lambda _: Lz4(),
    "zstd-fast": lambda unit_size: Zstd(-1, unit_size),
    "zstd": lambda unit_size: Zstd(1, unit_size),
    "stored": lambda _: Stored(),
}
"""What a setting may name, and how a thread gets its own, for units of so many bytes."""


def codec(name: str, unit_size: int) -> Codec:
    """A codec of the caller's own, best at `unit_size` bytes. `UserError` for an unknown name."""
    try:
        return CODECS[name](unit_size)
    except KeyError:
        known = ", ".join(CODECS)
        raise UserError(f"unknown codec {name!r}: use one of {known}") from None


def by_number() -> list[Codec]:
    """A codec for each number that any device's units may have, at that place: to decompress."""
    return [Stored(), Lz4(), Zstd(1, 4096)]
