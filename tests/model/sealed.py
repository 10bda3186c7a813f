"""What lies on a disk, opened as vswap/store/cipher.py says that it is closed."""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from model.memory import peek

from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Store
from vswap.store.backing import MemoryBacking
from vswap.store.entry import Extent
from vswap.store.region import Region

__all__ = ["given_out", "sequences", "unit_on_disk"]

_KEY_SIZE = 32
_NUMBER = struct.Struct("<Q")
_NONCE = struct.Struct("<QI")


def given_out(region: Region) -> int:
    """The last sequence that was given out."""
    return int(_NUMBER.unpack(peek(region, _KEY_SIZE, _NUMBER.size))[0])


def sequences(region: Region) -> list[int]:
    """Those of all disk segments."""
    count = (region.size - PAGE_SIZE) // _NUMBER.size
    found = peek(region, PAGE_SIZE, count * _NUMBER.size)
    return [number for (number,) in _NUMBER.iter_unpack(found)]


def unit_on_disk(store: Store, extent: Extent) -> bytes | None:
    """Header, payload and padding of a unit; None if that is not what lies there.

    Of a backing in memory, which does not hear of it.
    """
    region, backing = store._state.backing, store._parts.disk._backing
    assert isinstance(backing, MemoryBacking)
    segment, offset, size, _ = extent
    (sequence,) = _NUMBER.unpack(peek(region, PAGE_SIZE + segment * _NUMBER.size, _NUMBER.size))
    start = segment * SEGMENT_SIZE + offset
    sealed = bytes(memoryview(backing.data)[start : start + size])
    try:
        cipher = AESGCM(peek(region, 0, _KEY_SIZE))
        return cipher.decrypt(_NONCE.pack(sequence, offset), sealed, None)
    except InvalidTag:
        return None
