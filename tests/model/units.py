"""A unit in a piece of memory, and codecs that tell how often they decompress."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from vswap.codec import Bytes, Codec, by_number
from vswap.geometry import PAGE_SIZE
from vswap.store import entry
from vswap.store.decoder import Decoder
from vswap.store.unit import pack_payload, unit_size, write_unit

__all__ = ["AT", "CODECS", "Decoded", "OneUnit"]

CODECS: list[Codec] = by_number()
AT = 1024
"""Where in memory the unit of `OneUnit` begins."""


class OneUnit:
    """A piece of memory with one unit in it."""

    def __init__(self, slot: int, data: bytes, codec: Codec) -> None:
        self.pages = len(data) // PAGE_SIZE
        number, payload = pack_payload(codec, data)
        self.length = len(payload)
        self.size = unit_size(self.length, self.pages)
        self.memory = memoryview(bytearray(b"\xa5" * (AT + self.size + 64)))
        write_unit(self.memory, AT, slot, self.pages, number, payload)
        self.decoder = Decoder(self.memory, CODECS)

    def entry(self, index: int = 0) -> int:
        first = entry.pack(AT, self.size // self.pages, 0)
        return first + (index << entry.INDEX_SHIFT)

    def read(self, slot: int, index: int = 0) -> bytes:
        return bytes(self.decoder.unit(self.entry(index), slot)[0])

    def flipped(self, first_byte: int, last_byte: int) -> Iterator[tuple[int, int]]:
        """Flip each bit of the unit's bytes in turn, and put it right again."""
        for at in range(AT + first_byte, AT + last_byte):
            for bit in range(8):
                self.memory[at] ^= 1 << bit
                yield at - AT, bit
                self.memory[at] ^= 1 << bit


class _Pages(bytearray):
    """Decompressed pages. Weak references to them are possible, as to `bytes` they are not."""


class _Counted:
    """A codec as another one is, whose decompressed pages `Decoded` hears of."""

    def __init__(self, codec: Codec, told: Decoded) -> None:
        self.number = codec.number
        self._codec = codec
        self._told = told

    def compress(self, data: Bytes) -> Bytes:
        return self._codec.compress(data)

    def decompress(self, data: Bytes, size: int) -> Bytes:
        return self._told.note(self._codec.decompress(data, size))


class Decoded:
    """What the decoder of `codecs` has decoded, and how much of it is still there."""

    def __init__(self) -> None:
        self.codecs: list[Codec] = [_Counted(codec, self) for codec in by_number()]
        self.units = 0
        self._made: list[weakref.ref[_Pages]] = []

    def note(self, data: Bytes) -> Bytes:
        pages = _Pages(data)
        self.units += 1
        self._made.append(weakref.ref(pages))
        return pages

    def pages_kept(self) -> int:
        """How many pages somebody still holds."""
        alive = [pages for pages in (made() for made in self._made) if pages is not None]
        return sum(map(len, alive)) // PAGE_SIZE
