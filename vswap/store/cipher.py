"""What goes to the disk is encrypted and authenticated, each unit for itself.

AES-256 in Galois/counter mode, from the `cryptography` package. The key is made with the state,
lies in its locked memory and nowhere else, and is gone with it.

Invariant NONCE-ONCE (argued in docs/format.md, tested): no nonce is used for two plain texts
under one key. A nonce is the sequence of a filling and the byte offset of the unit in its
segment. Sequences are given out once for all time (`DiskLog.next_sequence` counts in the memory
that outlives the worker, before the number is used), and in one filling each offset is used once.

The nonce is not stored: who reads knows the place and the sequence. So what was once written to
the place, or to another one, is no more taken for the unit than noise is.
"""

from __future__ import annotations

import struct

from vswap.codec import Bytes

__all__ = ["TAG_SIZE", "Cipher"]

TAG_SIZE = 16
_NONCE = struct.Struct("<QI")
assert _NONCE.size == 12


class Cipher:
    """Seals and opens units under one key. Any thread may use it."""

    def __init__(self, key: Bytes) -> None:
        """`key` is 32 bytes."""
        # Here: it takes 10 MB, which only a store with a backing needs.
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._aead = AESGCM(key)
        self._wrong = InvalidTag

    def seal(self, sequence: int, offset: int, plain: Bytes) -> bytes:
        """`plain` encrypted, and `TAG_SIZE` bytes more. The place must never come again."""
        return self._aead.encrypt(_NONCE.pack(sequence, offset), plain, None)

    def open(self, sequence: int, offset: int, sealed: Bytes) -> bytes | None:
        """What was sealed for that place; None if it was not exactly this."""
        try:
            return self._aead.decrypt(_NONCE.pack(sequence, offset), sealed, None)
        except self._wrong:
            return None
