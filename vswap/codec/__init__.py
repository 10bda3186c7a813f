"""Codecs: lz4, zstd and stored, each behind the same two calls."""

from __future__ import annotations

from collections.abc import Callable

from vswap.codec.base import LZ4, STORED, ZSTD, Bytes, Codec
from vswap.codec.lz4 import Lz4
from vswap.codec.stored import Stored
from vswap.codec.zstd import Zstd
from vswap.errors import UserError

__all__ = ["CODECS", "LZ4", "STORED", "ZSTD", "Bytes", "Codec", "Lz4", "Stored", "Zstd", "codec"]

CODECS: dict[str, Callable[[], Codec]] = {"lz4": Lz4, "zstd": Zstd, "stored": Stored}
"""What a setting may name, and how a thread gets its own."""


def codec(name: str) -> Codec:
    """A codec of the caller's own. Raises `UserError` for a name that is not in `CODECS`."""
    try:
        return CODECS[name]()
    except KeyError:
        known = ", ".join(CODECS)
        raise UserError(f"unknown codec {name!r}: use one of {known}") from None
